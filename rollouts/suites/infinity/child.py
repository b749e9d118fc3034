"""Runs code of a checkout in a separate process: the server of an application, or verifiers.

    python child.py serve                  in the application's folder; reports its port
    python child.py verify URL FILE...     reports a verdict for each file, as JSON

Reports are lines of standard output. Output of the checkout's own code is redirected to standard error. A child ends with its
whole process group when its standard input is closed, so nothing outlives the parent process, however that ends.
This file imports only the standard library, since any interpreter may run it.
"""

import http.server
import importlib.util
import json
import os
import runpy
import signal
import socketserver
import sys
import threading

PAGES = ("/", "/index.html")
"""All paths to which the browser may navigate. Scripts of a page can reach the others: static files, and the API that takes the state."""
LONGEST = 500
"""Maximum characters kept of a verifier's message."""


def main(command, *arguments):
    output = os.dup(1)
    os.dup2(2, 1)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    if command == "serve":
        serve(output)
    else:
        url, *files = arguments
        for file in files:
            _write_line(output, json.dumps(verdict(file, url)))


def serve(output):
    """Runs server.py on a free loopback port. Reports the port once the server listens."""
    bind, activate = socketserver.TCPServer.server_bind, socketserver.TCPServer.server_activate
    parse = http.server.BaseHTTPRequestHandler.parse_request

    def bind_to_loopback(server):
        server.server_address = ("127.0.0.1", server.server_address[1])
        bind(server)

    def activate_and_report(server):
        activate(server)
        _write_line(output, str(server.server_address[1]))

    def parse_and_check_path(handler):
        if not parse(handler):
            return False
        if handler.headers.get("Sec-Fetch-Mode") == "navigate" and handler.path.partition("?")[0] not in PAGES:
            handler.send_error(403, "Closed to the browser's user")
            return False
        return True

    socketserver.TCPServer.server_bind = bind_to_loopback
    socketserver.TCPServer.server_activate = activate_and_report
    http.server.BaseHTTPRequestHandler.parse_request = parse_and_check_path
    path = os.path.abspath("server.py")
    sys.argv = [path, "--port", "0"]
    sys.path[0] = os.path.dirname(path)
    runpy.run_path(path, run_name="__main__")


def verdict(file, url):
    """Returns the verifier's `passed` and `message`, or an error that prevented a verdict: `unloadable` or `unreachable`.

    As in the benchmark's own harness, a verifier that raises has not passed, unless the exception is about its connection.
    """
    try:
        spec = importlib.util.spec_from_file_location("verifier", file)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        verify = module.verify
    except Exception as error:
        return {"unloadable": _describe(error)}
    try:
        passed, message = verify(url)
    except OSError as error:
        # All exceptions of requests and urllib are subclasses of OSError.
        return {"unreachable": _describe(error)}
    except Exception as error:
        passed, message = False, "the verifier raised " + _describe(error)
    return {"passed": bool(passed), "message": str(message)[:LONGEST]}


def _describe(error):
    return f"{type(error).__name__}: {error}"[:LONGEST]


def _write_line(output, line):
    os.write(output, f"{line}\n".encode())


def _end_with_parent():
    while os.read(0, 1):
        pass
    os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    main(*sys.argv[1:])
