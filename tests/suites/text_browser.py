"""A browser for tests that need many episodes: links and forms over HTTP, pages as text with name handles, no layout and no script."""

import dataclasses
from html.parser import HTMLParser
from urllib.parse import urlencode, urljoin, urlsplit

import httpx

from mira_jax.trajectories.records import Action


@dataclasses.dataclass
class Control:
    tag: str
    attributes: dict[str, str]
    form: int
    """Place of its form in the page, -1 outside of any."""
    text: str = ""
    options: list[str] = dataclasses.field(default_factory=list)
    value: str = ""


class PageReader(HTMLParser):
    def __init__(self, html: str):
        super().__init__()
        self.controls: list[Control] = []
        self.forms: list[dict[str, str]] = []
        self.labels: dict[str, str] = {}
        self.content: list[Control | str] = []
        self._form, self._silent, self._open, self._label = -1, 0, None, None
        self.feed(html)
        for control in self.controls:
            if "form" in control.attributes:
                control.form = next(i for i, form in enumerate(self.forms) if form.get("id") == control.attributes["form"])

    def handle_starttag(self, tag, attributes):
        values = {key: value or "" for key, value in attributes}
        if tag in ("style", "title", "head"):
            self._silent += 1
        elif tag == "form":
            self.forms.append(values)
            self._form = len(self.forms) - 1
        elif tag == "label":
            self._label = values["for"]
            self.labels[self._label] = ""
        elif tag == "option":
            self._open.options.append("")
            if "selected" in values:
                self._open.attributes["chosen"] = str(len(self._open.options) - 1)
        elif tag in ("a", "button", "input", "select", "textarea"):
            control = Control(tag, values, self._form, value=values.get("value", ""))
            self.controls.append(control)
            if values.get("type") != "hidden":
                self.content.append(control)
            if tag != "input":
                self._open = control

    def handle_endtag(self, tag):
        if tag in ("style", "title", "head"):
            self._silent -= 1
        elif tag == "form":
            self._form = -1
        elif tag == "label":
            self._label = None
        elif tag == "select":
            self._open.value = self._open.options[int(self._open.attributes.get("chosen", 0))]
            self._open = None
        elif tag == "textarea":
            self._open.value, self._open.text, self._open = self._open.text, "", None
        elif tag in ("a", "button"):
            self._open = None

    def handle_data(self, data):
        text = " ".join(data.split())
        if not text or self._silent:
            return
        if self._label is not None:
            self.labels[self._label] += text
        elif self._open is None:
            self.content.append(text)
        elif self._open.options:
            self._open.options[-1] += text
        else:
            self._open.text += text

    def name(self, control: Control) -> str:
        return control.attributes.get("aria-label") or self.labels.get(control.attributes.get("id", "")) or control.text

    def observation(self) -> str:
        lines = []
        for part in self.content:
            if isinstance(part, str):
                lines.append(part)
                continue
            line = f'<{part.tag} id="{self.name(part)}"'
            if part.tag == "select":
                line += f' value="{part.value}" options="{" | ".join(part.options)}"'
            elif part.tag in ("input", "textarea") and part.value:
                line += f' value="{part.value}"'
            lines.append(line + ">")
        return "\n".join(lines)


class TextBrowser:
    """One visitor of a site."""

    def __init__(self, client: httpx.AsyncClient, cookie: tuple[str, str]):
        self._client, self._headers = client, {"Cookie": "=".join(cookie)}
        self.url = ""
        self._tabs: list[tuple[str, PageReader]] = []
        self._front = 0

    async def open_tabs(self, urls: list[str]) -> None:
        """Opens each in a tab of its own, the first in front."""
        for url in urls:
            await self.open(url)
            self._tabs.append((self.url, self.page))
        self.url, self.page = self._tabs[0]

    def _switch(self, tab: int) -> None:
        self._tabs[self._front] = (self.url, self.page)
        self._front = tab
        self.url, self.page = self._tabs[tab]

    async def open(self, url: str, form: dict[str, str] | None = None) -> None:
        self.url = urljoin(self.url, url)
        if form is None:
            answer = await self._client.get(self.url, headers=self._headers)
        else:
            answer = await self._client.post(self.url, headers=self._headers, data=form)
        assert answer.status_code in (200, 303), (self.url, answer.status_code)
        if answer.status_code == 303:
            await self.open(answer.headers["location"])
        else:
            self.page = PageReader(answer.text)

    async def perform(self, action: Action) -> None:
        if action.name == "Switch Tab":
            self._switch(int(action.argument))
            return
        control = next(
            control for control in self.page.content if isinstance(control, Control) and self.page.name(control) == action.element
        )
        if action.name == "Type":
            control.value = action.argument
        elif action.name == "Select Dropdown Option":
            assert action.argument in control.options
            control.value = action.argument
        elif action.name == "Search":
            control.value = action.argument
            await self._submit(control, None)
        elif control.tag == "a":
            await self.open(control.attributes["href"])
        else:
            assert (action.name, control.tag) == ("Click", "button")
            await self._submit(control, control)

    async def _submit(self, control: Control, button: Control | None) -> None:
        form = self.page.forms[control.form]
        fields = [field for field in self.page.controls if field.form == control.form and "name" in field.attributes]
        values = {field.attributes["name"]: field.value for field in fields if field.tag != "button" or field is button}
        target = form.get("action") or urlsplit(self.url)._replace(query="").geturl()
        if form.get("method") == "post":
            await self.open(target, values)
        else:
            await self.open(f"{target}?{urlencode(values)}")
