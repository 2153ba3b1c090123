"""What of a vault takes time to be freed, so that its actor can do it in slices (`actors.slices.free`).

Owns the type only: the parts of a vault tell their own, and know neither tasks nor clocks.
"""

from __future__ import annotations

from typing import Any, TypeAlias

Holding: TypeAlias = "list[Any] | dict[Any, Any]"
"""A container whose entries are the part's own; emptied, the part is of no use any more."""
