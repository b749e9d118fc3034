"""What runs of a checkout, in processes of its own: the server of an application, and verifiers.

    python child.py serve                  in the application's folder; tells its port
    python child.py verify URL FILE...     tells a verdict for each file, as JSON

A line of standard output is what is told; what the checkout itself prints goes to standard error. A child ends with its
whole process group when its standard input ends: so nothing outlives the process that started it, however that ends.
Imports nothing but the standard library, since any interpreter may run it.
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
"""All that the browser may navigate to. Scripts of the page reach the rest: its files, and the API that it tells its state to."""
LONGEST = 500
"""Characters of a verifier's message that are kept."""


def main(command, *arguments):
    told = os.dup(1)
    os.dup2(2, 1)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    if command == "serve":
        serve(told)
    else:
        url, *files = arguments
        for file in files:
            _tell(told, json.dumps(verdict(file, url)))


def serve(told):
    """Runs server.py, which takes a free port, on loopback alone; tells the port once it listens."""
    bind, activate = socketserver.TCPServer.server_bind, socketserver.TCPServer.server_activate
    parse = http.server.BaseHTTPRequestHandler.parse_request

    def bind_to_loopback(server):
        server.server_address = ("127.0.0.1", server.server_address[1])
        bind(server)

    def activate_and_tell(server):
        activate(server)
        _tell(told, str(server.server_address[1]))

    def parse_what_is_open(handler):
        if not parse(handler):
            return False
        if handler.headers.get("Sec-Fetch-Mode") == "navigate" and handler.path.partition("?")[0] not in PAGES:
            handler.send_error(403, "Closed to the browser's user")
            return False
        return True

    socketserver.TCPServer.server_bind = bind_to_loopback
    socketserver.TCPServer.server_activate = activate_and_tell
    http.server.BaseHTTPRequestHandler.parse_request = parse_what_is_open
    path = os.path.abspath("server.py")
    sys.argv = [path, "--port", "0"]
    sys.path[0] = os.path.dirname(path)
    runpy.run_path(path, run_name="__main__")


def verdict(file, url):
    """`passed` and `message` as the verifier gives them, or what kept it from that: `unloadable` or `unreachable`.

    One that raises has not passed, as in the benchmark's own harness, unless what it raises is about its connection.
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
        # All of requests' and urllib's own exceptions are OSErrors.
        return {"unreachable": _describe(error)}
    except Exception as error:
        passed, message = False, "the verifier raised " + _describe(error)
    return {"passed": bool(passed), "message": str(message)[:LONGEST]}


def _describe(error):
    return f"{type(error).__name__}: {error}"[:LONGEST]


def _tell(told, line):
    os.write(told, f"{line}\n".encode())


def _end_with_parent():
    while os.read(0, 1):
        pass
    os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    main(*sys.argv[1:])
