"""A small library: books to look up and to borrow. Stands for a site of your own.

python examples/your_site/library.py 8000
"""

import html
import http.server
import json
import sys
import urllib.parse

BOOKS = {
    "The Green Harbor": ("Ida Moss", 1931), "Night Trains": ("Omar Quill", 1957), "A Field of Glass": ("Ida Moss", 1940),
    "Salt and Cedar": ("Lena Frost", 1962), "The Quiet Engine": ("Tom Ashby", 1949), "Paper Mountains": ("Lena Frost", 1971),
    "Winter Orchard": ("Omar Quill", 1966), "The Ninth Bridge": ("Tom Ashby", 1953), "Letters to Mira": ("Nora Vale", 1938),
    "Copper Moon": ("Nora Vale", 1945), "The Last Ferry": ("Ida Moss", 1952), "Stones in Water": ("Tom Ashby", 1960),
}  # fmt: skip
"""Title to author and year."""
borrowed: list[str] = []


def shelf(query: str) -> str:
    found = [title for title, (author, _) in BOOKS.items() if query.lower() in f"{title} {author}".lower()]
    rows = "".join(f'<li><a href="/book?{urllib.parse.urlencode({"title": title})}">{html.escape(title)}</a></li>' for title in found)
    return f"<h1>Books</h1><form action='/'><input name='q' aria-label='search'></form><ul>{rows or 'no book found'}</ul>"


def book(title: str) -> str:
    author, year = BOOKS[title]
    button = "<p>you have it</p>" if title in borrowed else "<form method='post' action='/borrow'>{}<button>borrow</button></form>"
    hidden = f"<input type='hidden' name='title' value='{html.escape(title)}'>"
    return f"<h1>{html.escape(title)}</h1><p>by {author}, published in {year}</p>{button.format(hidden)}"


def loans() -> str:
    return "<h1>Loans</h1><ul>" + "".join(f"<li>{html.escape(title)}</li>" for title in borrowed) + "</ul>"


class Library(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        address = urllib.parse.urlsplit(self.path)
        query = dict(urllib.parse.parse_qsl(address.query))
        if address.path == "/state.json":
            return self.answer(json.dumps({"borrowed": borrowed}), "application/json")
        if address.path == "/book" and query.get("title") in BOOKS:
            return self.page(book(query["title"]))
        return self.page(loans() if address.path == "/loans" else shelf(query.get("q", "")))

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode()
        title = dict(urllib.parse.parse_qsl(body)).get("title", "")
        if title in BOOKS and title not in borrowed:
            borrowed.append(title)
        self.send_response(303)
        self.send_header("Location", "/loans")
        self.end_headers()

    def page(self, body: str) -> None:
        self.answer(
            f"<!doctype html><title>Library</title><a href='/'>books</a> <a href='/loans'>loans</a>{body}", "text/html; charset=utf-8"
        )

    def answer(self, text: str, kind: str) -> None:
        data = text.encode()
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        return None


if __name__ == "__main__":
    http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Library).serve_forever()
