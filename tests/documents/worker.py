"""The interpreter of pages: runs one piece of code after the other, those of a page in one namespace.

Reads a line of JSON for each (`code`, `page`, `place`, `environment`) and answers with one (`output`, `error`).
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import sys
import traceback
from typing import Any


def _serve() -> None:
    page = ""
    names: dict[str, Any] = {}
    replies = sys.stdout
    for line in sys.stdin:
        asked = json.loads(line)
        if asked["page"] != page:
            page, names = asked["page"], {"__name__": "__main__"}
        os.environ.clear()
        os.environ.update(asked["environment"])
        printed, error = io.StringIO(), ""
        with contextlib.redirect_stdout(printed):
            try:
                exec(compile(asked["code"], asked["place"], "exec"), names)
            except Exception:
                error = traceback.format_exc()
        replies.write(json.dumps({"output": printed.getvalue(), "error": error}) + "\n")
        replies.flush()


_serve()
