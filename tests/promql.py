"""What an expression of PromQL names: metrics, the labels that it chooses and groups by. Not a parser of the language:
the few forms that the project's dashboard and alerts use, and an error for everything else that looks like a name."""

from __future__ import annotations

import re
from collections.abc import Iterator

import msgspec

FUNCTIONS = frozenset({"histogram_quantile", "rate", "increase", "clamp_min", "predict_linear", "vector", "time"})
AGGREGATIONS = frozenset({"sum", "max", "min"})
OPERATORS = frozenset({"or", "and", "unless"})
OVER_TIME = frozenset({"rate", "increase"})

_TOKEN = re.compile(
    r'\s*(?:(?P<text>"(?:[^"\\]|\\.)*")|(?P<name>[a-zA-Z_:][a-zA-Z0-9_:]*)|(?P<range>\[[^\]]+\])'
    r"|(?P<number>[0-9.]+(?:e[0-9]+)?)|(?P<sign>=~|!~|==|!=|>=|<=|[-+*/(){},=<>]))"
)
_RANGE = re.compile(r"\[([0-9]+[smhd]|\$__rate_interval)\]\Z")


class Selector(msgspec.Struct):
    """One metric in an expression.

    Attributes:
        labels: that it chooses by.
        over_time: the function that it is given to with a range, "" without one.
    """

    name: str
    labels: set[str]
    over_time: str = ""


class Named(msgspec.Struct):
    """Everything that an expression names."""

    selectors: list[Selector]
    grouped_by: set[str]


def names_in(expression: str) -> Named:
    """What the expression names.

    Raises:
        ValueError: it has a name that is neither a metric nor known, or something that is no token at all.
    """
    tokens = list(_tokens(expression))
    found = Named([], set())
    place = 0
    while place < len(tokens):
        kind, text = tokens[place]
        following = tokens[place + 1][1] if place + 1 < len(tokens) else ""
        if kind != "name" or text in OPERATORS:
            place += 1
        elif text == "by":
            labels, place = _until(tokens, place + 2, ")")
            found.grouped_by |= {label for kind, label in labels if kind == "name"}
        elif text in FUNCTIONS | AGGREGATIONS:
            if following not in ("(", "by"):
                raise ValueError(f"{text} is a function")
            place += 1
        elif following == "(":
            raise ValueError(f"unknown function {text}")
        else:
            selector, place = _selector(tokens, place)
            found.selectors.append(selector)
    return found


def _tokens(expression: str) -> Iterator[tuple[str, str]]:
    place = 0
    while place < len(expression.rstrip()):
        token = _TOKEN.match(expression, place)
        if token is None or token.lastgroup is None:
            raise ValueError(f"no token at {expression[place:]!r}")
        yield token.lastgroup, token[token.lastgroup]
        place = token.end()


def _until(tokens: list[tuple[str, str]], place: int, end: str) -> tuple[list[tuple[str, str]], int]:
    last = next(number for number in range(place, len(tokens)) if tokens[number][1] == end)
    return tokens[place:last], last + 1


def _selector(tokens: list[tuple[str, str]], place: int) -> tuple[Selector, int]:
    selector = Selector(tokens[place][1], set())
    before = [text for _, text in tokens[max(0, place - 2) : place]]
    place += 1
    if place < len(tokens) and tokens[place][1] == "{":
        inside, place = _until(tokens, place + 1, "}")
        selector.labels = {label for kind, label in inside if kind == "name"}
    if place < len(tokens) and tokens[place][0] == "range":
        if not _RANGE.match(tokens[place][1]) or len(before) != 2 or before[1] != "(":
            raise ValueError(f"{selector.name} has a range outside of a function")
        selector.over_time = before[0]
        place += 1
    return selector, place
