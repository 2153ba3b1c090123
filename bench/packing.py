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

from bench._examples import embedded, open_vault
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


def main() -> int:
    """A table for each set."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", nargs="+", type=Path, metavar="DATA.json")
    parser.add_argument("--cache", type=Path, required=True, help="directory for vectors and the prepared model")
    parser.add_argument("--every", type=int, default=1, help="use each n-th question only")
    options = parser.parse_args()
    encoder = open_embedding_model(options.cache / "models", threads=1)
    for path in options.data:
        results: dict[tuple[str, str], list[Packed]] = defaultdict(list)
        for data in msgspec.json.decode(path.read_bytes(), type=list[VaultData]):
            for key, packed in measured(data, encoder, options.cache, options.every):
                results[key].append(packed)
        print_table(path.name, results)
    return 0


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


def print_table(name: str, results: dict[tuple[str, str], list[Packed]]) -> None:
    """A line for each bound and way."""
    count = len(next(iter(results.values())))
    print(f"\n{name}: n = {count}\n{'':14}{'':10}{'gold':>8}{'any':>8}{'all':>8}{'tokens':>9}{'texts':>8}")
    for (bound, way), rows in results.items():
        shares = [100 * mean(values) for values in zip(*((row.gold, row.any, row.all) for row in rows), strict=True)]
        tokens, texts = mean([row.tokens for row in rows]), mean([row.texts for row in rows])
        print(f"{bound:14}{way:10}" + "".join(f"{share:8.1f}" for share in shares) + f"{tokens:9.0f}{texts:8.1f}")


if __name__ == "__main__":
    sys.exit(main())
