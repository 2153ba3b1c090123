"""kill -9 at a random moment: everything acknowledged is there, and nothing is there twice."""

from __future__ import annotations

import random
import subprocess
import sys
from itertools import islice
from pathlib import Path

from actors.store.sqlite import open_store
from models.ids import hash_key
from models.store_settings import StoreSettings
from tests.actors.store.samples import texts_of

CYCLES = 5
ROOT = Path(__file__).parents[3]


def acknowledged_until_killed(data_dir: Path, cycle: int, *, after: int) -> list[str]:
    """Start a writer, kill it after so many acknowledgements, wherever it is then, and return what it acknowledged."""
    command = [sys.executable, "-m", "tests.actors.store.kill_child", str(data_dir), str(cycle)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        first = b"".join(islice(child.stdout, after))
        child.kill()
        rest = child.stdout.read()
    assert child.returncode == -9
    lines = (first + rest).decode().split("\n")
    return lines[:-1]  # the last piece is empty, or a line that the kill cut


async def test_nothing_acknowledged_is_lost_and_nothing_is_stored_twice(tmp_path: Path) -> None:
    seed = random.randrange(2**32)
    moments = random.Random(seed)
    acknowledged: set[str] = set()
    for cycle in range(CYCLES):
        first = 200 if cycle == 0 else 1  # once at least long enough for memories to be made of what was accepted
        lines = acknowledged_until_killed(tmp_path, cycle, after=moments.randint(first, 300))
        assert lines, f"seed {seed}"
        acknowledged.update(lines)
        async with open_store(tmp_path, settings=StoreSettings(shards=1)) as store:
            found = await store.find_key(hash_key("mk_account"))
            assert found is not None
            memories, inbox = await texts_of(store, found.vault)
        stored = memories + inbox
        assert len(stored) == len(set(stored)), f"stored twice; seed {seed}"
        assert acknowledged <= set(stored), f"lost {sorted(acknowledged - set(stored))[:5]}; seed {seed}"
    assert memories, f"the writer never materialised; seed {seed}"
