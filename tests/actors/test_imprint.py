"""An imprint against reading everything anew: whatever happened to the log since, the vault is the same."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors import imprint
from actors.catalogue import Catalogue
from actors.imprint import ImprintSource, decoded, restored
from actors.vault import Vault
from models.memory import Memory
from models.messages import Scope, Search
from tests.actors.house import NOW_MS

WINDOW_MS = 600_000
TEXTS = ["alpha beta", "Alpha, beta!", "gamma delta gamma", "the of and", "epsilon", "Δέλτα 東京タワー 1,200.5"]

memories = st.builds(
    Memory,
    seq=st.just(0),
    role=st.sampled_from(["user", "assistant"]),
    content=st.sampled_from(TEXTS),
    timestamp_ms=st.integers(0, 3),
    timestamp_given=st.booleans(),
    stored_ms=st.integers(0, 3),
    source=st.just("upload"),
    tokens=st.integers(0, 9),
    spans=st.sampled_from([(), ((0, 6),), ((0, 3), (2, 6))]),
    session_id=st.sampled_from([None, "s", "t"]),
    external_id=st.sampled_from([None, None, "x"]),
    metadata=st.sampled_from([None, {"deep": [1, None]}]),
    small_talk=st.booleans(),
)


def numbered(contents: Sequence[Memory], *, first: int = 1) -> list[Memory]:
    """Every other seq, as if others had been deleted."""
    return [msgspec.structs.replace(one, seq=first + 2 * place) for place, one in enumerate(contents)]


def read_anew(log: Sequence[Memory]) -> Vault:
    vault = Vault(dims=8, repeat_window_ms=WINDOW_MS, relevance_min=0.2)
    for memory in log:
        vault.load(memory, embedded=True)
    return vault


def data_of(source: ImprintSource) -> bytes:
    return b"".join(source.encoded())


def hydrated(data: bytes, log: Sequence[Memory]) -> tuple[Vault, int]:
    """A vault as hydration makes it of an imprint and the log, and how many memories came of the imprint."""
    vault = Vault(dims=8, repeat_window_ms=WINDOW_MS, relevance_min=0.2)
    first = restored(data, log, next_seq=9_999, repeat_window_ms=WINDOW_MS)
    if first is not None:
        vault.take_over(first)
    count = first.count if first else 0
    for memory in log[count:]:
        vault.load(memory, embedded=True)
    return vault, count


def columns_of(catalogue: Catalogue) -> list[list[int]]:
    """What ranking reads of it, without what is remembered of that."""
    arrays = msgspec.structs.astuple(catalogue.arrays())
    return [column.tolist() for column in arrays if isinstance(column, np.ndarray)]


def state(vault: Vault) -> dict[str, Any]:
    """All that memories leave in a vault, comparable."""
    catalogue, lexicon, known = vault._catalogue, vault._lexicon, vault._known
    return {
        "arrays": columns_of(catalogue),
        "columns": [
            column.view.tolist()
            for column in (catalogue._seq, catalogue._small_talk, catalogue._alive, catalogue._first_chunk)
        ],
        "sessions": {
            key: (session.number, session.order, session.chunks, session.tokens)
            for key, session in catalogue._sessions.items()
        },
        "counts": (catalogue.count(None), catalogue.placed, vault.nbytes, len(vault._index)),
        "postings": {
            term: postings if isinstance(postings, int) else list(postings)
            for term, postings in lexicon._postings.items()
        },
        "lexicon": (
            (len(lexicon), lexicon._alive_count, lexicon._terms_total),
            (lexicon._postings_count, lexicon._arrays_count),
        ),
        "lengths": lexicon._lengths[: len(lexicon)].tolist(),
        "known": (known._external_ids, known._timed, known._stored_ms, known._untimed),
    }


def found(vault: Vault, text: str) -> list[tuple[int, float]]:
    query = Search(text=text, vector=b"", scope=Scope(), limit=99, now_ms=NOW_MS)
    return [(hit.memory.seq, hit.score) for hit in vault.search(query).hits]


@given(
    st.lists(memories, max_size=12),
    st.lists(memories, max_size=5),
    st.sets(st.integers(0, 11)),
    st.sets(st.integers(0, 11)),
    st.none() | st.tuples(st.integers(0, 11), memories),
    st.booleans(),
)
def test_a_vault_of_an_imprint_and_the_log_is_that_of_the_log_alone(
    before: list[Memory],
    later: list[Memory],
    forgotten_before: set[int],
    deleted_after: set[int],
    replaced: tuple[int, Memory] | None,
    purged: bool,
) -> None:
    log = numbered(before)
    old = read_anew(log)
    for place in forgotten_before & set(range(len(log))):
        old.forget(log[place].seq)
    while purged and not old.purge():
        pass
    data = data_of(old.imprint_source())
    log = [one for place, one in enumerate(log) if place not in forgotten_before | deleted_after]
    if replaced is not None and replaced[0] < len(log):  # the log of another life, with another memory of this seq
        log[replaced[0]] = msgspec.structs.replace(replaced[1], seq=log[replaced[0]].seq)
    log += numbered(later, first=100)
    vault, _ = hydrated(data, log)
    scratch = read_anew(log)
    assert state(vault) == state(scratch)
    more = numbered(before[:2], first=1_001)
    for memory in more:
        vault.load(memory, embedded=True)
        scratch.load(memory, embedded=True)
    for memory in (log + more)[::2]:
        vault.forget(memory.seq)
        scratch.forget(memory.seq)
    for text in TEXTS:
        assert found(vault, text) == found(scratch, text)
    assert columns_of(vault._catalogue) == columns_of(scratch._catalogue)


def some(*texts: str) -> list[Memory]:
    return [
        Memory(
            seq=seq, role="user", content=text, timestamp_ms=seq, stored_ms=seq, source="proxy", spans=((0, len(text)),)
        )
        for seq, text in enumerate(texts, 1)
    ]


def test_all_that_is_as_it_was_comes_from_the_imprint() -> None:
    log = some("one", "two", "three")
    data = data_of(read_anew(log).imprint_source())
    assert hydrated(data, log)[1] == 3
    assert hydrated(data, [*log[:1], *log[2:]])[1] == 2
    assert hydrated(data, [log[0], msgspec.structs.replace(log[1], content="TWO"), log[2]])[1] == 1


def test_what_the_log_lost_makes_an_imprint_outdated() -> None:
    log = some("one", "two", "three")
    data = data_of(read_anew(log).imprint_source())
    first = restored(data, log, next_seq=9_999, repeat_window_ms=WINDOW_MS)
    assert first is not None
    assert not first.outdated
    first = restored(data, log[1:], next_seq=4, repeat_window_ms=WINDOW_MS)
    assert first is not None
    assert first.outdated


def test_what_is_not_in_the_log_yet_makes_no_imprint_outdated() -> None:
    """It was copied before its last memories were written, and they will be."""
    log = some("one", "two", "three")
    data = data_of(read_anew(log).imprint_source())
    first = restored(data, log[:2], next_seq=3, repeat_window_ms=WINDOW_MS)
    assert first is not None
    assert (first.count, first.outdated) == (2, False)


def test_an_imprint_is_of_the_moment_in_which_it_was_copied() -> None:
    """A thread makes it while turns go on."""
    log = some("alpha one", "alpha two", "alpha three")
    vault = read_anew(log)
    source = vault.imprint_source()
    vault.forget(2)
    vault.purge()
    for memory in some("", "", "", "alpha four", "five")[3:]:
        vault.load(memory, embedded=True)
    made, count = hydrated(data_of(source), log)
    assert count == 3
    assert state(made) == state(read_anew(log))


def test_no_word_of_a_deleted_memory_is_in_an_imprint() -> None:
    vault = read_anew(some("alpha", "secretword stays nowhere"))
    assert b"secretword" in data_of(vault.imprint_source())
    vault.forget(2)
    assert b"secretword" not in data_of(vault.imprint_source())


def test_an_imprint_of_other_rules_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    log = some("one")
    data = data_of(read_anew(log).imprint_source())
    assert decoded(data) is not None
    monkeypatch.setattr(imprint, "RULES", bytes(16))
    assert decoded(data) is None
    assert hydrated(data, log)[1] == 0


@pytest.mark.parametrize("size", [0, 3, 4, 40, -1])
def test_an_imprint_that_is_cut_is_not_used(size: int) -> None:
    data = data_of(read_anew(some("one", "two")).imprint_source())
    assert decoded(data[:size]) is None
    assert decoded(data + b"\0") is None


def test_an_empty_vault_has_an_imprint_of_nothing() -> None:
    data = data_of(read_anew([]).imprint_source())
    empty = decoded(data)
    assert empty is not None
    assert len(empty.seqs) == len(empty.postings.packed) == 0
    assert hydrated(data, some("one"))[1] == 0
    assert np.array_equal(empty.marks, np.zeros(0, np.uint64))
