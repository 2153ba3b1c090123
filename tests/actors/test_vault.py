"""A vault: what it makes of rows, what it hands out to embed and to write, what reads find."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from actors.analysis import analyse, unanalysed
from actors.vault import Vault
from models.memory import LOCAL_RECALL_MODEL, Exchange, InboxRow, Memory, Message
from models.messages import Hit, Recall, Scope, Search
from tests.actors.house import NOW_MS, message
from tests.fakes.embedding import HashEmbedding

ENCODER = HashEmbedding(dims=32)
LONG = ". ".join(f"Sentence {number} speaks of topic{number} and of nothing else" for number in range(8)) + "."


def new_vault() -> Vault:
    vault = Vault(dims=32, repeat_window_ms=600_000, relevance_min=0.2)
    vault.begin(created_ms=NOW_MS, next_seq=1)
    return vault


def row_of(row_id: int, *messages: Message, **fields: Any) -> InboxRow:
    return InboxRow(row_id, Exchange(messages=messages, **{"source": "proxy", "accepted_ms": NOW_MS, **fields}))


def take(vault: Vault, row: InboxRow) -> list[Memory]:
    new = vault.begin_row(row)
    memories = [vault.add(row, one, analyse(one, ENCODER, 20)) for one in new]
    vault.end_row(row)
    return memories


def vectors(texts: list[str]) -> NDArray[np.float16]:
    return ENCODER.encode(texts).astype(np.float16)


def embed(vault: Vault) -> None:
    """Embed all that waits."""
    while batch := vault.next_to_embed(chunks_max=4):
        for seq, texts in batch:
            vault.attach(seq, vectors(texts))


def forget(vault: Vault, session_id: str) -> None:
    vault.know_again([vault.forget(seq) for seq in vault.session_seqs(session_id)])


def search(vault: Vault, text: str, *, by_meaning: bool = False, limit: int = 100, **scope: Any) -> tuple[Hit, ...]:
    vector = ENCODER.encode([text])[0].tobytes() if by_meaning else b""
    return vault.search(Search(text=text, vector=vector, scope=Scope(**scope), limit=limit, now_ms=NOW_MS)).hits


def recall(vault: Vault, text: str, *, chunks_max: int = 30) -> list[str]:
    query = Recall(
        text=text, vector=ENCODER.encode([text])[0].tobytes(), scope=Scope(), chunks_max=chunks_max, now_ms=NOW_MS
    )
    return [hit.memory.content for hit in vault.recall(query).hits]


def test_a_memory_keeps_what_the_message_and_its_exchange_said() -> None:
    vault = new_vault()
    given = message("I live in Porto", timestamp_ms=5, session_id="s", external_id="x", metadata={"a": 1})
    memory, reply = take(
        vault, row_of(7, given, message("Nice", role="assistant"), model="m", request_id="r", source="ingest")
    )
    assert memory == Memory(
        seq=1,
        role="user",
        content="I live in Porto",
        timestamp_ms=5,
        timestamp_given=True,
        stored_ms=NOW_MS,
        source="ingest",
        tokens=4,
        spans=((0, 15),),
        session_id="s",
        model="m",
        external_id="x",
        metadata={"a": 1},
        request_id="r",
    )
    assert (reply.seq, reply.timestamp_ms, reply.timestamp_given) == (2, NOW_MS, False)


def test_words_are_found_before_anything_is_embedded() -> None:
    vault = new_vault()
    take(vault, row_of(1, message("The wifi password is swordfish"), message("My cat is called Ada")))
    assert vault.pending == 2
    assert search(vault, "swordfish")[0].memory.content == "The wifi password is swordfish"
    assert recall(vault, "what is the wifi password")[0] == "The wifi password is swordfish"


def test_meaning_is_found_once_vectors_are_attached() -> None:
    vault = new_vault()
    for row_id, text in enumerate(["tea and biscuits", "a red bicycle", "the long train ride"], start=1):
        take(vault, row_of(row_id, message(text)))
    embed(vault)
    assert vault.pending == 0
    hits = vault.search(
        Search(text="", vector=ENCODER.encode(["red bicycle"])[0].tobytes(), scope=Scope(), limit=1, now_ms=NOW_MS)
    ).hits
    assert [hit.memory.content for hit in hits] == ["a red bicycle"]


def test_the_chunk_that_matches_is_the_one_shown() -> None:
    vault = new_vault()
    (memory,) = take(vault, row_of(1, message(LONG)))
    assert len(memory.spans) > 2
    embed(vault)
    for by_meaning in (False, True):
        (hit,) = search(vault, "topic5", by_meaning=by_meaning)
        assert "topic5" in hit.matched
        assert "topic1 " not in hit.matched
        assert hit.memory.content == LONG


def test_what_is_not_relevant_is_not_recalled_but_can_be_searched() -> None:
    vault = new_vault()
    take(vault, row_of(1, message("The wifi password is swordfish")))
    embed(vault)
    assert recall(vault, "quarterly tax declaration forms") == []
    assert len(search(vault, "quarterly tax declaration forms", by_meaning=True)) == 1


def test_small_talk_can_be_searched_and_takes_no_place_in_a_context() -> None:
    vault = new_vault()
    take(vault, row_of(1, message("thanks!"), message("thanks to my sister Mia I ride horses")))
    embed(vault)
    assert recall(vault, "thanks") == ["thanks to my sister Mia I ride horses"]
    assert {hit.memory.content for hit in search(vault, "thanks")} == {
        "thanks!",
        "thanks to my sister Mia I ride horses",
    }


def test_replies_of_local_recall_are_stored_and_never_found() -> None:
    """They quote memories; recalling them would only repeat those."""
    vault = new_vault()
    exchange = (message("where do I live?"), message("You said: I live in Porto", role="assistant"))
    question, reply = take(vault, row_of(1, *exchange, model=LOCAL_RECALL_MODEL))
    assert question.spans
    assert reply.spans == ()
    embed(vault)
    assert [hit.memory.seq for hit in search(vault, "Porto live", by_meaning=True)] == [question.seq]
    assert vault.stats(None).memories == 2
    assert vault.pending == 0


def test_of_identical_texts_the_newest_is_shown() -> None:
    vault = new_vault()
    take(vault, row_of(1, message("I moved to Lisbon", timestamp_ms=1_000)))
    take(vault, row_of(2, message("I moved to Lisbon!", timestamp_ms=9_000)))
    take(vault, row_of(3, message("I moved to lisbon", timestamp_ms=5_000)))
    assert [hit.memory.timestamp_ms for hit in search(vault, "Lisbon")] == [9_000]


def test_scopes() -> None:
    vault = new_vault()
    take(vault, row_of(1, message("plain apples"), message("apples in a", session_id="a")))
    take(vault, row_of(2, message("apples in b", session_id="b")))

    def texts(**scope: Any) -> list[str]:
        return sorted(hit.memory.content for hit in search(vault, "apples", **scope))

    assert texts() == ["apples in a", "apples in b", "plain apples"]
    assert texts(session_id="a") == ["apples in a"]
    assert texts(session_id="nobody") == []
    assert texts(session_id="a", whole_vault=True) == ["apples in a", "apples in b", "plain apples"]
    assert texts(sessionless_only=True) == ["plain apples"]


@pytest.mark.parametrize("session", ["anna", "bert", "cleo"])
def test_the_whole_vault_is_read_with_a_preference_for_the_named_session(session: str) -> None:
    vault = new_vault()
    for row_id, name in enumerate(["anna", "bert", "cleo"], start=1):
        take(vault, row_of(row_id, message(f"apples are fine, {name}", session_id=name)))
    hits = search(vault, "apples", session_id=session, whole_vault=True)
    assert hits[0].memory.session_id == session
    assert hits[0].score > hits[1].score


def test_without_a_session_the_whole_vault_has_no_preference() -> None:
    """Memories without a session are no session of their own."""
    vault = new_vault()
    take(vault, row_of(1, message("apples are fine, a"), message("apples are fine, b", session_id="b")))
    scores = {hit.score for hit in search(vault, "apples", whole_vault=True)}
    assert scores == {hit.score for hit in search(vault, "apples")}


def test_texts_to_embed_are_handed_out_once_and_in_order() -> None:
    vault = new_vault()
    take(vault, row_of(1, *(message(f"text {number}") for number in range(5))))
    first = vault.next_to_embed(chunks_max=2)
    second = vault.next_to_embed(chunks_max=2)
    third = vault.next_to_embed(chunks_max=2)
    assert [[seq for seq, _ in batch] for batch in (first, second, third)] == [[1, 2], [3, 4], [5]]
    assert vault.next_to_embed(chunks_max=2) == []
    assert vault.pending == 5


def test_a_text_of_many_chunks_is_handed_out_whole() -> None:
    vault = new_vault()
    (memory,) = take(vault, row_of(1, message(LONG)))
    ((seq, texts),) = vault.next_to_embed(chunks_max=1)
    assert (seq, texts) == (memory.seq, memory.chunk_texts())


def test_a_row_is_written_when_all_its_memories_are_embedded() -> None:
    vault = new_vault()
    one, two = take(vault, row_of(1, message("one thing"), message("two things")))
    assert vault.take_step("m") is None
    vault.attach(two.seq, vectors(["two things"]))
    assert vault.take_step("m") is None
    vault.attach(one.seq, vectors(["one thing"]))
    step = vault.take_step("m")
    assert step is not None
    assert (step.row_ids, step.memories, step.next_seq, step.model_id) == ((1,), (one, two), 3, "m")
    assert sorted(step.vectors) == [1, 2]
    assert vault.take_step("m") is None


def test_rows_are_written_in_the_order_of_the_log() -> None:
    vault = new_vault()
    (one,) = take(vault, row_of(1, message("one thing")))
    (two,) = take(vault, row_of(2, message("two things")))
    vault.attach(two.seq, vectors(["two things"]))
    assert vault.take_step("m") is None
    vault.attach(one.seq, vectors(["one thing"]))
    step = vault.take_step("m")
    assert step is not None
    assert step.row_ids == (1, 2)


def test_a_step_says_with_which_seq_a_later_incarnation_goes_on() -> None:
    """Rows that are not written yet are taken in again then, and must get the same seqs."""
    vault = new_vault()
    (one,) = take(vault, row_of(1, message("one thing")))
    take(vault, row_of(2, message("two things")))
    vault.attach(one.seq, vectors(["one thing"]))
    step = vault.take_step("m")
    assert step is not None
    assert (step.row_ids, step.next_seq) == ((1,), 2)


def test_an_unfinished_row_can_be_written_without_its_vectors_and_they_follow() -> None:
    vault = new_vault()
    (one,) = take(vault, row_of(1, message("one thing")))
    step = vault.take_step("m", unfinished=True)
    assert step is not None
    assert (step.memories, step.vectors) == ((one,), {})
    vault.attach(one.seq, vectors(["one thing"]))
    step = vault.take_step("m")
    assert step is not None
    assert (step.row_ids, step.memories, list(step.vectors)) == ((), (), [1])


def test_a_row_that_adds_nothing_is_taken_out_of_the_inbox() -> None:
    vault = new_vault()
    take(vault, row_of(1, message("one thing")))
    embed(vault)
    vault.take_step("m")
    take(vault, row_of(2, message("one thing")))
    step = vault.take_step("m")
    assert step is not None
    assert (step.row_ids, step.memories, step.next_seq) == ((2,), (), 2)


def test_a_row_in_progress_is_not_written() -> None:
    vault = new_vault()
    row = row_of(1, message("ok"), message("fine"))
    new = vault.begin_row(row)
    vault.add(row, new[0], analyse(new[0], ENCODER, 20))
    embed(vault)
    assert vault.take_step("m", unfinished=True) is None
    vault.add(row, new[1], analyse(new[1], ENCODER, 20))
    vault.end_row(row)
    embed(vault)
    step = vault.take_step("m")
    assert step is not None
    assert len(step.memories) == 2


def test_a_memory_that_cannot_be_embedded_is_written_without_vectors() -> None:
    vault = new_vault()
    (one,) = take(vault, row_of(1, message("one strange thing")))
    vault.attach(one.seq, np.zeros((0, 32), np.float16))
    step = vault.take_step("m")
    assert step is not None
    assert (step.memories, step.vectors) == ((one,), {})
    assert vault.pending == 0
    assert search(vault, "strange", by_meaning=True)[0].memory == one


def test_a_loaded_vault_reads_like_the_one_that_was_stored() -> None:
    vault = new_vault()
    memories = take(vault, row_of(1, message(LONG), message("a short note", session_id="s"), message("ok")))
    embed(vault)
    step = vault.take_step("m")
    assert step is not None
    loaded = Vault(dims=32, repeat_window_ms=600_000, relevance_min=0.2)
    loaded.begin(created_ms=NOW_MS, next_seq=step.next_seq)
    for memory in memories:
        loaded.load(memory, embedded=True)
    loaded.fill(step.vectors)
    for text in ("topic3", "short note", "ok"):
        assert search(loaded, text, by_meaning=True) == search(vault, text, by_meaning=True)
    assert loaded.stats(None) == vault.stats(None)
    assert loaded.stats("s") == vault.stats("s")


@pytest.mark.parametrize("rows", [0, 1])
def test_a_memory_without_all_its_vectors_is_embedded_again(rows: int) -> None:
    vault = new_vault()
    memory = Memory(
        seq=1, role="user", content="a b", timestamp_ms=1, stored_ms=1, source="proxy", spans=((0, 1), (2, 3))
    )
    vault.load(memory, embedded=False)
    assert not vault.wants(1, rows)
    assert vault.next_to_embed(chunks_max=9) == [(1, ["a", "b"])]


def test_what_is_forgotten_is_nowhere() -> None:
    vault = new_vault()
    take(vault, row_of(1, message(LONG, session_id="s"), message("a plain note")))
    vault.next_to_embed(chunks_max=1)
    forget(vault, "s")
    vault.attach(1, vectors([LONG] * 5))  # its vectors were on their way
    assert [hit.memory.content for hit in search(vault, "topic3 note", by_meaning=True)] == ["a plain note"]
    assert vault.session_seqs("s") == []
    assert (vault.stats("s").memories, vault.stats(None).memories, vault.pending) == (0, 1, 1)
    embed(vault)
    step = vault.take_step("m")
    assert step is not None
    assert (step.row_ids, [memory.seq for memory in step.memories], list(step.vectors)) == ((1,), [2], [2])


def test_forgotten_texts_are_not_handed_out_to_embed() -> None:
    vault = new_vault()
    take(vault, row_of(1, message("one thing", session_id="s"), message("another")))
    forget(vault, "s")
    assert [seq for seq, _ in vault.next_to_embed(chunks_max=9)] == [2]


def test_stats_count_the_vault_and_a_session() -> None:
    vault = new_vault()
    take(vault, row_of(1, message("one two three", session_id="a", timestamp_ms=7), message("four", timestamp_ms=3)))
    take(vault, row_of(2, message("one two three", session_id="a", timestamp_ms=7), message("five", session_id="b")))
    whole, part = vault.stats(None), vault.stats("a")
    assert (whole.memories, whole.chunks, whole.pending, whole.sessions, whole.duplicates) == (3, 3, 3, 2, 1)
    assert (whole.tokens, whole.oldest_ms, whole.newest_ms, whole.created_ms) == (5, 3, NOW_MS, NOW_MS)
    assert (part.memories, part.chunks, part.pending, part.sessions, part.tokens) == (1, 1, 1, 1, 3)
    assert (part.oldest_ms, part.newest_ms) == (7, 7)
    assert vault.stats("nobody").memories == 0


def test_the_size_grows_with_what_is_stored_and_shrinks_when_it_is_forgotten() -> None:
    vault = new_vault()
    empty = vault.nbytes
    take(vault, row_of(1, message("x" * 10_000, session_id="s")))
    full = vault.nbytes
    assert full - empty >= 10_000
    forget(vault, "s")
    assert full - vault.nbytes >= 10_000


def test_rows_come_in_the_order_of_the_log() -> None:
    vault = new_vault()
    take(vault, row_of(5, message("one")))
    with pytest.raises(AssertionError):
        vault.begin_row(row_of(5, message("two")))
    assert vault.last_row_id == 5


def test_a_text_that_the_tokeniser_cannot_read_is_one_chunk_with_all_its_words() -> None:
    analysis = unanalysed("Three small words")
    assert analysis.spans == ((0, 17),)
    assert len(analysis.chunk_terms[0]) == 3
