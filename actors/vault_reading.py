"""What a vault answers to questions: ranks its memories and shows those that are found. Changes nothing.

Owns which memories a read may see and how a hit looks. It reads what the vault keeps up, so an answer is of the moment
in which it is asked for. Synchronous; may run in a thread while the vault waits for it.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import repeat

import numpy as np
from numpy.typing import NDArray

from actors.catalogue import Catalogue
from actors.describing import describing
from actors.lexicon import Lexicon
from actors.ranking import Ranked, explanation, is_relevant
from actors.ranking_inputs import RankQuery, VaultArrays
from actors.segmented_index import SegmentedIndex
from actors.shortlist import rank_vault
from models.memory import Memory
from models.messages import Found, Hit, Recall, Recalled, Search
from models.traits import exact_of, wants_of
from models.words import terms


class VaultReader:
    """Reads one vault's catalogue, lexicon and index."""

    __slots__ = ("_catalogue", "_index", "_lexicon", "_model_id", "_relevance_min", "_screens")

    def __init__(
        self,
        catalogue: Catalogue,
        lexicon: Lexicon,
        index: SegmentedIndex,
        *,
        model_id: str,
        relevance_min: float,
        screens: bool,
    ) -> None:
        """Make one.

        Args:
            model_id: of the vectors in the index.
            relevance_min: probability below which nothing is recalled.
            screens: whether memories that look planted stay out of contexts.
        """
        self._catalogue = catalogue
        self._lexicon = lexicon
        self._index = index
        self._model_id = model_id
        self._relevance_min = relevance_min
        self._screens = screens

    def of(self, catalogue: Catalogue, lexicon: Lexicon) -> VaultReader:
        """A reader of other records, that is otherwise the same."""
        return VaultReader(
            catalogue,
            lexicon,
            self._index,
            model_id=self._model_id,
            relevance_min=self._relevance_min,
            screens=self._screens,
        )

    def recall(self, query: Recall) -> Recalled:
        """Chunks worth putting into a context, best first; none at all when no memory is relevant."""
        ranked = self._rank(query, limit=query.chunks_max, small_talk=False)
        relevant = is_relevant(ranked, least=self._relevance_min)
        return Recalled(hits=tuple(self._hits(ranked, np.flatnonzero(relevant), neighbours=True)))

    def search(self, query: Search) -> Found:
        """Memories, best first, up to the limit."""
        ranked = self._rank(query, limit=query.limit, small_talk=True)
        return Found(hits=tuple(self._hits(ranked, np.arange(len(ranked)), neighbours=False)))

    def question(self, query: Recall | Search, *, limit: int, small_talk: bool) -> tuple[RankQuery, VaultArrays]:
        """The question as it meets this vault, without its dense leg, and the vault as ranking sees it."""
        scope = query.scope
        prefers = scope.whole_vault and scope.session_id is not None
        match = self._lexicon.match(terms(query.text))
        asked = RankQuery(
            lexical=match,
            dense=None,
            eligible=self._catalogue.eligible(scope, small_talk=small_talk, flagged=small_talk or not self._screens),
            limit=limit,
            preferred_session=self._catalogue.session_number(scope.session_id) if prefers else None,
            wants=wants_of(query.text),
            describe=describing(self._catalogue, match, exact_of(query.text)),
            intervals=query.intervals,
            explain=query.explain,
        )
        return asked, self._catalogue.arrays()

    def _rank(self, query: Recall | Search, *, limit: int, small_talk: bool) -> Ranked:
        vector = np.frombuffer(query.vector, dtype="<f4")
        if query.model_id not in (None, self._model_id):
            vector = vector[:0]  # the vault has moved to another model since the question was embedded
        asked, arrays = self.question(query, limit=limit, small_talk=small_talk)
        return rank_vault(asked, arrays, self._index, vector)

    def _hits(self, ranked: Ranked, places: NDArray[np.intp], *, neighbours: bool) -> Iterator[Hit]:
        positions = ranked.memories[places]
        beside = self._catalogue.beside(positions) if neighbours else repeat((None, None))
        ordinals = ranked.chunks[places] - self._catalogue.first_chunks(positions)
        columns = (places, positions, ordinals, ranked.scores[places])
        for (place, position, ordinal, score), (before, after) in zip(
            zip(*(column.tolist() for column in columns), strict=True), beside, strict=False
        ):
            memory = self._catalogue.at(position)
            start, end = memory.spans[ordinal]
            yield Hit(
                memory=memory,
                matched=memory.content[start:end],
                score=score,
                before=self._unless_screened(before),
                after=self._unless_screened(after),
                explanation=explanation(ranked, place) if ranked.explained else None,
            )

    def _unless_screened(self, memory: Memory | None) -> Memory | None:
        return None if self._screens and memory is not None and memory.flags else memory
