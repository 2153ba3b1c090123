"""Rivals, measured beside this product on the same machine: gateways before a provider, and stores of memories.

Nothing of theirs is part of this project: what is pinned here (`*.txt`, `portkey/`) is installed into an environment
outside of the repository when it is asked for. `python -m bench.peers gateways` and `python -m bench.peers memory`.
"""

from __future__ import annotations
