"""An upload straight into a data directory that no server uses.

The same lines, checks and duplicate rules as over HTTP; vectors follow when a server runs. Must never touch a directory
that a server uses: see `router.commands.directory_vaults`.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from actors.inbox_lag import weigh
from models.settings import Settings
from router.commands.directory_vaults import open_house, require_write
from router.commands.upload_delivery import Delivery
from router.components import wall_clock_ms
from router.exporting import APPLY_TIMEOUT_S
from router.uploads import ROOM_TIMEOUT_S, exchanges_of, parse_lines

REQUEST_ID = "memoryrouter-upload"


async def upload_into_directory(
    delivery: Delivery,
    settings: Settings,
    data_dir: Path,
    *,
    key: str,
    show: Callable[[int], None],
) -> None:
    """Store what is left of an upload.

    Raises:
        SetupError: there is no data directory, or a server uses it.
        Unauthenticated, Forbidden: the key opens no vault, or may not write.
        InvalidRequest, TooLarge: a line is over a limit of these settings; what was stored before stays.
    """
    async with open_house(settings, data_dir) as house:
        vault, credential = await house.vault_of_key(key)
        require_write(credential)
        while (part := delivery.next_slice()) is not None:
            messages = parse_lines(part.body, session_id=None, limits=settings.memory)
            exchanges = exchanges_of(messages, now_ms=wall_clock_ms(), request_id=REQUEST_ID)
            with await house.supervisor.pin(vault, weigh(exchanges), wait_room_s=ROOM_TIMEOUT_S) as pin:
                applied = await pin.submit(exchanges).wait_applied(timeout_s=APPLY_TIMEOUT_S)
            delivery.took(part, stored=applied.stored, duplicates=applied.duplicates)
            show(delivery.done)
