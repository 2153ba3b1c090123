"""Whether this commit may become a release: what can be known without building anything. Changes nothing.

python .ci/release_check.py
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[1]
NAMED_MAX = 5
HEADING = re.compile(r"^## (\d+\.\d+\.\d+) \((unreleased|\d{4}-\d{2}-\d{2})\)$", re.MULTILINE)


def offences(project: Path, version: str, *, tags: list[str], uncommitted: list[str]) -> Iterator[str]:
    """What stands against releasing this version, in words."""
    headings = HEADING.findall((project / "CHANGELOG.md").read_text(encoding="utf-8"))
    newest, date = headings[0] if headings else ("", "")
    if newest != version:
        yield f"CHANGELOG.md begins with version {newest or 'none'}, models/version.py says {version}."
    elif date == "unreleased":
        yield f"CHANGELOG.md has no date for {version}."
    if not (project / "tests" / "fixtures" / f"data-{version}").is_dir():
        yield f"tests/fixtures has no data directory of {version}: python -m tests.fixtures.release_data"
    if f"v{version}" in tags:
        yield f"The tag v{version} is already there."
    if uncommitted:
        more = f" and {len(uncommitted) - NAMED_MAX} more" if len(uncommitted) > NAMED_MAX else ""
        yield f"Not committed: {', '.join(uncommitted[:NAMED_MAX])}{more}."


def _lines_of(*command: str) -> list[str]:
    return subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=True).stdout.splitlines()


if __name__ == "__main__":
    sys.path.insert(0, str(PROJECT))
    from models.version import VERSION

    changed = [line[3:] for line in _lines_of("git", "status", "--porcelain")]
    found = list(offences(PROJECT, VERSION, tags=_lines_of("git", "tag"), uncommitted=changed))
    for sentence in found:
        sys.stderr.write(f"error: {sentence}\n")
    sys.exit(bool(found))
