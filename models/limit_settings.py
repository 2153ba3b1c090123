"""Settings that bound what one key, one address or one request may cost.

The limits of callers are off until somebody sets them; those of a single request are on, and generous.
"""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from models.sizes import GIB, MIB

JSON_DEPTH_MAX = 200
"""What every parser of this project stands without a deep recursion."""


class LimitSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Rates, concurrency and quotas of keys, failed authentication of addresses, and the size of what is read."""

    requests_per_minute: Annotated[
        int, Meta(ge=0, le=1_000_000, description="Requests that one key may make a minute; above: 429. 0: no limit.")
    ] = 0
    requests_burst: Annotated[
        int,
        Meta(ge=0, le=1_000_000, description="Of them at once, after a pause. 0: a tenth of `requests_per_minute`."),
    ] = 0
    requests_concurrent_max: Annotated[
        int,
        Meta(
            ge=0,
            le=100_000,
            description="Requests of one key under way at once, streams until their end; above: 429. 0: no limit.",
        ),
    ] = 0
    memories_max: Annotated[
        int,
        Meta(
            ge=0,
            le=1_000_000_000,
            description="Memories that one vault may hold; above: 402, and chats go on without storing. 0: no limit.",
        ),
    ] = 0
    failed_auth_per_minute: Annotated[
        int,
        Meta(
            ge=0,
            le=1_000_000,
            description="Requests without a valid key from one address a minute; above: 429 instead of 401. "
            "0: no limit.",
        ),
    ] = 0
    failed_auth_burst: Annotated[
        int,
        Meta(ge=0, le=1_000_000, description="Of them at once, after a pause. 0: a tenth of `failed_auth_per_minute`."),
    ] = 0
    failed_auth_delay_ms: Annotated[
        int,
        Meta(
            ge=0,
            le=60_000,
            description="Milliseconds that such a 429 is held back: who waits for answers tries no faster.",
        ),
    ] = 1_000
    trusted_proxies: Annotated[
        tuple[str, ...],
        Meta(
            max_length=256,
            description="Networks such as 10.0.0.0/8 whose `X-Forwarded-For` is believed. Empty: nobody's.",
        ),
    ] = ()
    tracked_max: Annotated[
        int,
        Meta(
            ge=1,
            le=10_000_000,
            description="Keys, and addresses, whose buckets are kept in memory, about 250 bytes each; "
            "the least recent leave.",
        ),
    ] = 65_536
    json_depth_max: Annotated[
        int,
        Meta(ge=8, le=JSON_DEPTH_MAX, description="Levels that the JSON of a request may be nested; above: 400."),
    ] = JSON_DEPTH_MAX
    buffered_bodies_max_bytes: Annotated[
        int,
        Meta(
            ge=MIB,
            le=1_024 * GIB,
            description="Bytes of request bodies in memory, all connections together; above, they wait, then: 503. "
            "One body of any allowed size always fits.",
        ),
    ] = 512 * MIB
