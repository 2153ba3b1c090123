"""Settings of traces: whether requests are traced, how many of them, and who gets what was recorded."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from models.provider_settings import Secret


class TracingSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Traces by OpenTelemetry. Off, and nothing of it imported, until there is an endpoint."""

    endpoint: Annotated[
        str,
        Meta(
            max_length=2_048,
            description="URL that takes traces (OTLP over HTTP), such as http://127.0.0.1:4318/v1/traces. Empty: off.",
        ),
    ] = ""
    headers: Annotated[
        Secret,
        Meta(description="Headers for it, as `name=value,name=value`: its key is among them. Use the environment."),
    ] = Secret()
    service_name: Annotated[
        str, Meta(min_length=1, max_length=255, description="Under which name traces are filed.")
    ] = "memoryrouter"
    sample_ratio: Annotated[
        float,
        Meta(ge=0, le=1, description="Share of requests that are traced; a caller's own trace decides for itself."),
    ] = 1.0
    timeout_s: Annotated[
        float, Meta(gt=0, le=300, description="Seconds that one delivery may take, further attempts included.")
    ] = 10.0
    queue_max: Annotated[
        int, Meta(ge=512, le=1_000_000, description="Spans that may await their delivery; above, the oldest go.")
    ] = 4_096
    propagate: Annotated[
        bool, Meta(description="Whether providers get the trace's id (`traceparent`), so that they could continue it.")
    ] = False
