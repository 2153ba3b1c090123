"""The vaults' SQL on a real PostgreSQL: counts that stay exact, steps that happen once, slices that end."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence

import numpy as np
import pytest

from actors.store.database import ConstraintViolated
from actors.store.keyring import OpenVault
from actors.store.postgres import vault_rows as sql
from actors.store.postgres.connection import BATCH_ROWS, PostgresConnection, open_connection
from actors.store.postgres.inserts import COPY_ROWS_LEAST, PostgresBatch, insert
from actors.store.postgres.vault_tables import VAULT_TABLES
from actors.store.protocol import Materialisation
from actors.store.seal import DataKey
from actors.store.vault_bodies import Loaded, encode_exchange
from models.errors import StoreUnavailable
from models.ids import VaultNumber, VaultRef
from models.memory import InboxRow, Memory
from models.messages import Page
from tests.actors.store.samples import DIMS, MODEL, exchange, memory, vectors

VAULT = VaultRef(number=VaultNumber(70), shard=6)
OTHER = VaultRef(number=VaultNumber(71), shard=6)
KEYS = {vault: DataKey(os.urandom(32), vault_number=vault.number) for vault in (VAULT, OTHER)}


@pytest.fixture
def connection(postgres_url: str) -> Iterator[PostgresConnection]:
    opened = open_connection(postgres_url)
    for statement in VAULT_TABLES.split(";"):
        if statement.strip():
            opened.execute(statement)
    yield opened
    opened.close()


class Log:
    """A vault's log without a store around it: each call is a transaction."""

    def __init__(self, connection: PostgresConnection, vault: VaultRef = VAULT) -> None:
        self.connection = connection
        self.vault = vault
        self.commits = 0

    def batch(self) -> PostgresBatch:
        """The next transaction's."""
        self.commits += 1
        return PostgresBatch(self.connection, self.commits)

    def append(self, *texts: str) -> list[InboxRow]:
        """Accept exchanges."""
        exchanges = [exchange(text) for text in texts]
        bodies = [encode_exchange(accepted) for accepted in exchanges]
        batch = self.batch()
        rows = sql.append_inbox(batch, KEYS[self.vault], self.vault, exchanges, bodies)
        batch.flush()
        return rows

    def take(self, row_ids: Sequence[int], *memories: Memory, embedded: bool = True) -> None:
        """Materialise."""
        found = sql.find_model(self.connection, MODEL)
        model = found[0] if found else sql.register_model(self.connection, MODEL, dims=DIMS)
        taken = Materialisation(
            row_ids=tuple(row_ids),
            memories=memories,
            vectors=vectors(*(memory.seq for memory in memories)) if embedded else {},
            model_id=MODEL,
            next_seq=1 + max((memory.seq for memory in memories), default=0),
        )
        sql.materialise(self.batch(), KEYS[self.vault], self.vault, taken, model=model)

    def load(self) -> Loaded:
        """Read all of it."""
        opened = OpenVault(data_key=KEYS[self.vault], shard=self.vault.shard, created_ms=5)
        return sql.load(self.connection, opened, self.vault, model_id=MODEL)

    def page(self, page: Page) -> list[int]:
        """The numbers of a page's memories."""
        opened = OpenVault(data_key=KEYS[self.vault], shard=self.vault.shard, created_ms=5)
        paged = sql.load_page(self.connection, opened, self.vault, page, model_id=MODEL)
        assert not page.vectors or list(paged.vectors) == [memory.seq for memory in paged.memories]
        return [memory.seq for memory in paged.memories]

    def counts(self) -> tuple[int, int]:
        """What is kept of its size, which must be what its rows say."""
        kept = sql.vault_sizes(self.connection, self.vault.shard, [self.vault.number])[self.vault.number]
        low = self.vault.number << 32
        ((memories, size),) = self.connection.execute(
            "SELECT count(*), CAST(coalesce(sum(octet_length(body)), 0) AS bigint) FROM memory "
            "WHERE part = ? AND id BETWEEN ? AND ?",
            (self.vault.shard, low, low | 0xFFFFFFFF),
        ).fetchall()
        assert kept == (memories, size)
        return kept


@pytest.mark.parametrize("count", [1, 2, COPY_ROWS_LEAST, 3 * BATCH_ROWS])
def test_rows_are_read_back_however_many_there_are(connection: PostgresConnection, count: int) -> None:
    log = Log(connection)
    texts = [f"text {number}" for number in range(count)]
    rows = log.append(*texts)
    log.take([row.row_id for row in rows], *(memory(seq, text) for seq, text in enumerate(texts, 1)))
    late = log.append(*texts)
    image = log.load().image
    assert [found.content for found in image.memories] == texts
    assert [row.row_id for row in image.inbox] == [row.row_id for row in late]
    assert list(image.vectors) == list(range(1, count + 1))
    assert np.array_equal(image.vectors[count], vectors(count)[count])
    assert (image.next_seq, image.damaged, image.created_ms) == (count + 1, 0, 5)
    assert log.counts()[0] == count
    assert sql.size(connection) == log.counts() == sql.held_together(connection, 6, "[3,70,71]")


def test_sizes_follow_every_change_of_the_rows(connection: PostgresConnection) -> None:
    log, other = Log(connection), Log(connection, OTHER)
    for each in (log, other):
        each.take((), *(memory(seq, "x" * seq) for seq in range(1, 20)))
    sql.put_memory(log.batch(), KEYS[VAULT], VAULT, memory(3, "a longer text than before"))
    log.counts()
    sql.rewrite_memory(log.batch(), KEYS[VAULT], VAULT, 4, memory(30, "b"))
    assert sql.delete_memories(log.batch(), VAULT, [1, 2, 2, 4, 99]) == 2
    assert log.counts()[0] == 17
    assert other.counts()[0] == 19
    image = log.load().image
    assert sorted(image.vectors) == [3, *range(5, 20)]
    assert image.next_seq == 31
    with pytest.raises(StoreUnavailable):
        sql.put_memory(log.batch(), KEYS[VAULT], VAULT, memory(4, "gone"))


def test_a_step_that_was_done_before_fails_in_its_transaction(connection: PostgresConnection) -> None:
    log = Log(connection)
    (row,) = log.append("a")
    log.take([row.row_id], memory(1, "a"))
    for again in ([row.row_id], []):
        connection.execute("BEGIN")
        with pytest.raises(StoreUnavailable):
            log.take(again, memory(1, "a"))
        connection.execute("ROLLBACK")
    with pytest.raises(ConstraintViolated):
        insert(connection, "memory", [(6, VAULT.number << 32 | seq, b"x") for seq in range(1, 30)])
    assert log.counts()[0] == 1


def test_a_purge_removes_everything_in_slices_and_nothing_of_others(connection: PostgresConnection) -> None:
    log, other = Log(connection), Log(connection, OTHER)
    count = sql.PURGE_ROWS + 3
    for each in (log, other):
        each.take((), *(memory(seq, "x") for seq in range(1, count + 1)))
        rows = each.append("a", "b")
        sql.set_aside(each.batch(), each.vault, [rows[0].row_id], now_ms=7)
    slices = 1
    while not sql.purge_slice(log.batch(), VAULT):
        slices += 1
    assert slices == 3
    assert other.counts()[0] == count
    for table in ("inbox", "damaged_inbox"):
        ((vaults,),) = connection.execute(f"SELECT array_agg(vault) FROM {table}").fetchall()
        assert vaults == [OTHER.number]
    assert log.load().image.memories == []


def test_what_is_set_aside_keeps_its_bytes(connection: PostgresConnection) -> None:
    log = Log(connection)
    first, second = log.append("a", "b")
    ((body,),) = connection.execute("SELECT body FROM inbox WHERE id = ?", (first.row_id,)).fetchall()
    sql.set_aside(log.batch(), VAULT, [first.row_id, 12345], now_ms=7)
    rows = connection.execute("SELECT part, vault, id, set_aside_ms, body FROM damaged_inbox").fetchall()
    assert rows == [(6, VAULT.number, first.row_id, 7, body)]
    assert log.load().image.inbox == [second]


def test_damaged_rows_are_left_out_and_named(connection: PostgresConnection) -> None:
    log = Log(connection)
    log.take((), memory(1, "a"), memory(2, "b"), memory(3, "c"))
    (row,) = log.append("d")
    bad = VAULT.number << 32 | 2
    connection.execute("UPDATE memory SET body = '\\x00' WHERE id = ?", (bad,))
    connection.execute(
        "UPDATE embedding SET body = set_byte(body, 20, 1 # get_byte(body, 20)) WHERE id = ?", (bad + 1,)
    )
    connection.execute("UPDATE inbox SET body = '\\x00'")
    loaded = log.load()
    assert [found.seq for found in loaded.image.memories] == [1, 3]
    assert list(loaded.image.vectors) == [1, 2]
    assert loaded.image.damaged == 3
    damaged = loaded.damaged
    assert (damaged.memories, damaged.embeddings, damaged.inbox) == ((bad,), (bad + 1,), (row.row_id,))


def test_pages_go_on_behind_a_number(connection: PostgresConnection) -> None:
    log = Log(connection)
    log.take((), *(memory(seq, "x") for seq in range(1, 31)))
    assert log.page(Page(after_seq=0, limit=7, vectors=True)) == [1, 2, 3, 4, 5, 6, 7]
    assert log.page(Page(after_seq=28, limit=7)) == [29, 30]


def test_a_model_has_one_number_for_ever(connection: PostgresConnection, caplog: pytest.LogCaptureFixture) -> None:
    assert sql.register_model(connection, "a", dims=8) == 1
    assert sql.register_model(connection, "b", dims=16) == 2
    assert sql.register_model(connection, "a", dims=8) == 1
    assert not caplog.records
    assert sql.register_model(connection, "a", dims=9) == 1
    assert "width" in caplog.text
    assert sql.find_model(connection, "a") == (1, 9)


def test_a_sweep_goes_in_slices_and_removes_what_is_of_other_models(connection: PostgresConnection) -> None:
    log = Log(connection)
    log.take((), *(memory(seq, "x") for seq in range(1, 11)))
    other = sql.register_model(connection, "other", dims=DIMS)
    moved = Materialisation((), (), vectors(2, 9, 77), model_id="other", next_seq=1)
    sql.materialise(log.batch(), KEYS[VAULT], VAULT, moved, model=other)
    sql.choose(log.batch(), VAULT, "two")
    assert sql.vaults_moving(connection, [5, 6]) == [(6, VAULT.number)]
    assert sql.vaults_moving(connection, [5]) == []
    low: int | None = VAULT.number << 32
    slices = 0
    while low is not None:
        low = sql.sweep(log.batch(), VAULT, low, name="two", model_id="other", rows_max=4)
        slices += 1
    assert slices == 3
    ((left,),) = connection.execute("SELECT array_agg(id & 4294967295 ORDER BY id) FROM embedding").fetchall()
    assert left == [2, 9]
    assert sql.vaults_moving(connection, [6]) == []
    assert sql.remembered(connection, VAULT) == "two"
    assert sql.remembered(connection, OTHER) is None


def test_vaults_with_inbox_are_found_by_their_partitions(connection: PostgresConnection) -> None:
    Log(connection).append("a", "b")
    Log(connection, OTHER).append("c")
    assert sql.vaults_with_inbox(connection, [6]) == [(6, 70), (6, 71)]
    assert sql.vaults_with_inbox(connection, [7]) == []


def test_numbers_of_every_size_are_looked_up_together(connection: PostgresConnection) -> None:
    for number in (1, 70_000, 1 << 40):
        vault = VaultRef(number=VaultNumber(number), shard=6)
        sql.choose(Log(connection).batch(), vault, "one")
    for numbers in ([1], [1, 70_000], [1 << 40], [1, 1 << 40, 70_000], []):
        assert sorted(sql.vault_sizes(connection, 6, numbers)) == sorted(numbers)
    assert sql.vaults_moving(connection, [6]) == [(6, 1), (6, 70_000), (6, 1 << 40)]
    assert sql.vaults_moving(connection, []) == []


def test_what_the_server_finds_scattered_is_in_order(connection: PostgresConnection) -> None:
    log = Log(connection)
    for seq in (7, 3, 9, 1):
        log.take((), memory(seq, f"text {seq}"))
    sql.put_memory(log.batch(), KEYS[VAULT], VAULT, memory(1, "changed"))
    image = log.load().image
    assert [found.seq for found in image.memories] == list(image.vectors) == [1, 3, 7, 9]
    assert image.next_seq == 10
    connection.execute("UPDATE vault_state SET next_seq = 1")
    assert log.load().image.next_seq == 10
