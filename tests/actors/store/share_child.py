"""The victim of `test_shares.py`: the second of two workers, which makes keys and accepts for ever.

Run as `python -m tests.actors.store.share_child DATA_DIR`. Each line on stdout is a key that was made, and in whose
vault, if it is this worker's, a text was stored, before the line was written.
"""

from __future__ import annotations

import os
import sys
from itertools import count
from pathlib import Path

import trio

from actors.cluster.workers import Share
from actors.store.sqlite import open_store
from tests.actors.store.conftest import SETTINGS
from tests.actors.store.samples import new_vault, stored


async def main(data_dir: Path) -> None:
    """Work until killed."""
    async with open_store(data_dir, settings=SETTINGS, share=Share(1, 2)) as store:
        for number in count():
            name = f"mk_child_{number}"
            vault = await new_vault(store, name)
            if vault.shard == 1:
                await stored(store, vault, name)
            os.write(1, f"{name}\n".encode())


if __name__ == "__main__":
    trio.run(main, Path(sys.argv[1]))
