"""Every benchmark has the same options, and they do what they say."""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from bench._machine import ROOT, cpu_between_s, cpu_times, described, machine, process_tree, rss_bytes
from bench._options import WORSE, data_options, parse_options, run_benchmark
from bench._results import Table, read
from router.commands.tools import benchmarks

WITHOUT_FIGURES = {"ablations", "fit_ranking", "fit_relevance", "peers", "plot", "robustness"}
"""They fit and draw, or print tables of their own; what `peers` is, its own tests know."""


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--requests", type=int, default=100)


def measure(chosen: argparse.Namespace) -> Iterator[Table]:
    yield Table("t", {"a": {"p50_ms": float(chosen.requests)}})


def run(*arguments: str) -> int:
    return run_benchmark(measure, "Doc.", options, quick={"requests": 3}, arguments=arguments)


def test_quick_stands_in_for_defaults_only() -> None:
    def requests(*arguments: str) -> int:
        found: int = parse_options("", options, quick={"requests": 3}, arguments=arguments).requests
        return found

    assert (requests(), requests("--quick"), requests("--quick", "--requests", "7")) == (100, 3, 7)


def test_a_result_is_printed_and_written_with_the_machine(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--json", str(tmp_path / "x.json"), "--repeat", "3") == 0
    assert "| a | 100 |" in capsys.readouterr().out
    result = read(tmp_path / "x.json")
    assert result.tables[0].values == {"a": {"p50_ms": [100.0] * 3}}
    assert result.options["requests"] == 100
    facts = {"cpu", "cores", "memory_mb", "system", "python", "memoryrouter", "git", "packages", "load", "date"}
    assert facts <= set(result.machine)


def test_worse_is_an_exit_code_of_its_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    old = str(tmp_path / "old.json")
    run("--json", old)
    assert run("--compare", old, "--requests", "110") == 0
    assert run("--compare", old, "--requests", "130") == WORSE == 3
    assert run("--compare", old, "--requests", "130", "--worse-than", "1.5") == 0
    assert "1.30 to 1.30 | worse" in capsys.readouterr().out


def test_a_mistake_is_found_before_anything_is_measured(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--compare", "absent.json") == 2
    for wrong in (["--repeat", "0"], ["--worse-than", "0.5"], ["--nonsense"]):
        with pytest.raises(SystemExit) as ended:
            run(*wrong)
        assert ended.value.code == 2
    assert capsys.readouterr().out == ""


def test_repeats_of_a_benchmark_that_repeats_itself() -> None:
    calls = []

    def once(chosen: argparse.Namespace) -> list[Table]:
        calls.append(chosen.repeat)
        return []

    run_benchmark(once, "", repeats_itself=True, arguments=["--repeat", "4"])
    run_benchmark(once, "", arguments=["--repeat", "2"])
    assert calls == [4, 2, 2]


def test_data_options_are_shared() -> None:
    chosen = parse_options("", data_options, arguments=["a.json", "--cache", "d", "--every", "2"])
    assert (chosen.data, chosen.cache, chosen.every) == ([Path("a.json")], Path("d"), 2)


def test_every_benchmark_has_the_common_options() -> None:
    """Asked for its help, as `memoryrouter bench NAME --help` does."""

    def help_of(name: str) -> str:
        command = [sys.executable, "-m", f"bench.{name}", "--help"]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout

    names = ["ingest_latency", "proxy"]
    with ThreadPoolExecutor(2) as threads:
        helps = dict(zip(names, threads.map(help_of, names), strict=True))
    common = ("--json FILE", "--compare OLD.json", "--worse-than FACTOR", "--repeat N", "--quick")
    assert {name: [one for one in common if one not in text] for name, text in helps.items()} == {
        name: [] for name in names
    }


def test_every_benchmark_is_run_alike() -> None:
    texts = {name: (ROOT / "bench" / f"{name}.py").read_text() for name in set(benchmarks()) - WITHOUT_FIGURES}
    assert len(texts) >= 20
    assert {name for name, text in texts.items() if "sys.exit(run_benchmark(" not in text} == set()
    assert {name for name in benchmarks() if f"`{name}`" not in README} == set()


README = (ROOT / "bench" / "README.md").read_text(encoding="utf-8")


def test_the_machine_is_known() -> None:
    facts = machine()
    assert facts["cores"] >= 1
    assert facts["memory_mb"] > 100
    assert {"numpy", "trio"} <= set(facts["packages"])
    assert described(Path("/")) == ""


def test_processes_are_known_with_their_children() -> None:
    code = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'input()'])"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE) as process:
        before = cpu_times(process.pid)
        while len(process_tree(process.pid)) < 2:
            pass
        assert process_tree(process.pid)[0] == process.pid
        assert cpu_between_s(before, cpu_times(process.pid)) >= 0
        assert rss_bytes(process.pid) > 1_000_000
        assert process.stdin is not None
        process.stdin.close()
    assert cpu_times(process.pid) == {}
