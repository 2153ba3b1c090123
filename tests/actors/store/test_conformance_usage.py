"""What every store promises of usage, run on each implementation."""

from __future__ import annotations

from actors.store.protocol import Store
from models.usage import UsageCount
from tests.actors.store.samples import new_account, new_vault


def count(key: int = 1, *, day: int = 20_000, account: int = 1, model: str = "", **numbers: int) -> UsageCount:
    return UsageCount(key_number=key, account_number=account, day=day, model=model, **numbers)


async def load(store: Store, *, account: int = 1, key: int | None = None) -> list[UsageCount]:
    return await store.load_usage(account, key_number=key, first_day=19_000, last_day=21_000)


async def test_counts_of_the_same_key_day_and_model_add_up(store: Store) -> None:
    await new_account(store)
    first = count(requests=1, tokens_retrieved=5, latency_ms_sum=3)
    await store.fold_usage("a", 1, [first, count(model="m", requests=7)], {})
    await store.fold_usage("a", 2, [count(requests=2, memories_stored=4, errors=1)], {})

    assert await load(store) == [
        count(requests=3, tokens_retrieved=5, latency_ms_sum=3, memories_stored=4, errors=1),
        count(model="m", requests=7),
    ]


async def test_every_number_is_kept(store: Store) -> None:
    await new_account(store)
    whole = count(
        model="m", requests=1, memories_stored=2, tokens_retrieved=3, tokens_injected=4, tokens_billed=5,
        input_tokens=6, output_tokens=7, errors=8, latency_ms_sum=9,
    )  # fmt: skip
    await store.fold_usage("a", 1, [whole], {})
    assert await load(store) == [whole]


async def test_a_file_counts_once_and_another_journals_number_is_another_file(store: Store) -> None:
    await new_account(store)
    for journal, number in (("a", 1), ("a", 1), ("b", 1), ("a", 2), ("b", 1)):
        await store.fold_usage(journal, number, [count(requests=1)], {})

    assert [found.requests for found in await load(store)] == [3]


async def test_counts_are_found_by_account_key_and_day(store: Store) -> None:
    await new_account(store)
    await new_account(store, "mk_second")
    await store.fold_usage(
        "a",
        1,
        [
            count(1, requests=1),
            count(3, requests=2),
            count(2, account=2, requests=4),
            count(1, day=18_999, requests=8),
            count(1, day=21_001, requests=16),
            count(1, day=21_000, requests=32),
        ],
        {},
    )

    assert [found.requests for found in await load(store)] == [1, 2, 32]
    assert [found.requests for found in await load(store, key=3)] == [2]
    assert [found.requests for found in await load(store, account=2)] == [4]
    assert await load(store, account=2, key=1) == []


async def test_a_key_remembers_its_latest_use(store: Store) -> None:
    await new_account(store)
    await new_vault(store, "mk_user")
    await store.fold_usage("a", 1, [], {2: 60_000, 99: 60_000})
    await store.fold_usage("a", 2, [], {2: 30_000})
    await store.fold_usage("a", 2, [], {2: 90_000})

    assert [key.last_used_ms for key in await store.list_keys()] == [None, 60_000]


async def test_old_counts_can_be_deleted(store: Store) -> None:
    await new_account(store)
    await store.fold_usage("a", 1, [count(day=day, requests=1) for day in (19_998, 19_999, 20_000)], {})
    await store.prune_usage(before_day=19_999)

    assert [found.day for found in await load(store)] == [19_999, 20_000]
