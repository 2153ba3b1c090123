"""Code that runs before any program: found, unless it is expected."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from router.cli import main
from router.startup_code import unexpected_startup_code


def test_only_files_with_code_that_nobody_expects_are_named(tmp_path: Path) -> None:
    code, paths = "import os; os.system('true')\n", "/some/folder\nimportant/folder\n"
    for name, text in [
        ("planted.pth", code), ("after_paths.pth", f"{paths}import\tbase64\n"), ("paths.pth", paths),
        ("distutils-precedence.pth", code), ("__editable__.memoryrouter-0.1.0.pth", code), ("planted.txt", code),
    ]:  # fmt: skip
        (tmp_path / name).write_text(text, encoding="utf-8")
    found = unexpected_startup_code([str(tmp_path), str(tmp_path), str(tmp_path / "missing")])
    assert [file.name for file in found] == ["after_paths.pth", "planted.pth"]


def test_a_name_that_only_begins_like_an_expected_one_is_not_expected(tmp_path: Path) -> None:
    (tmp_path / "distutils-precedence.pth.pth").write_text("import os\n", encoding="utf-8")
    assert len(unexpected_startup_code([str(tmp_path)])) == 1


@pytest.mark.parametrize("as_json", [False, True])
def test_the_doctor_warns_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *, as_json: bool
) -> None:
    """And calls the data healthy: it is."""
    (tmp_path / "packages").mkdir()
    planted = tmp_path / "packages" / "planted.pth"
    planted.write_text("import os\n", encoding="utf-8")
    monkeypatch.setattr("site.getsitepackages", lambda: [str(planted.parent)])
    data = ["--data-dir", str(tmp_path / "data")]
    with pytest.raises(SystemExit):
        main(["init", *data])
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        main(["doctor", *data, *(["--json"] if as_json else [])])
    assert ended.value.code == 0
    said = capsys.readouterr().out
    if as_json:
        assert [finding["where"] for finding in json.loads(said)["findings"]] == [str(planted)]
    else:
        assert f"warning: {planted}: " in said
