"""How much of the answer survives packing, and how many tokens it costs: at each density and within token budgets.

    python -m bench.packing locomo.json beam.json --cache DIR [--every N]

Reads files as `bench.recall_quality` does, recalls with the product's ranking without the cut-off, and packs in two
ways: *as hits*, an entry for each hit up to the cap, and within a budget the best until the first that does not fit;
*product*, turns that followed each other in one entry, within a budget whatever fits, and with the short neighbours
that make a hit understood. `gold` is the share of the gold turns that are in the context, `any` and `all` of questions
that have one of them, or every one. Tokens are those of the rendered text.
"""

from __future__ import annotations

import argparse
import sys
from collections import defaultdict
from collections.abc import Iterator, Sequence
from datetime import UTC
from pathlib import Path
from statistics import mean

import msgspec

from bench._examples import embedded, open_vault, read
from bench._options import data_options, run_benchmark
from bench._results import Table
from bench.recall_quality import VaultData
from models.embedding import EmbeddingModel, open_embedding_model
from models.memory_settings import RecallSettings
from models.messages import Hit, Recall, Scope
from models.packing import Entry, Piece, pack
from models.time_intervals import time_intervals
from router.recalling import ContextTokens

BUDGETS = (250, 500, 1_000, 2_000, 4_000)


class Packed(msgspec.Struct, frozen=True):
    """What became of one question."""

    gold: float
    any: bool
    all: bool
    tokens: int
    texts: int


def measure(chosen: argparse.Namespace) -> Iterator[Table]:
    """A table for each set."""
    encoder = open_embedding_model(chosen.cache / "models", threads=1)
    for path in chosen.data:
        results: dict[tuple[str, str], list[Packed]] = defaultdict(list)
        for data in read(path):
            for key, packed in measured(data, encoder, chosen.cache, chosen.every):
                results[key].append(packed)
        yield Table(path.name, {f"{bound}, {way}": figures(rows) for (bound, way), rows in results.items()})


def measured(
    data: VaultData, encoder: EmbeddingModel, cache: Path, every: int
) -> Iterator[tuple[tuple[str, str], Packed]]:
    """Each question of a vault under each bound, packed in each way."""
    counter = ContextTokens(encoder)
    opened = open_vault(data, encoder, cache)
    vault, places, end_ms = opened.vault, opened.places, opened.end_ms
    vectors = embedded([question.question for question in data.questions], encoder, cache)
    settings = RecallSettings()
    densities = (settings.chunks_low, settings.chunks_default, settings.chunks_high, settings.chunks_xhigh)
    for question, vector in list(zip(data.questions, vectors, strict=True))[::every]:
        gold = {places[str(turn)] + 1 for turn in question.gold if str(turn) in places}
        if not gold:
            continue
        recall = Recall(
            text=question.question,
            vector=vector.astype("<f4").tobytes(),
            scope=Scope(),
            chunks_max=settings.chunks_xhigh,
            now_ms=end_ms,
            intervals=time_intervals(question.question, now_ms=end_ms, tz=UTC),
        )
        hits = vault.recall(recall).hits
        bounds: list[tuple[str, int, int | None]] = [(f"{cap} chunks", cap, None) for cap in densities]
        bounds += [(f"{budget} tokens", settings.chunks_default, budget) for budget in BUDGETS]
        for name, cap, budget in bounds:
            left = None if budget is None else budget - counter.frame_tokens
            yield (name, "as hits"), result(as_hits(hits[:cap], left, counter, end_ms), gold, counter, end_ms)
            yield (name, "product"), result(as_product(hits, cap, left, counter, end_ms), gold, counter, end_ms)


def as_hits(hits: Sequence[Hit], left: int | None, counter: ContextTokens, now_ms: int) -> list[Entry]:
    """An entry for each hit, the best until the first that does not fit."""
    entries: list[Entry] = []
    for hit in hits:
        piece = Piece(memory=hit.memory, text=hit.matched)
        if left is not None:
            left -= counter.piece_tokens(piece, now_ms, UTC, continues=False)
            if left < 0:
                break
        entries.append((piece,))
    return entries


def as_product(hits: Sequence[Hit], cap: int, left: int | None, counter: ContextTokens, now_ms: int) -> list[Entry]:
    """As a context is packed."""

    def cost(piece: Piece, continues: bool) -> int:
        return counter.piece_tokens(piece, now_ms, UTC, continues=continues)

    return pack(hits, hits_max=cap, tokens_max=left, cost=cost)


def result(entries: Sequence[Entry], gold: set[int], counter: ContextTokens, now_ms: int) -> Packed:
    """What of the gold is there, and how long it is."""
    seqs = [piece.memory.seq for entry in entries for piece in entry]
    found = gold & set(seqs)
    return Packed(
        gold=len(found) / len(gold),
        any=bool(found),
        all=found == gold,
        tokens=counter.context_tokens(entries, now_ms, UTC),
        texts=len(seqs),
    )


def figures(rows: Sequence[Packed]) -> dict[str, float]:
    """The means of a bound and way: shares in percent, tokens, texts."""
    shares = {
        "share_gold": mean([row.gold for row in rows]),
        "share_any": mean([row.any for row in rows]),
        "share_all": mean([row.all for row in rows]),
    }
    percent = {name: round(100 * share, 1) for name, share in shares.items()}
    tokens, texts = mean([row.tokens for row in rows]), mean([row.texts for row in rows])
    return {**percent, "tokens": round(tokens), "texts": round(texts, 1), "n": len(rows)}


if __name__ == "__main__":
    sys.exit(run_benchmark(measure, __doc__, data_options, quick={"every": 20}))
