"""The doctor: finds every kind of harm, says it in words, changes nothing, and works beside a running server."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from actors.store import doctor
from actors.store.counter import write_counter
from actors.store.doctor import Report, verify
from actors.store.seal import write_key_file
from actors.store.sqlite import open_store
from models.errors import SetupError
from models.ids import VaultRef
from tests.actors.store.harm import SETTINGS, captured, change
from tests.actors.store.samples import new_account, new_vault, remembered, stored


async def prepared(data_dir: Path) -> VaultRef:
    """Three vaults with memories and inbox rows, one of them shredded; returns a live one of shard 0."""
    async with open_store(data_dir, settings=SETTINGS) as store:
        vaults = [(await new_account(store)).vault]
        vaults += [await new_vault(store, f"mk_{number}") for number in range(3)]
        for vault in vaults:
            await remembered(store, vault, *(f"secret {number}" for number in range(100)))
            await stored(store, vault, "secret in the inbox")
        await store.replace_vault(vaults[-1])
    return next(vault for vault in vaults if vault.shard == 0)


def said(report: Report) -> str:
    """All that the doctor says."""
    return "\n".join(f"{f.severity} {f.where}: {f.what} {f.remedy}" for f in report.findings)


async def test_a_healthy_directory_has_no_findings_and_is_not_changed(tmp_path: Path) -> None:
    await prepared(tmp_path)
    before = captured(tmp_path)
    report = verify(tmp_path)
    after = {name: content for name, content in captured(tmp_path).items() if not name.endswith(("-wal", "-shm"))}
    assert after == before
    assert (report.findings, report.healthy, report.running) == ((), True, False)
    assert (report.vaults, report.keys) == (4, 4)
    shards = [database.rows_verified for database in report.databases if database.name.startswith("shard")]
    assert sum(rows["memory"] for rows in shards) >= 300
    assert sum(rows["embedding"] for rows in shards) >= 300
    assert sum(rows["inbox"] for rows in shards) >= 3
    assert report.free_bytes > 0
    assert report.snapshots == (0, 0)


async def test_the_doctor_works_beside_a_running_server(tmp_path: Path) -> None:
    vault = await prepared(tmp_path)
    async with open_store(tmp_path, settings=SETTINGS) as store:
        await stored(store, vault, "now")
        report = verify(tmp_path)
        assert (report.healthy, report.running) == (True, True)
        await stored(store, vault, "and on")


def break_a_page(path: Path) -> None:
    """Overwrite a page in the middle of a database."""
    content = bytearray(path.read_bytes())
    page = len(content) // 4096 // 2
    content[page * 4096 : page * 4096 + 200] = b"\xff" * 200
    path.write_bytes(content)


HARMS: dict[str, tuple[Callable[[Path, VaultRef], object], str, bool]] = {
    # what is done, what the doctor says, whether that is damage
    "memory": (
        lambda data, vault: change(
            data / "shard-00.db", "UPDATE memory SET body = flip(body) WHERE id = ?", vault.number << 32 | 7
        ),
        "1 rows of memory fail their checksum",
        True,
    ),
    "embedding": (
        lambda data, vault: change(
            data / "shard-00.db", "UPDATE embedding SET body = flip(body) WHERE id >> 32 = ?", vault.number
        ),
        "100 rows of embedding fail their checksum",
        True,
    ),
    "inbox": (
        lambda data, _: change(data / "shard-00.db", "UPDATE inbox SET body = flip(body)"),
        "rows of inbox fail their checksum",
        True,
    ),
    "wrapped key": (
        lambda data, vault: change(
            data / "meta.db", "UPDATE vault_key SET wrapped = flip(wrapped) WHERE vault = ?", vault.number
        ),
        "The data keys of 1 vaults",
        True,
    ),
    "lost commits": (
        lambda data, _: write_counter(data / "hwm" / "shard-01", 10_000),
        "durable commits are missing",
        True,
    ),
    "lost commits of meta.db": (
        lambda data, _: write_counter(data / "hwm" / "meta", 10_000),
        "durable commits are missing",
        True,
    ),
    "no counter": (lambda data, _: (data / "hwm" / "shard-01").unlink(), "no valid commit counter", False),
    "no shard": (lambda data, _: (data / "shard-01.db").unlink(), "The file is missing", True),
    "garbage": (lambda data, _: (data / "shard-01.db").write_bytes(bytes(9000)), "cannot be read", True),
    "structure": (
        lambda data, _: break_a_page(data / "shard-00.db"),
        "shard-00.db",
        True,
    ),
    "orphans": (
        lambda data, vault: change(data / "shard-00.db", "UPDATE memory SET id = id + (1 << 40)"),
        "rows of 1 vaults that do not exist",
        False,
    ),
    "loose embedding": (
        lambda data, vault: change(data / "shard-00.db", "DELETE FROM memory WHERE id = ?", vault.number << 32 | 7),
        "1 embeddings have no memory",
        False,
    ),
    "no server key": (lambda data, _: (data / "server.key").unlink(), "The server key is missing", True),
    "wrong server key": (
        lambda data, _: (data / "server.key").write_bytes(bytes(32)),
        "not the one that sealed this",
        True,
    ),
    "open server key": (lambda data, _: (data / "server.key").chmod(0o644), "wider than 0600", True),
    "newer schema": (lambda data, _: change(data / "shard-00.db", "PRAGMA user_version = 99"), "schema is 99", True),
    "no ledger": (lambda data, _: (data / "erasure.log").unlink(), "1 erasures are not in the ledger", False),
    "torn ledger": (
        lambda data, _: (data / "erasure.log").write_bytes((data / "erasure.log").read_bytes() + b"torn"),
        "1 lines fail their checksum",
        False,
    ),
    "undone erasure": (
        lambda data, _: change(data / "meta.db", "UPDATE vault SET state = 0 WHERE state = 2"),
        "1 erased vaults are live",
        True,
    ),
    "restore": (lambda data, _: (data / "restore.ready").mkdir(), "A restore was interrupted", False),
    "rotation": (
        lambda data, _: write_key_file(data / "server.key.new", bytes(32)),
        "exchange of the server key was interrupted",
        False,
    ),
}


@pytest.mark.parametrize("harm", HARMS)
async def test_harm_is_found_and_said(tmp_path: Path, harm: str) -> None:
    vault = await prepared(tmp_path)
    do_harm, words, is_damage = HARMS[harm]
    do_harm(tmp_path, vault)
    before = captured(tmp_path)
    report = verify(tmp_path)
    assert words in said(report)
    assert report.healthy != is_damage
    assert "secret" not in said(report)
    after = captured(tmp_path)
    assert {name: after[name] for name in before} == before


async def test_a_full_disk_is_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    await prepared(tmp_path)
    monkeypatch.setattr(doctor, "FREE_BYTES_MIN", 2**60)
    report = verify(tmp_path)
    assert "MiB are free" in said(report)
    assert report.healthy


async def test_snapshots_are_listed(tmp_path: Path) -> None:
    await prepared(tmp_path)
    (tmp_path / "snap" / "01" / "1").mkdir(parents=True)
    (tmp_path / "snap" / "01" / "1" / "0.1").write_bytes(bytes(100))
    assert verify(tmp_path).snapshots == (1, 100)


async def test_a_key_from_elsewhere_opens_the_rows(tmp_path: Path) -> None:
    await prepared(tmp_path)
    key = (tmp_path / "server.key").read_bytes()
    (tmp_path / "server.key").rename(tmp_path.with_name("elsewhere.key"))
    assert verify(tmp_path, server_key=key).findings == ()
    assert verify(tmp_path, server_key_file=tmp_path.with_name("elsewhere.key")).findings == ()


def test_nothing_is_no_data_directory(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match="no data directory"):
        verify(tmp_path)
