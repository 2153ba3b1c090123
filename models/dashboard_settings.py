"""Settings of the dashboard: whether there is one, and how long and how many people stay signed in."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta


class DashboardSettings(msgspec.Struct, frozen=True, kw_only=True):
    """The pages below `/dashboard`."""

    enabled: Annotated[bool, Meta(description="Whether `/dashboard` is served.")] = True
    session_idle_s: Annotated[
        int, Meta(ge=60, le=604_800, description="Seconds without a request after which a session ends.")
    ] = 3_600
    session_max_s: Annotated[
        int, Meta(ge=60, le=2_592_000, description="Seconds after which a session ends in any case.")
    ] = 43_200
    sessions_max: Annotated[
        int, Meta(ge=1, le=10_000, description="Sessions at once; above, the one idle for longest ends.")
    ] = 1_000
