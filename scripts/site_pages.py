"""A hook of MkDocs: adds README, CONTRIBUTING, CHANGELOG and the examples to the site, and checks and adapts links.

Links in the Markdown files are relative to the file in the repository, as GitHub reads them. A link to a file that does not
exist in the repository is a warning, which fails a strict build.
"""

import logging
import posixpath
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parent.parent
PAGES = {"README.md": "index.md", "examples/README.md": "examples.md", "CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md"}
"""Files outside of docs/ to pages of the site."""

_LINK = re.compile(r"(?<=\]\()(?![a-z]+:|#)([^)#\s]+)(#[^)\s]*)?(?=\))")
log = logging.getLogger("mkdocs.hooks.site_pages")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the files of `PAGES`. The page of examples also has their code."""
    for source, page in PAGES.items():
        content = (ROOT / source).read_text()
        if page == "examples.md":
            content += "".join(map(_listing, sorted((ROOT / "examples").glob("*.py"))))
        files.append(File.generated(config, page, content=content))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Replaces the target of each relative link by the page that shows it."""
    here = page.file.src_uri
    source = next((source for source, uri in PAGES.items() if uri == here), f"docs/{here}")

    def adapted(link: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join(posixpath.dirname(source), link[1]))
        if not (ROOT / target).exists():
            log.warning("%s: the link to %s has no file in the repository", source, link[1])
        anchor = link[2] or ""
        if target in PAGES:
            target = PAGES[target]
        elif target.startswith("examples/"):
            target, anchor = PAGES["examples/README.md"], f"#{posixpath.basename(target).replace('.', '')}"
        elif target.startswith("docs/"):
            target = target.removeprefix("docs/")
        else:
            log.warning("%s: %s is no page of the site; see PAGES in scripts/site_pages.py", source, link[1])
        return posixpath.relpath(target, posixpath.dirname(here) or ".") + anchor

    return _LINK.sub(adapted, markdown)


def _listing(script: Path) -> str:
    return f"\n\n## {script.name}\n\n```python\n{script.read_text()}```\n"
