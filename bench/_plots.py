"""Charts as SVG, by plain code: bars with the spread of repeats, and curves of latency over percentiles.

Owns the drawing. Never reads a file or a clock. The colours are readable on white and on black, and follow the reader's
preference where the viewer knows it; text is text, so that it can be searched and read aloud.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from xml.sax.saxutils import escape, quoteattr

import msgspec

WIDTH = 860
MARGIN = 16
BAR_HEIGHT, BAR_STEP = 18, 26
NAME_WIDTH_MAX = 340
PLOT_HEIGHT = 300
COLOURS = ("#2f7ed8", "#d9730d", "#2a9d5c", "#b5479b", "#8a7500", "#5b6ee1", "#c0392b", "#00868b")
"""Each has a contrast of at least 3 with white and with #0d1117."""

_STYLE = (
    "text{font:12px system-ui,sans-serif;fill:#24292f}.title{font-weight:600;font-size:14px}.faint{fill:#57606a}"
    ".grid{stroke:#8c959f;stroke-opacity:.35}.spread{stroke:#24292f;stroke-width:1.5}"
    "@media(prefers-color-scheme:dark){text{fill:#e6edf3}.faint{fill:#9aa4ae}.spread{stroke:#e6edf3}}"
)


class Bar(msgspec.Struct, frozen=True):
    """One bar.

    Attributes:
        low, high: what the repeats span.
        series: which colour it has.
    """

    name: str
    value: float
    low: float
    high: float
    series: int = 0


def bars(title: str, unit: str, drawn: Sequence[Bar]) -> str:
    """A chart of horizontal bars from 0, with whiskers for the spread.

    Raises:
        ValueError: there is nothing to draw.
    """
    if not drawn:
        raise ValueError("There is nothing to draw.")
    names_width = min(NAME_WIDTH_MAX, max(7 * len(bar.name) for bar in drawn) + 12)
    left, right = MARGIN + names_width, WIDTH - MARGIN - 80
    top, height = 64, 64 + BAR_STEP * len(drawn) + 2 * MARGIN
    most = max(max(bar.high, bar.value, 0.0) for bar in drawn) or 1.0
    ticks = nice_ticks(most)
    scale = (right - left) / max(most, ticks[-1])
    parts = _grid_x(ticks, scale, left, top - 8, height - 2 * MARGIN)
    for number, bar in enumerate(drawn):
        y = top + number * BAR_STEP
        end = left + max(0.0, bar.value) * scale
        colour = COLOURS[bar.series % len(COLOURS)]
        label = _text(left - 8, y + 13, _short(bar.name, names_width), anchor="end")
        body = f'<rect x="{left}" y="{y}" width="{end - left:.1f}" height="{BAR_HEIGHT}" rx="2" fill="{colour}"/>'
        whisker = ""
        if bar.high > bar.low:
            low, high, middle = left + max(0.0, bar.low) * scale, left + bar.high * scale, y + BAR_HEIGHT / 2
            whisker = (
                f'<path class="spread" fill="none" d="M{low:.1f} {middle}H{high:.1f}M{low:.1f} {y + 4}v10'
                f'M{high:.1f} {y + 4}v10"/>'
            )
        said = _text(max(end, left + max(0.0, bar.high) * scale) + 6, y + 13, number_text(bar.value))
        parts.append(f"<g><title>{escape(f'{bar.name}: {bar.value:g} {unit}')}</title>{label}{body}{whisker}{said}</g>")
    return _document(title, unit, height, parts)


def curves(title: str, lines: Mapping[str, Sequence[Sequence[float]]]) -> str:
    """Latency (logarithmic) over percentiles, spaced by the logarithm of what lies beyond them.

    Args:
        lines: by name, points [percent, milliseconds], of which 100 is the maximum.

    Raises:
        ValueError: there is nothing to draw.
    """
    points = {name: found for name, line in lines.items() if (found := _placed(line))}
    if not points:
        raise ValueError("There is nothing to draw.")
    left, right, top = MARGIN + 64, WIDTH - MARGIN - 12, 64
    bottom = top + PLOT_HEIGHT
    every = [at_ms for line in points.values() for _, at_ms in line]
    low, high = math.floor(math.log10(min(every))), math.ceil(math.log10(max(every)))
    high = max(high, low + 1)

    def place(nines: float, at_ms: float) -> tuple[float, float]:
        x = left + (right - left) * min(nines, 4.0) / 4.0
        return x, bottom - (math.log10(at_ms) - low) / (high - low) * PLOT_HEIGHT

    parts = []
    for power in range(low, high + 1):
        y = place(0, 10.0**power)[1]
        parts.append(f'<path class="grid" d="M{left} {y:.1f}H{right}"/>')
        parts.append(_text(left - 6, y + 4, f"{10.0**power:g}", anchor="end", kind="faint"))
    for percent in (0, 50, 90, 99, 99.9, 99.99):
        x = place(_nines(percent), 10.0**low)[0]
        parts.append(f'<path class="grid" d="M{x:.1f} {top}V{bottom}"/>')
        parts.append(_text(x, bottom + 16, f"{percent:g}", anchor="middle", kind="faint"))
    for number, (name, line) in enumerate(points.items()):
        colour = COLOURS[number % len(COLOURS)]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in (place(*point) for point in line))
        parts.append(
            f'<polyline fill="none" stroke="{colour}" stroke-width="2" points="{path}"><title>{escape(name)}</title>'
            "</polyline>"
        )
        y = bottom + 40 + 18 * number
        parts.append(f'<rect x="{left}" y="{y - 10}" width="12" height="12" rx="2" fill="{colour}"/>')
        parts.append(_text(left + 18, y, name))
    return _document(title, "milliseconds at each percentile", bottom + 40 + 18 * len(points) + MARGIN, parts)


def nice_ticks(most: float) -> list[float]:
    """From 0 to at least `most` in four to eight steps of 1, 2 or 5 times a power of ten."""
    power = 10.0 ** math.floor(math.log10(most / 4))
    step = next(factor * power for factor in (1, 2, 5, 10) if most / (factor * power) <= 8)
    return [round(number * step, 12) for number in range(math.ceil(most / step - 1e-9) + 1)]


def number_text(value: float) -> str:
    """Three digits that say something, and thousands apart."""
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def _placed(line: Sequence[Sequence[float]]) -> list[tuple[float, float]]:
    """Where points stand; the maximum a little behind the last percentile, as it has no place of its own."""
    placed: list[tuple[float, float]] = []
    for percent, at_ms in line:
        nines = _nines(percent) if percent < 100 else (placed[-1][0] if placed else 0.0) + math.log10(2)
        if at_ms > 0:
            placed.append((nines, at_ms))
    return placed


def _nines(percent: float) -> float:
    """0 of 0, 1 of 90, 2 of 99: so that tails have room."""
    return -math.log10(1 - percent / 100)


def _grid_x(ticks: Sequence[float], scale: float, left: float, top: float, bottom: float) -> list[str]:
    parts = []
    for tick in ticks:
        x = left + tick * scale
        parts.append(f'<path class="grid" d="M{x:.1f} {top}V{bottom}"/>')
        parts.append(_text(x, bottom + 16, number_text(tick), anchor="middle", kind="faint"))
    return parts


def _short(name: str, width: float) -> str:
    most = int((width - 12) / 7)
    return name if len(name) <= most else name[: most - 1] + "\u2026"


def _text(x: float, y: float, text: str, *, anchor: str = "start", kind: str = "") -> str:
    named = f' class="{kind}"' if kind else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{named}>{escape(text)}</text>'


def _document(title: str, unit: str, height: float, parts: Sequence[str]) -> str:
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:.0f}" role="img" '
        f"aria-label={quoteattr(title)}>"
    )
    lines = [
        head,
        f"<style>{_STYLE}</style>",
        _text(MARGIN, 24, title, kind="title"),
        _text(MARGIN, 44, unit, kind="faint"),
        *parts,
        "</svg>",
    ]
    return "\n".join(lines) + "\n"
