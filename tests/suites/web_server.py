"""A real HTTP server on loopback that plays a search API and the pages of the web."""

import contextlib
import dataclasses
import http.server
import threading
import time
from urllib.parse import parse_qs, urlsplit


@dataclasses.dataclass
class Request:
    method: str
    path: str
    query: dict
    headers: dict
    body: bytes


@dataclasses.dataclass
class Reply:
    body: bytes | str = b""
    status: int = 200
    headers: dict = dataclasses.field(default_factory=dict)
    seconds: float = 0.0
    """Before the body is sent."""


class _Server(http.server.ThreadingHTTPServer):
    request_queue_size = 64
    daemon_threads = True

    def handle_error(self, request, client_address):
        """A client that goes away is part of the tests."""


@contextlib.contextmanager
def serving_web(answer):
    """Yields `host:port`, and the requests so far. `answer`: a request to a `Reply`, or to a text, an HTML page."""
    asked: list[Request] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            parts = urlsplit(self.path)
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            names = {name.lower(): value for name, value in self.headers.items()}
            asked.append(Request(self.command, parts.path, {k: v[0] for k, v in parse_qs(parts.query).items()}, names, body))
            reply = answer(asked[-1])
            reply = reply if isinstance(reply, Reply) else Reply(reply)
            data = reply.body.encode() if isinstance(reply.body, str) else reply.body
            self.send_response(reply.status)
            for name, value in ({"Content-Type": "text/html; charset=utf-8"} | reply.headers).items():
                if value is not None:
                    self.send_header(name, value)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.flush()
            time.sleep(reply.seconds)
            self.wfile.write(data)

        do_POST = do_GET

        def log_message(self, *_):
            pass

    server = _Server(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    try:
        yield f"127.0.0.1:{server.server_port}", asked
    finally:
        server.shutdown()
        server.server_close()
