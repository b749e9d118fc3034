"""Small copies of WebArena's sites, and tasks in its JSON form."""

import contextlib
import http.server
import json
import threading
from urllib.parse import parse_qs, urlsplit

from rollouts.suites.webarena.tasks import FORMS

MEMBERS = """<table><tr><td data-label='Account'><span class='gl-avatar-labeled-sublabel'>@ann</span></td>
<td class='col-max-role'><span>Developer</span></td></tr>
<tr><td data-label='Account'><span class='gl-avatar-labeled-sublabel'>@bob</span></td>
<td class='col-max-role'><span>Guest</span></td></tr></table>"""
REVIEWS = [{"nickname": "old", "ratings": [{"percent": 20}]}, {"nickname": "zoe", "ratings": [{"percent": 80}]}]


class FakeSite:
    """One of WebArena's sites as far as logins, two helpers and a few pages need it. `sessions.clear()` lets every login expire."""

    def __init__(self, name):
        self.name, self.form, self.sessions, self.logins, self.orders = name, FORMS[name], set(), 0, [{"increment_id": "000000017"}]
        self.broken = ""
        site = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                path = urlsplit(self.path).path
                if path.startswith("/rest/"):
                    if self.headers.get("Authorization") != "Bearer key":
                        return self.answer(401, "{}")
                    return self.answer(200, json.dumps({"items": site.orders} if path.endswith("orders") else REVIEWS))
                if path == site.broken:
                    return self.answer(503, "down")
                if path == site.form.path:
                    return self.answer(200, site.login_page())
                if not self.signed_in():
                    return self.answer(302, "", ("Location", site.form.path))
                if path.endswith("project_members"):
                    return self.answer(200, MEMBERS)
                self.answer(200, f"<title>t</title><h1 class='name'>Page {path}</h1><a class='l' href='http://{site.host}/x'>x</a>")

            def do_POST(self):
                data = self.rfile.read(int(self.headers["Content-Length"])).decode()
                if self.path.startswith("/rest/"):
                    return self.answer(200 if json.loads(data) == {"username": "root", "password": "top"} else 401, '"key"')
                given = parse_qs(data)
                if given.get(site.form.user) == ["ann"] and given.get(site.form.password) == ["pass"]:
                    site.logins += 1
                    site.sessions.add(token := f"{site.name}{site.logins}")
                    return self.answer(303, "", ("Location", "/"), ("Set-Cookie", f"s_{site.name}={token}; Path=/; HttpOnly"))
                self.answer(200, site.login_page())

            def signed_in(self):
                cookies = (self.headers.get("Cookie") or "").split("; ")
                return any(f"s_{site.name}={token}" in cookies for token in site.sessions)

            def answer(self, status, text, *headers):
                with contextlib.suppress(OSError):
                    self.send_response(status)
                    for name, value in (("Content-Type", "text/html"), ("Content-Length", str(len(text))), *headers):
                        self.send_header(name, value)
                    self.end_headers()
                    self.wfile.write(text.encode())

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.host = f"127.0.0.1:{self.server.server_port}"
        self.address = f"http://{self.host}"

    def login_page(self):
        user, password = self.form.user, self.form.password
        return f"<form method=post><input name='{user}'><input type=password name='{password}'><button>Go</button></form>"

    def __enter__(self):
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.server.server_close()


def task(number, site="shopping", sites=None, **evaluation):
    kinds = {"reference_answers": "string_match", "reference_url": "url_match", "program_html": "program_html"}
    return {
        "task_id": number, "sites": sites or [site], "storage_state": f"./.auth/{site}_state.json", "start_url": f"__{site.upper()}__/",
        "intent": f"do {number}",
        "eval": {"eval_types": [kinds[key] for key in evaluation if key in kinds], "string_note": "", **evaluation},
    }  # fmt: skip


def target(url, locator, **contents):
    return {"url": url, "locator": locator, "required_contents": contents}
