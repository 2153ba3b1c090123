"""What every store promises of the vaults' logs, run on each implementation: SQLite and the in-memory twin."""

from __future__ import annotations

from contextlib import suppress

import numpy as np
import pytest
import trio

from actors.store.protocol import Materialisation, Store
from models.errors import NotFound, Overloaded, StoreUnavailable, TooLarge
from models.ids import VaultNumber, VaultRef, hash_key
from models.memory import Exchange, InboxRow, Memory, Message
from tests.actors.store.samples import (
    DIMS,
    MODEL,
    accept,
    exchange,
    ignore,
    memory,
    new_vault,
    remembered,
    step,
    stored,
    texts_of,
    vectors,
)


async def test_accepted_exchanges_are_read_back_in_order(store: Store, vault: VaultRef) -> None:
    full = Exchange(
        messages=(
            Message(role="user", content="é\ufffd😀", timestamp_ms=5, session_id="s", external_id="x", final=True),
            Message(role="assistant", content="b", metadata={"deep": [1, {"k": None}]}),
        ),
        source="proxy",
        accepted_ms=7,
        model="m",
        request_id="r",
    )
    first = await stored(store, vault, "one", "two")
    await store.accept_nowait(vault, [full], ignore).wait_durable()
    image = await store.load_vault(vault, model_id=MODEL)
    assert [row.exchange for row in image.inbox] == [exchange("one"), exchange("two"), full]
    assert image.inbox[:2] == first
    assert image.created_ms == 1000
    assert image.next_seq == 1


async def test_a_commit_becomes_durable_only_when_it_is_waited_for_or_time_passes(
    store: Store, vault: VaultRef
) -> None:
    commit = accept(store, vault, "a")
    assert not commit.durable
    await commit.wait_durable()
    assert commit.durable
    await commit.wait_durable()  # as often as one likes


async def test_the_callback_gets_its_rows_before_any_waiter_runs(store: Store, vault: VaultRef) -> None:
    events: list[str] = []

    async def wait(text: str) -> None:
        def note(rows: list[InboxRow]) -> None:
            events.append(f"durable {rows[0].exchange.messages[0].content}")

        await accept(store, vault, text, on_durable=note).wait_durable()
        assert f"durable {text}" in events
        events.append(f"woken {text}")

    async with trio.open_nursery() as waiters:
        waiters.start_soon(wait, "a")
        waiters.start_soon(wait, "b")
    assert sorted(events) == ["durable a", "durable b", "woken a", "woken b"]


async def test_callbacks_come_in_the_order_of_acceptance(store: Store, vault: VaultRef) -> None:
    seen: list[InboxRow] = []
    commits = [accept(store, vault, f"text {number}", on_durable=seen.extend) for number in range(8)]
    for commit in commits:
        await commit.wait_durable()
    assert [row.exchange.messages[0].content for row in seen] == [f"text {number}" for number in range(8)]
    row_ids = [row.row_id for row in seen]
    assert row_ids == sorted(set(row_ids))


async def test_what_a_caller_changes_afterwards_is_not_stored(store: Store, vault: VaultRef) -> None:
    metadata = {"colour": "red"}
    message = Message(role="user", content="a", metadata=metadata)
    commit = store.accept_nowait(vault, [Exchange(messages=(message,), source="ingest", accepted_ms=1)], ignore)
    metadata["colour"] = "blue"
    await commit.wait_durable()
    image = await store.load_vault(vault, model_id=MODEL)
    assert image.inbox[0].exchange.messages[0].metadata == {"colour": "red"}


async def test_accepting_nothing_is_durable_and_empty(store: Store, vault: VaultRef) -> None:
    assert await stored(store, vault) == []


async def test_a_full_queue_refuses_and_stores_nothing(store: Store, vault: VaultRef) -> None:
    commit = accept(store, vault, *"abcdefgh")
    with pytest.raises(Overloaded):
        accept(store, vault, "i", "j", "k")
    await commit.wait_durable()
    await stored(store, vault, "l", "m", "n")  # there is room again
    _, inbox = await texts_of(store, vault)
    assert inbox == [*"abcdefgh", *"lmn"]


async def test_a_call_that_can_never_fit_says_so(store: Store, vault: VaultRef) -> None:
    with pytest.raises(TooLarge):
        accept(store, vault, *map(str, range(11)))


async def test_a_cancelled_waiter_leaves_the_commit_alone(store: Store, vault: VaultRef) -> None:
    rows: list[InboxRow] = []
    commit = accept(store, vault, "a", on_durable=rows.extend)
    with trio.CancelScope() as scope:
        scope.cancel()
        await commit.wait_durable()
    assert scope.cancelled_caught
    await commit.wait_durable()
    assert len(rows) == 1


async def test_materialising_moves_rows_into_memories_once(store: Store, vault: VaultRef) -> None:
    first, second = await stored(store, vault, "a", "b")
    await store.materialise(vault, step((first.row_id,), memory(1, "a"), next_seq=2))
    image = await store.load_vault(vault, model_id=MODEL)
    assert image.memories == [memory(1, "a")]
    assert image.inbox == [second]
    assert image.next_seq == 2
    assert image.vectors[1].dtype == np.float16
    assert image.vectors[1].tolist() == [[1.0] * DIMS]


async def test_a_memory_keeps_every_field(store: Store, vault: VaultRef) -> None:
    full = Memory(
        seq=3,
        role="assistant",
        content="Zürich ist schön.",
        timestamp_ms=-1,
        stored_ms=2**45,
        source="upload",
        spans=((0, 6), (7, 17)),
        timestamp_given=True,
        session_id="s",
        model="m",
        external_id="x",
        metadata={"a": 1.5},
        request_id="r",
        small_talk=True,
    )
    chunks = {3: np.arange(2 * DIMS, dtype=np.float16).reshape(2, DIMS)}
    await store.materialise(
        vault, Materialisation(row_ids=(), memories=(full,), vectors=chunks, model_id=MODEL, next_seq=4)
    )
    image = await store.load_vault(vault, model_id=MODEL)
    assert image.memories == [full]
    assert np.array_equal(image.vectors[3], chunks[3])


async def test_rows_can_end_without_a_memory(store: Store, vault: VaultRef) -> None:
    (row,) = await stored(store, vault, "known already")
    await store.materialise(vault, step((row.row_id,), next_seq=1))
    assert await texts_of(store, vault) == ([], [])


async def test_the_same_step_twice_changes_nothing_and_says_so(store: Store, vault: VaultRef) -> None:
    (row,) = await stored(store, vault, "a")
    await store.materialise(vault, step((row.row_id,), memory(1, "a"), next_seq=2))
    with pytest.raises(StoreUnavailable):
        await store.materialise(vault, step((row.row_id,), memory(2, "a"), next_seq=3))
    with pytest.raises(StoreUnavailable):
        await store.materialise(vault, step((), memory(1, "other"), next_seq=3))
    assert await texts_of(store, vault) == (["a"], [])
    assert (await store.load_vault(vault, model_id=MODEL)).next_seq == 2


async def test_one_vault_cannot_end_the_rows_of_another(store: Store, vault: VaultRef) -> None:
    await new_vault(store, "mk_elsewhere")
    other = await new_vault(store, "mk_other")
    assert other.shard == vault.shard
    (row,) = await stored(store, other, "a")
    with pytest.raises(StoreUnavailable):
        await store.materialise(vault, step((row.row_id,), next_seq=1))
    assert await texts_of(store, other) == ([], ["a"])


async def test_vectors_may_follow_later_and_are_kept_by_model(store: Store, vault: VaultRef) -> None:
    await store.materialise(vault, step((), memory(1, "a"), memory(2, "b"), next_seq=3, embedded=False))
    assert (await store.load_vault(vault, model_id=MODEL)).vectors == {}
    late = Materialisation(row_ids=(), memories=(), vectors=vectors(1), model_id=MODEL, next_seq=3)
    await store.materialise(vault, late)
    other = Materialisation(row_ids=(), memories=(), vectors=vectors(2), model_id="other", next_seq=3)
    await store.materialise(vault, other)
    assert list((await store.load_vault(vault, model_id=MODEL)).vectors) == [1]
    assert list((await store.load_vault(vault, model_id="other")).vectors) == [2]
    assert (await store.load_vault(vault, model_id="unknown")).vectors == {}


async def test_vectors_of_another_model_replace_the_old_ones(store: Store, vault: VaultRef) -> None:
    await remembered(store, vault, "a")
    newer = Materialisation(row_ids=(), memories=(), vectors=vectors(1), model_id="newer", next_seq=2)
    await store.materialise(vault, newer)
    assert (await store.load_vault(vault, model_id=MODEL)).vectors == {}
    assert list((await store.load_vault(vault, model_id="newer")).vectors) == [1]


async def test_deleted_memories_are_gone_with_their_vectors(store: Store, vault: VaultRef) -> None:
    await remembered(store, vault, "a", "b", "c")
    await store.delete_memories(vault, [1, 3, 99])
    image = await store.load_vault(vault, model_id=MODEL)
    assert [memory.content for memory in image.memories] == ["b"]
    assert list(image.vectors) == [2]
    assert image.next_seq == 4  # a number is never used twice


async def test_vectors_that_come_after_a_deletion_are_not_stored(store: Store, vault: VaultRef) -> None:
    await store.materialise(vault, step((), memory(1, "a"), next_seq=2, embedded=False))
    await store.delete_memories(vault, [1])
    late = Materialisation(row_ids=(), memories=(), vectors=vectors(1), model_id=MODEL, next_seq=2)
    await store.materialise(vault, late)
    await store.materialise(vault, step((), memory(2, "b"), next_seq=3))
    assert list((await store.load_vault(vault, model_id=MODEL)).vectors) == [2]


async def test_vaults_see_only_their_own(store: Store, vault: VaultRef) -> None:
    same_shard = [await new_vault(store, f"mk_{number}") for number in range(3)]
    for number, other in enumerate(same_shard):
        await remembered(store, other, f"secret {number}")
    await stored(store, vault, "mine")
    assert await texts_of(store, vault) == ([], ["mine"])
    for number, other in enumerate(same_shard):
        assert await texts_of(store, other) == ([f"secret {number}"], [])


async def test_vaults_with_inbox_are_those_with_work_left(store: Store, vault: VaultRef) -> None:
    busy, done = await new_vault(store, "mk_busy"), await new_vault(store, "mk_done")
    await stored(store, busy, "a", "b")
    await stored(store, vault, "c")
    await remembered(store, done, "d")
    found = await store.vaults_with_inbox()
    assert sorted(found, key=lambda vault: vault.number) == [vault, busy]


async def test_an_unknown_vault_is_empty_and_takes_nothing(store: Store, vault: VaultRef) -> None:
    unknown = VaultRef(number=VaultNumber(vault.number + 2), shard=vault.shard)
    image = await store.load_vault(unknown, model_id=MODEL)
    assert (image.memories, image.vectors, image.inbox, image.next_seq) == ([], {}, [], 1)
    with pytest.raises(NotFound):
        await accept(store, unknown, "a").wait_durable()


async def test_one_of_both_callbacks_tells_the_fate_before_any_waiter_runs(store: Store, vault: VaultRef) -> None:
    unknown = VaultRef(number=VaultNumber(vault.number + 2), shard=vault.shard)
    events: list[str] = []
    for reference, name in ((vault, "known"), (unknown, "unknown")):
        commit = store.accept_nowait(
            reference,
            [exchange("a")],
            on_durable=lambda _, name=name: events.append(f"{name} durable"),  # type: ignore[misc]  # bound default
            on_failed=lambda name=name: events.append(f"{name} failed"),  # type: ignore[misc]  # bound default
        )
        with suppress(NotFound):
            await commit.wait_durable()
        assert len(events) == 1 + (name == "unknown")
    assert events == ["known durable", "unknown failed"]


async def test_a_vault_is_found_only_in_its_own_shard(store: Store, vault: VaultRef) -> None:
    await stored(store, vault, "a")
    misplaced = VaultRef(number=vault.number, shard=1 - vault.shard)
    assert await texts_of(store, misplaced) == ([], [])
    with pytest.raises(NotFound):
        await accept(store, misplaced, "b").wait_durable()


async def test_a_failing_job_does_not_spoil_its_neighbours(store: Store, vault: VaultRef) -> None:
    unknown = VaultRef(number=VaultNumber(vault.number + 2), shard=vault.shard)
    before, failing, after = accept(store, vault, "a"), accept(store, unknown, "b"), accept(store, vault, "c")
    await after.wait_durable()
    assert before.durable
    assert not failing.durable
    with pytest.raises(NotFound):
        await failing.wait_durable()
    assert await texts_of(store, vault) == ([], ["a", "c"])


async def test_a_replaced_vault_is_empty_and_its_keys_open_the_new_one(store: Store, vault: VaultRef) -> None:
    await remembered(store, vault, "a")
    await stored(store, vault, "b")
    assert (await store.find_key(hash_key("mk_account"))).vault == vault  # type: ignore[union-attr]  # it exists
    new = await store.replace_vault(vault)
    assert new != vault
    found = await store.find_key(hash_key("mk_account"))
    assert found is not None
    assert found.vault == new
    for reference in (vault, new):
        assert await texts_of(store, reference) == ([], [])
    assert await store.vaults_with_inbox() == []
    await stored(store, new, "c")
    assert await texts_of(store, new) == ([], ["c"])


async def test_a_key_that_was_looked_up_is_known_at_once_for_as_long_as_it_is_live(
    store: Store, vault: VaultRef
) -> None:
    key_hash = hash_key("mk_account")
    assert store.find_key_nowait(hash_key("mk_nobody")) is None
    found = await store.find_key(key_hash)
    assert store.find_key_nowait(key_hash) == found
    new = await store.replace_vault(vault)
    known = store.find_key_nowait(key_hash)
    assert known is None or known.vault == new


async def test_a_replaced_vault_takes_nothing_any_more(store: Store, vault: VaultRef) -> None:
    await store.replace_vault(vault)
    commit = accept(store, vault, "late")
    with pytest.raises(NotFound):
        await commit.wait_durable()
    with pytest.raises(NotFound):
        await store.materialise(vault, step((), memory(1, "late"), next_seq=2))
    with pytest.raises(NotFound):
        await store.delete_memories(vault, [1])
    with pytest.raises(NotFound):
        await store.replace_vault(vault)


async def test_statistics_count_what_was_stored(store: Store, vault: VaultRef) -> None:
    await stored(store, vault, "a", "b")
    statistics = store.statistics()
    shards = statistics["shards"]
    assert sum(shard["rows"] for shard in shards) >= 2
    alarms = ("shards_damaged", "rows_damaged_on_load", "rows_damaged_in_scrub", "erasures_owed", "disk_full")
    assert not any(statistics[alarm] for alarm in alarms)
    assert not any(shard["damaged"] for shard in shards)
    assert sum(shard["batches"] for shard in shards) >= 1
    assert all(shard["queue_rows"] == 0 for shard in shards)


async def test_the_imprint_is_what_was_saved_last(store: Store, vault: VaultRef) -> None:
    assert await store.load_imprint(vault) is None
    await store.save_imprint(vault, [memoryview(b"one"), memoryview(b"two")])
    await store.save_imprint(vault, [memoryview(b""), memoryview(b"three")])
    assert await store.load_imprint(vault) == bytearray(b"three")
    await store.remove_imprint(vault)
    await store.remove_imprint(vault)
    assert await store.load_imprint(vault) is None


async def test_an_erased_vault_has_no_imprint_and_gets_none(store: Store, vault: VaultRef) -> None:
    await store.save_imprint(vault, [memoryview(b"words")])
    successor = await store.replace_vault(vault)
    assert await store.load_imprint(successor) is None
    with pytest.raises(NotFound):
        await store.load_imprint(vault)
    with pytest.raises(NotFound):
        await store.save_imprint(vault, [memoryview(b"words")])
    await store.remove_imprint(vault)
