"""An HTTP server in a thread that answers in JSON, for code that is not asynchronous. See tests/llm/endpoints.py for the other."""

import contextlib
import http.server
import json
import threading


@contextlib.contextmanager
def serving_json(post, models=("small",), requests=None):
    """An endpoint. Yields its address, without /v1.

    Args:
        post: the tree of a request to (status, tree) of its answer.
        requests: a list that gets (path, tree) of each request.
        models: the names that it lists.
    """

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.answer(200, {"data": [{"id": name} for name in models]})

        def do_POST(self):
            tree = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            if requests is not None:
                requests.append((self.path, tree))
            self.answer(*post(tree))

        def answer(self, status, tree):
            body = json.dumps(tree).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
