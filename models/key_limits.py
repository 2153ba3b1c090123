"""What one Memory Key may do: the limits that its account sets for it.

Pure data. Stands apart from `models.accounts`, since a `Principal` carries it and accounts speak of vaults.
"""

from __future__ import annotations

import msgspec


class KeyLimits(msgspec.Struct, frozen=True, omit_defaults=True):
    """What one key may do. None: what the settings say for every key.

    Attributes:
        requests_per_minute: how fast its token bucket fills; 0 sets no limit whatever the settings say.
        requests_burst: how many requests the bucket holds.
        concurrent_max: requests under way at once; 0 sets no limit.
        memories_max: memories that its vault may hold; 0 sets no limit.
    """

    requests_per_minute: int | None = None
    requests_burst: int | None = None
    concurrent_max: int | None = None
    memories_max: int | None = None


NO_OWN_LIMITS = KeyLimits()
"""Of a key that has only what the settings say for every key."""
