"""Which lines an upload sends: the choices, the checks, the counts, and that the same files give the same lines."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from models.memory_settings import MemorySettings
from router.commands.upload_plan import Choice, Survey, planned_lines
from router.uploads import parse_lines
from tests.fakes.exports import chatgpt_talk
from tests.models.archives.drawn import OBJECTS
from tests.patience import PATIENCE_S
from tests.running import ROOT

SETTINGS = MemorySettings()
LONG_RUN = bool(os.environ.get("MEMORYROUTER_TEST_LONG"))


def plan(path: Path, *, settings: MemorySettings = SETTINGS, **choice: Any) -> tuple[list[dict[str, Any]], Survey]:
    """The lines of a file, decoded, and the survey."""
    survey = Survey()
    lines = planned_lines([(path, path.name)], Choice(**choice), survey, settings=settings)
    return [json.loads(line.data) for line in lines], survey


def saved(folder: Path, name: str, *values: Any) -> Path:
    """A file of JSON lines."""
    path = folder / name
    path.write_text("\n".join(map(json.dumps, values)))
    return path


def talks(folder: Path) -> Path:
    """Two conversations of two messages."""
    path = folder / "conversations.json"
    path.write_text(
        json.dumps([chatgpt_talk(1, "I like tea", "Noted"), chatgpt_talk(2, "I live in Kiel", "Nice town")])
    )
    return path


def test_the_survey_counts_what_there_is(tmp_path: Path) -> None:
    lines, survey = plan(talks(tmp_path))

    assert [line["content"] for line in lines] == ["I like tea", "Noted", "I live in Kiel", "Nice town"]
    assert (survey.files, survey.conversations, survey.messages, survey.sessions, survey.bad) == (1, 2, 4, 2, 0)
    assert (survey.oldest_ms, survey.newest_ms) == (1_700_001_000_500, 1_700_002_001_500)


def test_choices_leave_lines_out_and_say_why(tmp_path: Path) -> None:
    path = talks(tmp_path)

    later, survey = plan(path, since_ms=1_700_002_000_000)
    assert [line["content"] for line in later] == ["I live in Kiel", "Nice town"]
    assert survey.skipped == {"before_since": 2}
    users, survey = plan(path, role="user")
    assert [line["content"] for line in users] == ["I like tea", "I live in Kiel"]
    assert survey.skipped == {"other_role": 2}
    assert [line["content"] for line in plan(path, limit=3)[0]] == ["I like tea", "Noted", "I live in Kiel"]
    assert {line["session_id"] for line in plan(path, session_id="old")[0]} == {"old"}


def test_a_line_without_a_time_is_not_left_out_by_since(tmp_path: Path) -> None:
    assert len(plan(saved(tmp_path, "a.jsonl", {"content": "x"}), since_ms=10**12)[0]) == 1


def test_users_are_told_apart(tmp_path: Path) -> None:
    path = saved(
        tmp_path,
        "m.jsonl",
        {"id": 1, "memory": "Likes tea", "user_id": "anna"},
        {"id": 2, "memory": "Likes beer", "user_id": "bert"},
        {"content": "nobody's"},
    )

    assert plan(path)[1].owners == {"anna", "bert"}
    lines, survey = plan(path, user="anna")
    assert [line["content"] for line in lines] == ["Likes tea"]
    assert survey.owners == {"anna"}
    assert survey.skipped == {"other_user": 2}


def test_notes_are_known_by_their_words_wherever_they_lie(tmp_path: Path) -> None:
    """A file that is renamed, moved or changed in another place adds nothing that was there before."""
    (tmp_path / "a.txt").write_text("one\n\ntwo")
    (tmp_path / "b.txt").write_text("zero\n\ntwo\n\none")
    ids = {name: {line["content"]: line["id"] for line in plan(tmp_path / name)[0]} for name in ("a.txt", "b.txt")}

    assert ids["a.txt"].items() <= ids["b.txt"].items()
    assert len(set(ids["b.txt"].values())) == 3
    assert plan(tmp_path / "a.txt", session_id="s")[0][0]["id"] != ids["a.txt"]["one"]


def test_a_text_longer_than_a_server_takes_becomes_several_lines(tmp_path: Path) -> None:
    text = " ".join(f"word{number}" for number in range(100))
    path = saved(tmp_path, "a.jsonl", {"content": text, "id": "m"}, {"content": "x" * 250})

    lines, survey = plan(path, settings=MemorySettings(content_max_chars=100))

    long = [line for line in lines if "id" in line]
    assert " ".join(line["content"] for line in long) == text
    assert [line["id"] for line in long[:3]] == ["m", "m/2", "m/3"]
    assert [len(line["content"]) for line in lines if "id" not in line] == [100, 100, 50]
    assert max(len(line["content"]) for line in lines) <= 100
    assert survey.bad == 0


def test_what_a_server_would_refuse_is_named_and_not_sent(tmp_path: Path) -> None:
    bad: list[Any] = [
        {"content": ""},
        {"content": "x", "timestamp": "2024"},
        {"content": "x", "id": "i" * 300},
        {"content": "x", "session_id": [1]},
        {"content": "x", "metadata": {"long": "y" * 20_000}},
        {"content": "x", "metadata": {"big": 2**70}},
    ]
    lines, survey = plan(saved(tmp_path, "a.jsonl", {"content": "good"}, *bad))

    assert [line["content"] for line in lines] == ["good"]
    assert survey.bad == len(bad)
    assert survey.problems[0] == "a.jsonl, line 2: content must be a non-empty string."
    assert survey.problems[1].startswith("a.jsonl, line 3: timestamp must be milliseconds")


def test_our_own_context_blocks_are_not_uploaded(tmp_path: Path) -> None:
    block = "<memory_context>\n[MEMORY - 2 days ago] I like tea\n</memory_context>"
    lines, survey = plan(saved(tmp_path, "a.jsonl", {"content": block}, {"content": f"{block}\nHello"}))

    assert [line["content"] for line in lines] == ["Hello"]
    assert survey.skipped == {"nothing_said": 1}


def test_only_the_first_problems_are_kept(tmp_path: Path) -> None:
    _, survey = plan(saved(tmp_path, "a.jsonl", *[{"content": ""}] * 50))

    assert survey.bad == 50
    assert len(survey.problems) == 20


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(values=st.lists(OBJECTS | st.builds(lambda text: {"content": text}, st.text(max_size=5)), max_size=4))
def test_whatever_is_planned_a_server_takes(tmp_path: Path, values: list[Any]) -> None:
    path = saved(tmp_path, "a.jsonl", *values)
    survey = Survey()
    lines = list(planned_lines([(path, "a.jsonl")], Choice(), survey, settings=SETTINGS))
    again = list(planned_lines([(path, "a.jsonl")], Choice(), Survey(), settings=SETTINGS))

    assert lines == again
    assert len(lines) == survey.messages
    if lines:
        assert len(parse_lines(b"".join(line.data for line in lines), session_id=None, limits=SETTINGS)) == len(lines)


PROGRAM = """
import resource, sys
from pathlib import Path
from models.memory_settings import MemorySettings
from router.commands.upload_plan import Choice, Survey, planned_lines

for path in sys.argv[1:]:
    survey = Survey()
    for _ in planned_lines([(Path(path), path)], Choice(), survey, settings=MemorySettings()):
        pass
    print(survey.messages, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
"""


@pytest.mark.parametrize("packed", [False, True], ids=["json", "zip"])
def test_a_long_export_needs_no_more_memory_than_a_short_one(tmp_path: Path, packed: bool) -> None:
    """Peak memory grows by less than 24 MiB over that for one conversation; the file has 40 MiB, or 200 at length."""
    text = "It was a long day at the harbour and nobody came. " * 300
    count = 2_800 if LONG_RUN else 560
    paths = []
    for conversations in (1, count):
        path = tmp_path / f"{conversations}.json"
        with path.open("w") as file:
            for number in range(conversations):
                talk = json.dumps(chatgpt_talk(number, *(f"{place} {text}" for place in range(5))))
                file.write(f"{',' if number else '['}\n{talk}")
            file.write("]")
        paths.append(path if not packed else zipped_file(path))

    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *map(str, paths)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=True,
    )

    (few, before_mib), (many, after_mib) = ([int(word) for word in line.split()] for line in done.stdout.splitlines())
    assert (few, many) == (5, 5 * count)
    assert after_mib - before_mib < 24


def zipped_file(path: Path) -> Path:
    """The file as the conversations.json of a zip file."""
    target = path.with_suffix(".zip")
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        archive.write(path, "conversations.json")
    path.unlink()
    return target
