"""Settings of screening: what becomes of memories that look planted."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta


class ScreeningSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What becomes of memories that instruct the model instead of telling something."""

    mode: Annotated[
        Literal["off", "flag"],
        Meta(description="`flag`: memories that look planted stay out of contexts; `off`: they are only counted."),
    ] = "off"
