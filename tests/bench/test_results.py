"""Repeats become medians, results files, and two results say what got worse beyond noise."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from bench._results import (
    Change,
    Result,
    Table,
    better_when,
    compare,
    comparison_text,
    lost,
    merged,
    read,
    table_text,
    write,
)


def result(*repeats: dict[str, float], baseline: tuple[str, ...] = ()) -> Result:
    tables = [Table("t", {"row": repeat}, baseline=baseline) for repeat in repeats]
    return Result(benchmark="b", machine={"cores": 2}, options={}, tables=merged(tables))


def change(old: Result, new: Result, *, worse_than: float = 1.25) -> Change:
    changes = compare(old, new, worse_than=worse_than)
    assert len(changes) == 1
    return changes[0]


def test_repeats_of_a_table_become_medians_with_their_values() -> None:
    curves = [[[50.0, 1.0]], [[50.0, 3.0]], [[50.0, 2.0]]]
    (table,) = merged(
        Table("t", {"a": {"p50_ms": value, "n": 5, "kind": "x"}}, curves={"a": line})
        for value, line in zip((3.0, 1.0, 2.5), curves, strict=True)
    )
    assert table.rows == {"a": {"p50_ms": 2.5, "n": 5, "kind": "x"}}
    assert table.values["a"]["p50_ms"] == [3.0, 1.0, 2.5]
    assert table.curves == {"a": [[50.0, 2.0]]}
    assert "2.5 \u00b140%" in table_text(table)


def test_a_result_comes_back_from_its_file(tmp_path: Path) -> None:
    written = result({"p50_ms": 1.0})
    write(tmp_path / "x.json", written)
    assert read(tmp_path / "x.json") == written


def test_what_is_no_result_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    for text in (b"", b"[]", msgspec.json.encode(msgspec.structs.replace(result({"s": 1.0}), format=99))):
        path.write_bytes(text)
        with pytest.raises(ValueError, match=r"x\.json"):
            read(path)
    with pytest.raises(ValueError, match="absent"):
        read(tmp_path / "absent")


@pytest.mark.parametrize(
    ("figure", "better"),
    [
        ("p50_ms", "lower"), ("added_p99_ms", "lower"), ("cpu_s_per_1000_requests", "lower"), ("s", "lower"),
        ("cpu_ms_per_chunk", "lower"), ("rss_mb", "lower"), ("kb_per_vault", "lower"), ("bytes_per_memory", "lower"),
        ("us_per_request", "lower"), ("times_alone_p99", "lower"), ("errors", "lower"),
        ("requests_per_s", "higher"), ("tokens_b8_per_s", "higher"), ("any@5", "higher"), ("MRR", "higher"),
        ("share_of_limit", "higher"), ("n", None), ("load", None), ("segments", None), ("samples", None),
    ],
)  # fmt: skip
def test_the_name_of_a_figure_says_which_is_better(figure: str, better: str | None) -> None:
    assert better_when(figure) == better


@pytest.mark.parametrize(
    ("figure", "old", "new", "verdict"),
    [
        ("p50_ms", [10.0], [13.0], "worse"),
        ("p50_ms", [10.0], [12.0], "same"),
        ("p50_ms", [13.0], [10.0], "better"),
        ("requests_per_s", [10.0], [13.0], "better"),
        ("requests_per_s", [13.0], [10.0], "worse"),
        ("p50_ms", [10.0, 11.0, 14.0], [13.0, 15.0, 16.0], "noise"),  # the repeats overlap
        ("requests_per_s", [100.0, 60.0, 90.0], [65.0, 70.0, 66.0], "noise"),
        ("p50_ms", [10.0, 11.0, 12.0], [15.0, 16.0, 17.0], "worse"),
        ("p50_ms", [0.02], [0.05], "same"),  # a difference of nothing
        ("added_p50_ms", [-0.3], [2.0], "not judged"),  # there is no ratio to what is not positive
        ("max_ms", [10.0], [90.0], "not judged"),
        ("errors", [0], [3], "worse"),
        ("errors", [3], [0], "better"),
        ("errors", [0], [0], "same"),
    ],
)
def test_verdicts(figure: str, old: list[float], new: list[float], verdict: str) -> None:
    found = change(result(*({figure: value} for value in old)), result(*({figure: value} for value in new)))
    assert found.verdict == verdict


def test_what_is_worse_enough_is_for_the_caller_to_say() -> None:
    old, new = result({"p50_ms": 10.0}), result({"p50_ms": 13.0})
    assert not lost(compare(old, new, worse_than=1.5))
    assert lost(compare(old, new, worse_than=1.25))


def test_the_band_holds_the_ratio_of_any_two_repeats() -> None:
    found = change(result({"s": 1.0}, {"s": 2.0}), result({"s": 3.0}, {"s": 4.0}))
    assert (found.ratio, found.low, found.high) == (2.333, 1.5, 4.0)


def test_the_machine_is_not_judged() -> None:
    old, new = result({"p50_ms": 1.0}, baseline=("row",)), result({"p50_ms": 9.0}, baseline=("row",))
    assert change(old, new).verdict == "not judged"


def test_what_only_one_of_them_has_is_left_out() -> None:
    assert compare(result({"p50_ms": 1.0, "n": 1}), result({"p99_ms": 1.0, "n": 2}), worse_than=1.25) == []


def test_the_text_counts_verdicts() -> None:
    text = comparison_text(
        compare(result({"s": 1.0, "requests_per_s": 1.0}), result({"s": 2.0, "requests_per_s": 2.0}), worse_than=1.25),
        worse_than=1.25,
    )
    assert "| t | row | s | 1 | 2 | 2.00 | 2.00 to 2.00 | worse |" in text
    assert text.endswith("1 better, 1 worse, 0 noise of 2")
