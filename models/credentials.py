"""Secrets that the service manager hands over as files: systemd's `LoadCredential=` and `SetCredential=`.

A file in the folder that CREDENTIALS_DIRECTORY names, and whose own name is that of an environment variable, stands for
that variable: OPENAI_API_KEY, MEMORYROUTER_PROVIDERS__OPENAI__API_KEY. Unlike a variable it is not inherited by child
processes. Owns nothing but the reading; must never name a content in an error.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from models.errors import SettingError

FOLDER_VARIABLE = "CREDENTIALS_DIRECTORY"
BYTES_MAX = 64 * 1024

_VARIABLE = re.compile(r"[A-Z][A-Z0-9_]*")


def with_credentials(environ: Mapping[str, str]) -> dict[str, str]:
    """The environment, with what credentials add to it. A variable that is set comes first.

    Raises:
        SettingError: a credential cannot be read, or is no text.
    """
    folder = environ.get(FOLDER_VARIABLE)
    files = _files(Path(folder)) if folder else []
    return {file.name: _content(file) for file in files if file.name not in environ} | dict(environ)


def _files(folder: Path) -> list[Path]:
    try:
        return sorted(file for file in folder.iterdir() if _VARIABLE.fullmatch(file.name) and file.is_file())
    except OSError as error:
        raise SettingError(f"{FOLDER_VARIABLE}: {folder} cannot be read: {error.strerror}.") from error


def _content(file: Path) -> str:
    try:
        with file.open("rb") as opened:
            data = opened.read(BYTES_MAX + 1)
        text = data.decode().strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise SettingError(f"credential {file.name} cannot be read: {reason}.") from error
    if len(data) > BYTES_MAX or "\0" in text:
        raise SettingError(f"credential {file.name} must be a text of at most {BYTES_MAX} bytes.")
    return text
