"""What Schemathesis needs to know of us, loaded by its command line: how JSON lines are written and read."""

from __future__ import annotations

import json
from typing import Any

import schemathesis


@schemathesis.serializer("application/x-ndjson")
def write_lines(context: Any, value: Any) -> bytes:
    """A list as JSON lines; anything else as one line, or as it is."""
    if isinstance(value, list):
        return b"".join(json.dumps(line).encode() + b"\n" for line in value)
    if isinstance(value, str):
        return value.encode()
    return value if isinstance(value, bytes) else json.dumps(value).encode()
