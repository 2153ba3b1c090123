"""Looks through the built site: every link and anchor leads somewhere, and no page loads anything from elsewhere.

`python docs/site/check.py dist/site` prints what is wrong and exits 1; standard library only.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

LOADING = {"src", "srcset", "poster", "data"}
LOADING_LINKS = {"stylesheet", "icon", "preload", "prefetch", "preconnect", "dns-prefetch", "manifest", "modulepreload"}
CSS_LOADS = re.compile(r"(?:url\(|@import)\s*[\"']?(?P<address>[^\"')\s]+)")


class Page(HTMLParser):
    """What one page has: anchors, links to follow, addresses that a browser loads by itself."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.anchors = {"", "__top"}
        self.links: list[str] = []
        self.loads: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Collect what the tag names."""
        values = {name: value or "" for name, value in attrs}
        self.anchors |= {values[name] for name in ("id", "name") if name in values}
        if tag == "a" and "href" in values:
            self.links.append(values["href"])
        if tag == "link" and LOADING_LINKS & set(values.get("rel", "").split()):
            self.loads.append(values.get("href", ""))
        self.loads += [values[name] for name in LOADING if values.get(name) and tag not in {"a", "meta"}]
        if "style" in values:
            self.loads += [match["address"] for match in CSS_LOADS.finditer(values["style"])]
        if tag == "div" and "mermaid" in values.get("class", "").split():
            self.loads.append("https://mermaid")  # its script would come from a CDN


def problems(site: Path) -> Iterator[str]:
    """One line for each thing that is wrong."""
    pages = {path: Page(path.read_text(encoding="utf-8")) for path in sorted(site.rglob("*.html"))}
    if not pages:
        yield f"{site}: no pages"
    for path, page in pages.items():
        name = path.relative_to(site)
        yield from (f"{name}: loads {address}" for address in page.loads if _is_foreign(address))
        if path.name != "404.html":  # its links are absolute, for a server at any depth
            for address in [*page.links, *(address for address in page.loads if not _is_foreign(address))]:
                if not _leads_somewhere(site, path, pages, address):
                    yield f"{name}: {address} leads nowhere"
    for sheet in sorted(site.rglob("*.css")):
        for match in CSS_LOADS.finditer(sheet.read_text(encoding="utf-8")):
            if _is_foreign(match["address"]):
                yield f"{sheet.relative_to(site)}: loads {match['address']}"


def _is_foreign(address: str) -> bool:
    parts = urlsplit(address)
    return bool(parts.netloc) or parts.scheme not in {"", "data"}


def _leads_somewhere(site: Path, path: Path, pages: dict[Path, Page], address: str) -> bool:
    parts = urlsplit(address)
    if parts.scheme or parts.netloc:
        return True
    target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
    if target.is_dir():
        target /= "index.html"
    inside = target.is_relative_to(site.resolve()) or target == path
    if not inside or not target.exists():
        return False
    return target not in pages or unquote(parts.fragment) in pages[target].anchors


if __name__ == "__main__":
    found = list(problems(Path(sys.argv[1]).resolve()))
    print("\n".join(found) or "every link leads somewhere, and nothing is loaded from elsewhere")
    sys.exit(bool(found))
