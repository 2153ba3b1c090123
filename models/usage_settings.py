"""Settings of usage metering: whether requests are counted, what a token of memory bills, how long counts are kept."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta


class UsageSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Counting of requests by key, day and model."""

    enabled: Annotated[bool, Meta(description="Whether requests are counted, by key, day and model.")] = True
    # The hosted product's only published example bills 240 for 48 tokens.
    billing_multiplier: Annotated[
        float,
        Meta(ge=0, le=1_000_000, description="Billing units of one token of memory, retrieved or injected."),
    ] = 5.0
    fold_interval_s: Annotated[
        float,
        Meta(ge=0.1, le=3_600, description="Seconds after which new counts go from the journal into the database."),
    ] = 10.0
    retention_days: Annotated[
        int, Meta(ge=0, le=36_500, description="Days after which counts are deleted. 0: never.")
    ] = 0
