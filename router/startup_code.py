"""Code that this Python runs before any program: the `.pth` files of its packages that hold more than paths.

Stolen releases of packages have hidden what they do in such a file, since it runs at every start and stands in no
program. Owns the list of those that are expected. Reads only.
"""

from __future__ import annotations

import re
import site
from collections.abc import Iterable
from pathlib import Path

EXPECTED = re.compile(
    r"distutils-precedence\.pth|_virtualenv\.pth|__editable__[\w.+-]*\.pth|[\w.-]+-nspkg\.pth|a1_coverage\.pth"
)
"""Of setuptools, of virtualenv, of packages that are installed in place, of old namespace packages, of coverage."""

_CODE = re.compile(rb"^import[ \t]", re.MULTILINE)  # how Python tells code from a path in such a file


def unexpected_startup_code(folders: Iterable[str] | None = None) -> list[Path]:
    """The files that run code at every start and are not expected.

    Args:
        folders: where packages are; by default where this interpreter's are.
    """
    if folders is None:
        folders = [*site.getsitepackages(), *([site.getusersitepackages()] if site.ENABLE_USER_SITE else [])]
    files = sorted(file for place in dict.fromkeys(folders) for file in Path(place).glob("*.pth"))
    return [file for file in files if not EXPECTED.fullmatch(file.name) and _runs_code(file)]


def _runs_code(file: Path) -> bool:
    try:
        return bool(_CODE.search(file.read_bytes()))
    except OSError:
        return True  # what cannot be read is not known to be harmless
