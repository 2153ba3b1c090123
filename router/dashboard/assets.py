"""The dashboard's files as a browser gets them: read once at the start, from the package and from nowhere else.

Owns which files those are, their types and how long they are kept. Must never open a file for a request: a path is
looked up among the names that were read, so that there is no path to climb. The page asks for them below a
folder named after their content: what is there never changes, and modules that import each other stay within it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from importlib.resources import files
from importlib.resources.abc import Traversable

import msgspec

STATIC = "/dashboard/static/"
SHELL = "index.html"
IMMUTABLE = "public, max-age=31536000, immutable"
REVALIDATED = "no-cache"
DEPTH_MAX = 4

TYPES = {
    "css": "text/css; charset=utf-8",
    "html": "text/html; charset=utf-8",
    "ico": "image/x-icon",
    "js": "text/javascript; charset=utf-8",
    "json": "application/json",
    "png": "image/png",
    "svg": "image/svg+xml",
    "txt": "text/plain; charset=utf-8",
    "webmanifest": "application/manifest+json",
    "woff2": "font/woff2",
}
"""Files of other kinds are not served."""

_VERSION_CHARACTERS = 16


class Asset(msgspec.Struct, frozen=True):
    """One file.

    Attributes:
        tag: its ETag, with quotes.
    """

    content: bytes
    content_type: str
    tag: str


class Assets:
    """All files of the dashboard.

    Attributes:
        version: changes with any of them.
        shell: the one page.
    """

    def __init__(self, contents: Mapping[str, bytes]) -> None:
        """Make them from contents by path, such as `js/main.js`."""
        whole = hashlib.sha256()
        for name, content in sorted(contents.items()):
            whole.update(b"%d %s %d " % (len(name), name.encode(), len(content)) + content)
        self.version = whole.hexdigest()[:_VERSION_CHARACTERS]
        self._prefix = f"v-{self.version}/"
        self._by_name = {
            name: _asset(content, TYPES[suffix])
            for name, content in contents.items()
            if (suffix := name.rpartition(".")[2]) in TYPES and name != SHELL
        }
        page = contents.get(SHELL, b"").replace(STATIC.encode(), f"{STATIC}{self._prefix}".encode())
        self.shell = _asset(page, TYPES["html"])

    def find(self, name: str) -> tuple[Asset, str] | None:
        """A file by its path below `static/`, and how long a browser may keep it; None for no such file."""
        bare = name.removeprefix(self._prefix)
        asset = self._by_name.get(bare)
        return None if asset is None else (asset, REVALIDATED if bare == name else IMMUTABLE)


def _asset(content: bytes, content_type: str) -> Asset:
    return Asset(content, content_type, f'"{hashlib.sha256(content).hexdigest()[:32]}"')


def load_assets() -> Assets:
    """The files of the installed package."""
    folder = files("router.dashboard") / "static"
    return Assets(dict(_contents(folder)) if folder.is_dir() else {})


def _contents(folder: Traversable, path: str = "", depth: int = DEPTH_MAX) -> Iterator[tuple[str, bytes]]:
    for entry in folder.iterdir():
        if entry.name.startswith((".", "_")):
            continue
        if entry.is_file():
            yield f"{path}{entry.name}", entry.read_bytes()
        elif depth:
            yield from _contents(entry, f"{path}{entry.name}/", depth - 1)
