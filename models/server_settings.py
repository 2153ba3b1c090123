"""Settings of what the network sees and of what is logged: address, limits of a request, the end of a connection."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from models.sizes import GIB, MIB

LogLevel = Literal["debug", "info", "warning", "error"]
LogFormat = Literal["json", "text"]


class ServerSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What the network sees: address, limits of a request, the end of a connection."""

    host: Annotated[
        str,
        Meta(
            min_length=1,
            max_length=255,
            description="Address or name to listen on; `0.0.0.0` is every IPv4 one.",
        ),
    ] = "127.0.0.1"
    port: Annotated[int, Meta(ge=0, le=65_535, description="TCP port to listen on; 0 takes a free one.")] = 8080
    drain_timeout_s: Annotated[
        float, Meta(ge=0, le=3_600, description="Seconds that running requests get to finish at shutdown.")
    ] = 30.0
    body_max_bytes: Annotated[
        int,
        Meta(ge=1_024, le=GIB, description="Largest request body after decompression, in bytes; above: 413."),
    ] = 64 * MIB
    header_max_bytes: Annotated[
        int, Meta(ge=4_096, le=MIB, description="Largest request line with headers, in bytes; above: 431.")
    ] = 65_536
    keep_alive_timeout_s: Annotated[
        float,
        Meta(gt=0, le=3_600, description="Seconds that a connection may stay open between two requests."),
    ] = 75.0
    stalled_write_timeout_s: Annotated[
        float,
        Meta(gt=0, le=3_600, description="Seconds that sent bytes may stay unread before a client is cut off."),
    ] = 20.0
    connections_max: Annotated[
        int,
        Meta(ge=1, le=100_000, description="Client connections at once; further ones wait to be accepted."),
    ] = 1_000


class LogSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What is written to stderr. Never bodies, keys or message text, at any level."""

    level: Annotated[LogLevel, Meta(description="Least severe level that is written.")] = "info"
    format: Annotated[LogFormat, Meta(description="One JSON object a line, or plain text for reading along.")] = "json"
