"""Why a memory stands where it stands."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest

from actors.analysis import analyse
from actors.features import FEATURES
from actors.ranking import PREFERRED_SESSION_BONUS, WEIGHTS, explanation, rank
from actors.shortlist import rank_among
from actors.vault import Vault
from models.memory import Exchange, InboxRow, Message
from models.messages import Scope, Search
from tests.fakes.embedding import HashEmbedding

ENCODER = HashEmbedding(dims=32)
WHOLE = Scope()
SAID = [
    ("a", "My dog is called Rex."),
    ("b", "The dog next door barks all night."),
    ("b", "My cat is called Tom."),
    ("a", "my dog is called REX"),
    ("a", "It rained in Graz."),
]


@pytest.fixture
def vault() -> Vault:
    vault = Vault(dims=32, repeat_window_ms=0, relevance_min=0.0)
    vault.begin(created_ms=0, next_seq=1)
    messages = tuple(Message(role="user", content=text, session_id=session) for session, text in SAID)
    row = InboxRow(1, Exchange(messages=messages, source="upload", accepted_ms=1_000))
    for message in vault.begin_row(row):
        vault.add(row, message, analyse(message, ENCODER, 200))
    vault.end_row(row)
    while batch := vault.next_to_embed(chunks_max=100):
        for seq, texts in batch:
            vault.attach(seq, ENCODER.encode(texts).astype(np.float16))
    return vault


def question(text: str, scope: Scope = WHOLE, *, explain: bool = True) -> Search:
    vector = ENCODER.encode([text])[0].astype("<f4").tobytes()
    return Search(text=text, vector=vector, scope=scope, limit=10, now_ms=2_000, explain=explain)


def test_features_times_weights_are_the_order(vault: Vault) -> None:
    """Each with its place; of texts that say the same, the one returned has the features of the best."""
    hits = vault.search(question("What is my dog called?")).hits
    told = [hit.explanation for hit in hits if hit.explanation is not None]
    assert len(told) == len(hits) == len(SAID) - 1
    assert [one.rank for one in told] == [1, 2, 3, 4]
    assert [one.relevance for one in told] == [hit.score for hit in hits]
    assert all(tuple(one.features) == FEATURES and one.weights == WEIGHTS for one in told)
    sums = [sum(one.features[name] * one.weights[name] for name in one.features) for one in told]
    assert sums == sorted(sums, reverse=True)


def test_the_preferred_session_is_a_feature(vault: Vault) -> None:
    """Only where one is preferred."""
    hits = vault.search(question("dog", Scope(session_id="b", whole_vault=True))).hits
    for hit in hits:
        assert hit.explanation is not None
        assert hit.explanation.features["preferred_session"] == (hit.memory.session_id == "b")
        assert hit.explanation.weights["preferred_session"] == PREFERRED_SESSION_BONUS


def test_explaining_changes_nothing_else(vault: Vault) -> None:
    """And unasked, there is nothing."""
    plain = vault.search(question("dog", explain=False)).hits
    told = vault.search(question("dog")).hits
    assert plain == tuple(msgspec.structs.replace(hit, explanation=None) for hit in told)


def test_a_shortlist_explains_as_well(vault: Vault) -> None:
    """What was ranked among a few is told with the features that it had there."""
    query, arrays = vault.question(question("What is my dog called?"), limit=10, small_talk=True)
    everything = rank(query, arrays)
    among = rank_among(query, arrays, np.arange(len(SAID)))
    assert len(everything) == len(among)
    assert [explanation(among, place) for place in range(4)] == [explanation(everything, place) for place in range(4)]
