"""Settings of the audit log: how long its entries are kept."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta


class AuditSettings(msgspec.Struct, frozen=True, kw_only=True):
    """The log of who did what to which key, vault or account."""

    keep_days: Annotated[
        int, Meta(ge=0, le=36_500, description="Days after which entries of the audit log are deleted. 0: never.")
    ] = 0
