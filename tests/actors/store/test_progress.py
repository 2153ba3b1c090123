"""Long work on a data directory says how far it is: never backwards, never more than all, and all of it at the end."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio

from actors.store.backup import back_up
from actors.store.data_directory import rotate_server_key
from actors.store.doctor import verify
from actors.store.restore import restore
from tests.running import open_server

NOW_MS = 1_700_000_000_000


class Watched:
    """Remembers what it was told."""

    def __init__(self) -> None:
        self.told: list[tuple[int, int]] = []

    def __call__(self, done: int, total: int) -> None:
        self.told.append((done, total))

    def assert_whole(self) -> None:
        """It grew to all of it."""
        assert self.told
        counts = [done for done, _ in self.told]
        assert counts == sorted(counts)
        assert all(done <= total for done, total in self.told)
        assert self.told[-1][0] == self.told[-1][1] > 0


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    """A data directory with memories, that no server uses."""

    async def fill() -> None:
        async with open_server(tmp_path / "data") as server:
            await server.upload([{"content": f"The lighthouse keeper's log, entry {number}."} for number in range(300)])

    trio.run(fill)
    return tmp_path / "data"


def test_backup_restore_doctor_and_rotation_report_until_the_end(data_dir: Path, tmp_path: Path) -> None:
    copied, verified, restored, rotated = Watched(), Watched(), Watched(), Watched()
    back_up(data_dir, tmp_path / "backup", now_ms=NOW_MS, report=copied)
    verify(data_dir, progress=verified)
    restore(tmp_path / "backup", data_dir, now_ms=NOW_MS, replace=True, report=restored)
    rotate_server_key(data_dir, now_ms=NOW_MS, report=rotated)
    for watched in (copied, verified, restored, rotated):
        watched.assert_whole()
    assert len(verified.told) > 1, "row by row, not only file by file"
    assert rotated.told == [(1, 1)]
