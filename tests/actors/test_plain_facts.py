"""What users tell and ask, with the real embedding model: the right fact comes first, and strangers get nothing."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from actors.analysis import analyse
from actors.ranking import RELEVANCE_LEAST
from actors.vault import Vault
from models.chunking import TOKENS_MAX
from models.embedding import TextEncoder, open_embedding_model
from models.memory import Exchange, InboxRow, Message
from models.messages import Recall, Scope, Search
from tests.actors.house import NOW_MS
from tests.actors.plain_facts import EXACT, FACTS, LIKED

DAY_MS = 86_400_000
VAULT_FACTS = 5


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> TextEncoder:
    return open_embedding_model(tmp_path_factory.mktemp("models"), threads=1)


def vault_of(texts: Sequence[str], encoder: TextEncoder) -> Vault:
    """A vault in which these were said, a day apart, the last one now."""
    vault = Vault(dims=encoder.dims, repeat_window_ms=600_000, relevance_min=RELEVANCE_LEAST)
    vault.begin(created_ms=0, next_seq=1)
    first_ms = NOW_MS - (len(texts) - 1) * DAY_MS
    messages = tuple(
        Message(role="user", content=text, timestamp_ms=first_ms + place * DAY_MS) for place, text in enumerate(texts)
    )
    row = InboxRow(row_id=1, exchange=Exchange(messages=messages, source="upload", accepted_ms=NOW_MS))
    memories = [vault.add(row, message, analyse(message, encoder, TOKENS_MAX)) for message in vault.begin_row(row)]
    vault.end_row(row)
    for memory, vector in zip(memories, encoder.encode(texts), strict=True):
        vault.attach(memory.seq, vector[None].astype("float16"))
    return vault


def found(vault: Vault, question: str, encoder: TextEncoder) -> list[str]:
    """What search finds, best first."""
    vector = encoder.encode([question])[0].astype("<f4").tobytes()
    search = Search(text=question, vector=vector, scope=Scope(), limit=10, now_ms=NOW_MS)
    return [hit.memory.content for hit in vault.search(search).hits]


def recalled(vault: Vault, question: str, encoder: TextEncoder) -> list[str]:
    """What enters a context."""
    vector = encoder.encode([question])[0].astype("<f4").tobytes()
    recall = Recall(text=question, vector=vector, scope=Scope(), chunks_max=30, now_ms=NOW_MS)
    return [hit.memory.content for hit in vault.recall(recall).hits]


def everything() -> list[str]:
    """All facts, and what only looks like them."""
    told = [fact for fact, _ in FACTS]
    for _, right, others in (*EXACT, *LIKED):
        told += [others[0], right, *others[1:]]
    return told


def test_what_is_wanted_word_for_word_comes_first(encoder: TextEncoder) -> None:
    """Quoted phrases, order numbers, identifiers, addresses, versions, beside texts with the same words."""
    vault = vault_of(everything(), encoder)
    assert [found(vault, question, encoder)[0] for question, _, _ in EXACT] == [right for _, right, _ in EXACT]


def test_what_somebody_likes_is_among_the_first_three(encoder: TextEncoder) -> None:
    vault = vault_of(everything(), encoder)
    missed = [question for question, right, _ in LIKED if right not in found(vault, question, encoder)[:3]]
    assert missed == []


def test_few_facts_answer_their_questions_and_no_others(encoder: TextEncoder) -> None:
    """In a vault of five facts, each question gets its fact first; of strangers' questions, nine in ten get nothing."""
    strangers = nothing = 0
    for start in range(0, len(FACTS), VAULT_FACTS):
        own = FACTS[start : start + VAULT_FACTS]
        vault = vault_of([fact for fact, _ in own], encoder)
        for fact, question in own:
            assert recalled(vault, question, encoder)[:1] == [fact], question
        for fact, question in FACTS:
            if (fact, question) not in own:
                strangers += 1
                nothing += not recalled(vault, question, encoder)
    assert nothing >= 0.9 * strangers


def test_the_newest_statement_of_a_fact_that_changed_is_there_with_the_old_one(encoder: TextEncoder) -> None:
    """Both are recalled, each with its own time: who reads them can tell which one holds."""
    told = ["I live in Graz, near the river.", *(fact for fact, _ in FACTS), "I live in Linz now, no longer in Graz."]
    question = "Where do I live?"
    vector = encoder.encode([question])[0].astype("<f4").tobytes()
    recall = Recall(text=question, vector=vector, scope=Scope(), chunks_max=30, now_ms=NOW_MS)
    times = {hit.memory.content: hit.memory.timestamp_ms for hit in vault_of(told, encoder).recall(recall).hits}
    assert times[told[-1]] == NOW_MS
    assert times[told[0]] == NOW_MS - (len(told) - 1) * DAY_MS
