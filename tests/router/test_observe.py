"""Logs never show what must stay private, and say which request a line belongs to."""

from __future__ import annotations

import io
import json
import logging
import re
from collections.abc import Iterator

import pytest
import trio

from models.errors import StoreUnavailable
from models.server_settings import LogSettings
from router.observe import configure_logging, describe_error, log_event, request_scope

PRIVATE = "my sister's name is Ada"
KEY = "mk_0123456789abcdef0123456789abcdef"


@pytest.fixture
def lines() -> Iterator[io.StringIO]:
    """What the process would write to stderr, as JSON lines."""
    root = logging.getLogger()
    handlers, level, raising = root.handlers[:], root.level, logging.raiseExceptions
    stream = io.StringIO()
    configure_logging(LogSettings(level="debug"), stream=stream)
    yield stream
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.raiseExceptions = raising


def only_line(stream: io.StringIO) -> dict[str, object]:
    """The one line that was written."""
    (line,) = stream.getvalue().splitlines()
    parsed = json.loads(line)
    assert isinstance(parsed, dict)
    return parsed


def test_an_event_is_one_json_line_with_time_level_and_fields(lines: io.StringIO) -> None:
    log_event("request_done", status=200, seconds=0.25, route="/v1/models")

    line = only_line(lines)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", str(line.pop("time")))
    assert line == {"level": "info", "event": "request_done", "status": 200, "seconds": 0.25, "route": "/v1/models"}


def test_a_logger_of_the_actors_writes_the_same_lines(lines: io.StringIO) -> None:
    logging.getLogger("actors.supervisor").error("vault_quarantined", extra={"vault": 7})

    line = only_line(lines)
    assert (line["event"], line["logger"], line["vault"]) == ("vault_quarantined", "actors.supervisor", 7)


async def test_lines_of_a_request_carry_its_id_also_from_child_tasks(lines: io.StringIO) -> None:
    async def child() -> None:
        log_event("in_child")

    with request_scope("req_1"):
        async with trio.open_nursery() as children:
            children.start_soon(child)
    log_event("outside")

    inside, outside = (json.loads(line) for line in lines.getvalue().splitlines())
    assert inside["request_id"] == "req_1"
    assert "request_id" not in outside


@pytest.mark.parametrize("text", [KEY, "mk-0123456789", "sk-proj-abcdefgh", "Bearer abc.def-ghi", "AIzaSyA1234567"])
def test_what_looks_like_a_key_is_cut(lines: io.StringIO, text: str) -> None:
    log_event("odd", url=f"https://x/?key={text}&a=1")
    logging.getLogger("other").warning("sent %s", text)

    assert text not in lines.getvalue()
    assert "****" in lines.getvalue()


def test_long_texts_are_cut_and_objects_show_only_their_type(lines: io.StringIO) -> None:
    log_event("odd", long="x" * 5000, body={"content": PRIVATE}, messages=[PRIVATE], ratio=float("nan"))

    line = only_line(lines)
    assert len(str(line["long"])) == 300
    assert (line["body"], line["messages"], line["ratio"]) == ("dict", "list", "nan")


def test_an_exception_shows_type_and_place_but_not_its_text(lines: io.StringIO) -> None:
    try:
        int(PRIVATE)
    except ValueError:
        logging.getLogger("hypercorn.error").exception("Error in ASGI Framework")

    line = only_line(lines)
    assert PRIVATE not in json.dumps(line)
    assert str(line["error"]).startswith("ValueError at router/test_observe.py:")


def test_a_group_shows_its_leaves_and_our_own_errors_show_their_message() -> None:
    group = ExceptionGroup("outer", [ExceptionGroup(PRIVATE, [KeyError(PRIVATE)]), StoreUnavailable("disk is slow")])

    assert describe_error(group) == "KeyError; StoreUnavailable (disk is slow)"


def test_fields_cannot_hide_the_lines_own(lines: io.StringIO) -> None:
    log_event("odd", name="a", level_="b", message="c", time="d")

    line = only_line(lines)
    assert line["event"] == "odd"
    assert (line["name_"], line["message_"], line["time_"]) == ("a", "c", "d")


def test_loggers_that_write_urls_and_headers_are_quiet_at_every_level(lines: io.StringIO) -> None:
    for name in ("httpx", "httpcore.http11", "hypercorn.access", "quart.app"):
        logging.getLogger(name).info("GET /?key=%s", KEY)

    assert lines.getvalue() == ""


def test_the_text_format_is_one_line_whatever_a_field_holds(lines: io.StringIO) -> None:
    configure_logging(LogSettings(format="text"), stream=lines)

    log_event("odd", path="/a b\nERROR forged", count=3)
    log_event("quiet", level=logging.DEBUG)

    (line,) = lines.getvalue().splitlines()
    assert line.endswith(r'INFO    odd path="/a b\nERROR forged" count=3'.replace("INFO", "info"))
