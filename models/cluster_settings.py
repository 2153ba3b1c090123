"""Settings of a cluster: who this node is, where the others reach it, and how long its lease lasts. Pure data."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

NODE_ID_PATTERN = r"^([A-Za-z0-9][A-Za-z0-9._-]*)?$"


class ClusterSettings(msgspec.Struct, frozen=True, kw_only=True):
    """This node's place among the servers on one PostgreSQL database."""

    node_id: Annotated[
        str,
        Meta(
            max_length=64,
            pattern=NODE_ID_PATTERN,
            description="This node's name, unlike any other's. Empty: a random one, kept in the data directory.",
        ),
    ] = ""
    address: Annotated[
        str,
        Meta(max_length=255, description="`host:port` at which the other nodes reach this one. Empty: of `server`."),
    ] = ""
    zone: Annotated[str, Meta(max_length=64, description="Where the node stands; shown, and not used yet.")] = ""
    weight: Annotated[
        float,
        Meta(ge=0.01, le=1_000, description="Share of the partitions that this node gets, relative to the others'."),
    ] = 1.0
    ttl_s: Annotated[
        float,
        Meta(
            ge=0.5,
            le=300,
            description="Seconds after which a node that is not heard of has lost its partitions to the others.",
        ),
    ] = 5.0
