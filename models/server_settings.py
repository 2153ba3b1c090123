"""Settings of what the network sees and of what is logged: address, TLS, pages, limits of requests and connections."""

from __future__ import annotations

import ipaddress
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from models.sizes import GIB, MIB

LogLevel = Literal["debug", "info", "warning", "error"]
LogFormat = Literal["json", "text"]
MetricsAccess = Literal["auto", "open", "account"]


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
    workers: Annotated[
        int,
        Meta(
            ge=1,
            le=64,
            description="`sqlite`: processes that serve this port, each with its part of the vaults; "
            "at most `store.shards`.",
        ),
    ] = 1
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
    header_timeout_s: Annotated[
        float,
        Meta(gt=0, le=3_600, description="Seconds that a client may take to send a request's headers."),
    ] = 30.0
    body_timeout_s: Annotated[
        float,
        Meta(gt=0, le=86_400, description="Seconds that a client may take to send a request's body."),
    ] = 120.0
    connections_max: Annotated[
        int,
        Meta(ge=1, le=100_000, description="Client connections at once; further ones wait to be accepted."),
    ] = 1_000
    connections_per_address_max: Annotated[
        int,
        Meta(
            ge=0,
            le=100_000,
            description="Of them from one address; further ones are closed. Trusted proxies are exempt. 0: no limit.",
        ),
    ] = 0
    tls_certificate_file: Annotated[
        str,
        Meta(max_length=4_096, description="PEM file with the certificate and its chain. Empty: no TLS."),
    ] = ""
    tls_key_file: Annotated[
        str, Meta(max_length=4_096, description="PEM file with the certificate's private key, not encrypted.")
    ] = ""
    allowed_hosts: Annotated[
        tuple[Annotated[str, Meta(min_length=1, max_length=255)], ...],
        Meta(max_length=64, description="Names in `Host` that are served, without ports; others: 421. Empty: all."),
    ] = ()


class LogSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What is written to stderr. Never bodies, keys or message text, at any level."""

    level: Annotated[LogLevel, Meta(description="Least severe level that is written.")] = "info"
    format: Annotated[LogFormat, Meta(description="One JSON object a line, or plain text for reading along.")] = "json"


class CorsSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Which web pages a browser lets call this server. None, unless they are named."""

    origins: Annotated[
        tuple[Annotated[str, Meta(min_length=1, max_length=255)], ...],
        Meta(max_length=64, description="Origins whose pages may call this server, such as https://app.example.org."),
    ] = ()


class MetricsSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Who may read `/metrics`."""

    access: Annotated[
        MetricsAccess,
        Meta(description="Who reads `/metrics`: anyone, an account key, or (auto) anyone while bound to loopback."),
    ] = "auto"


def is_loopback(host: str) -> bool:
    """Whether a server that listens on this address or name can be reached from its own machine only.

    A name but `localhost` counts as reachable: what it resolves to is not known here.
    """
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"
