"""Charts are well-formed, show every value, and read well on dark and light."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import pytest

from bench._plots import COLOURS, Bar, bars, curves, nice_ticks, number_text
from bench._results import Result, Table, merged, write
from bench.plot import main

SVG = "{http://www.w3.org/2000/svg}"


def luminance(colour: str) -> float:
    """Relative luminance (WCAG 2, https://www.w3.org/TR/WCAG21/#dfn-relative-luminance)."""
    parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    dark, light = sorted((luminance(one), luminance(other)))
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("colour", COLOURS)
def test_colours_stand_out_on_light_and_on_dark(colour: str) -> None:
    assert contrast(colour, "#ffffff") >= 3
    assert contrast(colour, "#0d1117") >= 3


def test_bars_have_lengths_in_proportion_and_whiskers_for_spread() -> None:
    names = ["a & b <c>", 'quoted "x"', "third"]
    drawn = [Bar(names[0], 10.0, 8.0, 12.0), Bar(names[1], 5.0, 5.0, 5.0, series=1), Bar(names[2], -1.0, -2.0, 0.5)]
    tree = ElementTree.fromstring(bars("T & <t>", "ms", drawn))
    groups = list(tree.iter(f"{SVG}g"))
    assert [group.findtext(f"{SVG}title") for group in groups] == [
        "a & b <c>: 10 ms", 'quoted "x": 5 ms', "third: -1 ms",
    ]  # fmt: skip
    widths = [float(rect.attrib["width"]) for rect in tree.iter(f"{SVG}rect")]
    assert widths[0] == pytest.approx(2 * widths[1], abs=0.2)
    assert widths[2] == 0
    assert [group.find(f"{SVG}path") is not None for group in groups] == [True, False, True]
    assert tree.attrib["aria-label"] == "T & <t>"


def test_nothing_leaves_the_picture() -> None:
    tree = ElementTree.fromstring(bars("t", "ms", [Bar("n" * 200, 1e6, 1.0, 1e7)]))
    _, _, width, height = map(float, tree.attrib["viewBox"].split())
    for rect in tree.iter(f"{SVG}rect"):
        assert float(rect.attrib["x"]) + float(rect.attrib["width"]) <= width
    for text in tree.iter(f"{SVG}text"):
        assert 0 <= float(text.attrib["x"]) <= width
        assert 0 <= float(text.attrib["y"]) <= height


def test_curves_rise_to_the_right_and_leave_room_for_the_tail() -> None:
    line = [[0.0, 1.0], [50.0, 2.0], [90.0, 3.0], [99.0, 10.0], [99.9, 100.0], [100.0, 400.0]]
    tree = ElementTree.fromstring(curves("t", {"one": line, "two & more": [[50.0, 0.5], [100.0, 0.0]]}))
    (first, second) = tree.iter(f"{SVG}polyline")
    points = [tuple(map(float, point.split(","))) for point in first.attrib["points"].split()]
    assert len(points) == 6
    assert [x for x, _ in points] == sorted(x for x, _ in points)
    assert [y for _, y in points] == sorted((y for _, y in points), reverse=True)
    at = [x for x, _ in points]
    assert at[3] - at[2] == pytest.approx(at[4] - at[3], abs=0.2)  # as far from 90 to 99 as from 99 to 99.9
    assert len(second.attrib["points"].split()) == 1, "what took no time has no logarithm"


def test_there_is_no_chart_of_nothing() -> None:
    with pytest.raises(ValueError, match="nothing"):
        bars("t", "ms", [])
    with pytest.raises(ValueError, match="nothing"):
        curves("t", {"a": []})


@pytest.mark.parametrize(
    ("most", "ticks"),
    [
        (1.0, [0, 0.2, 0.4, 0.6, 0.8, 1.0]),
        (7.3, [0, 1, 2, 3, 4, 5, 6, 7, 8]),
        (2600.0, [0, 500, 1000, 1500, 2000, 2500, 3000]),
    ],
)
def test_ticks_are_round(most: float, ticks: list[float]) -> None:
    assert nice_ticks(most) == pytest.approx(ticks)


def test_numbers_are_short() -> None:
    assert [number_text(value) for value in (0.0123456, 1.0, 99.96, 12345.6)] == ["0.0123", "1", "100", "12,346"]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    tables = [
        Table(
            "whole replies, closed loop",
            {"direct, 1": {"p50_ms": value}, "ours, 1": {"p50_ms": 3 * value}},
            curves={"ours, 1": [[50.0, value], [99.0, 5 * value]]},
        )
        for value in (1.0, 1.5)
    ]
    write(tmp_path / "new.json", Result(benchmark="proxy", machine={}, options={}, tables=merged(tables)))
    return tmp_path / "new.json"


def test_a_result_is_drawn(file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    chart = tmp_path / "x.svg"
    assert main([str(file), "--table", "Whole", "--rows", "ours", "-o", str(chart)]) == 0
    titles = [title.text for title in ElementTree.parse(chart).getroot().iter(f"{SVG}title")]
    assert titles == ["ours, 1: 3.75 p50_ms (milliseconds)"]
    assert main([str(file), "--curves", "-o", str(chart)]) == 0
    assert len(list(ElementTree.parse(chart).getroot().iter(f"{SVG}polyline"))) == 1
    assert main([str(file)]) == 0
    assert "whole replies, closed loop" in capsys.readouterr().out


def test_two_results_stand_side_by_side(file: Path, tmp_path: Path) -> None:
    other, chart = tmp_path / "old.json", tmp_path / "x.svg"
    other.write_bytes(file.read_bytes())
    assert main([str(other), str(file), "-o", str(chart)]) == 0
    root = ElementTree.parse(chart).getroot()
    assert len({rect.attrib["fill"] for rect in root.iter(f"{SVG}rect")}) == 2
    assert len([title for title in root.iter(f"{SVG}title") if str(title.text).startswith("old: ")]) == 2


@pytest.mark.parametrize("arguments", [["--table", "absent"], ["--figure", "absent"], ["--rows", "absent"]])
def test_what_is_not_there_cannot_be_drawn(
    file: Path, tmp_path: Path, arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(file), *arguments, "-o", str(tmp_path / "x.svg")]) == 2
    assert capsys.readouterr().err.startswith("No ")
