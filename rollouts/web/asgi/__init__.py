"""The driver `asgi`: interprets the pages of ASGI applications in this process, without a browser.

It supports the part of HTML, CSS and HTTP that pages rendered by a server use: links, forms, details, modal dialogs, history, tabs.
There is no layout and no JavaScript: a suite supplies a Python counterpart of each script. What it does not know raises
`UnsupportedError`, so that no page is silently shown otherwise than Chromium shows it.
"""
