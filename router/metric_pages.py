"""Pages of metrics of several workers as one page, in which every sample says whose it is.

Text to text, pure. Owns the label `worker`. Must never show half a page: one that is not whole, or not as
`router.metrics` writes it, counts as none.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Set

import msgspec


class Shown(msgspec.Struct, frozen=True):
    """One metric of a page.

    Attributes:
        head: its lines of HELP and TYPE.
        samples: name, and the rest of the line: labels, if there are any, and the value.
    """

    head: list[str]
    samples: list[tuple[str, str]]


Metrics = dict[str, Shown]
"""Of a page, by name."""


def read_pages(pages: Mapping[int, str]) -> dict[int, Metrics]:
    """The metrics of each worker whose page is whole, the first worker's first."""
    return {worker: found for worker in sorted(pages) if (found := read_page(pages[worker])) is not None}


def merge(pages: Mapping[int, Metrics], *, own: int, once: Set[str]) -> Iterator[str]:
    """The lines of one page of them all, with one HELP and TYPE for each metric.

    Args:
        own: the worker that shows them.
        once: metrics of what the workers share, which each would count as a whole: they are taken from this worker's
            page, as the first one's that has answered, so that sums over workers are right.
    """
    heads: dict[str, list[str]] = {}
    for metrics in pages.values():
        for name, shown in metrics.items():
            heads.setdefault(name, shown.head)
    for name, head in heads.items():
        yield from head
        whose = {min(pages): pages[own]} if name in once else pages
        for worker, metrics in whose.items():
            if name in metrics and metrics[name].head == head:
                yield from _labelled(metrics[name].samples, worker)


def _labelled(samples: list[tuple[str, str]], worker: int) -> Iterator[str]:
    for name, rest in samples:
        if rest.startswith("{"):
            yield f'{name}{{worker="{worker}",{rest[1:]}'
        else:
            yield f'{name}{{worker="{worker}"}} {rest}'


def read_page(text: str) -> Metrics | None:
    """The metrics of a page by name; None if it is not one of ours, from its first line to its last."""
    found: Metrics = {}
    name = ""
    for line in text.removesuffix("\n").split("\n"):
        if line.startswith("# HELP "):
            name = line.split(" ")[2]
            if name in found:
                return None
            found[name] = Shown([line], [])
        elif line.startswith("# TYPE "):
            if not line.startswith(f"# TYPE {name} ") or len(found[name].head) != 1:
                return None
            found[name].head.append(line)
        else:
            sample = _split(line)
            if not name or len(found[name].head) != 2 or sample[0] not in _names(name) or not sample[1]:
                return None
            found[name].samples.append(sample)
    whole = text.endswith("\n") and all(len(shown.head) == 2 for shown in found.values())
    return found if whole else None


def _split(line: str) -> tuple[str, str]:
    """A sample's name, and the rest with its labels' brace."""
    name, brace, labels = line.partition("{")
    if brace:
        return name, brace + labels
    name, _, value = line.partition(" ")
    return name, value


def _names(name: str) -> tuple[str, ...]:
    """Of a metric's samples."""
    return name, f"{name}_bucket", f"{name}_sum", f"{name}_count"
