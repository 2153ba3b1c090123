"""The command line: what it prints where, its exit codes, and that errors are one line without a traceback."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
import trio

from actors.store.sqlite import open_store
from models.errors import SetupError, StoreUnavailable
from models.store_settings import StoreSettings
from models.version import VERSION
from router.cli import program, run_program
from tests.patience import PATIENCE_S

PROJECT = Path(__file__).parents[2]
ACCOUNT_KEY_LINE = re.compile(r"account key: mk_[A-Za-z0-9_-]{32,}\n")


pytestmark = pytest.mark.usefixtures("outside_of_the_project")


def test_the_version_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_program(["--version"]) == 0
    assert capsys.readouterr().out == f"memoryrouter {VERSION}\n"


@pytest.mark.parametrize("arguments", [["-h"], ["--help"], ["serve", "-h"], ["keys", "create", "--help"]])
def test_help_goes_to_stdout(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> None:
    assert run_program(arguments) == 0
    assert capsys.readouterr().out.startswith("Usage: memoryrouter")


@pytest.mark.parametrize(("arguments", "listed"), [([], "  serve  "), (["keys"], "  create  ")])
def test_without_a_command_the_help_is_an_error(
    capsys: pytest.CaptureFixture[str], arguments: list[str], listed: str
) -> None:
    assert run_program(arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert listed in captured.err


def test_version_and_help_load_nothing_heavy() -> None:
    """`--help` answers at once: no event loop, no arrays, no web framework, no model runtime."""
    program = (
        "import sys; from router.cli import run_program; run_program(['--version']); "
        "heavy = set('trio numpy quart hypercorn onnxruntime apsw msgspec httpx rich ssl'.split()); "
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=PROJECT, capture_output=True, text=True, timeout=PATIENCE_S, check=True
    )

    assert done.stdout.splitlines()[-1] == "[]"


EXIT_CODES = "Exit codes: 0 done; 1 a fault, or a refused command; 2 a mistake"

WITHOUT_JSON = {
    "serve": "it runs, and its log is JSON",
    "completion": "a shell's script is what it prints",
    "config": "a file in TOML is what it prints",
}


def all_commands(
    group: click.Group = program, path: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """Every command that does something, with the words that name it."""
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from all_commands(command, (*path, name))
        else:
            yield (*path, name), command


COMMANDS = dict(all_commands())


def test_the_walk_finds_the_commands() -> None:
    assert len(COMMANDS) > 40
    assert {("serve",), ("keys", "create"), ("upload",), ("bench",)} <= set(COMMANDS)


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_every_command_explains_itself_prints_json_and_knows_its_mistakes(
    capsys: pytest.CaptureFixture[str], path: tuple[str, ...]
) -> None:
    command = COMMANDS[path]
    options = [option for option in command.params if isinstance(option, click.Option)]
    assert command.help
    assert all(option.help for option in options)
    assert ("--json" in {name for option in options for name in option.opts}) != (" ".join(path) in WITHOUT_JSON)
    assert run_program([*path, "--help"]) == 0
    assert capsys.readouterr().out.startswith(f"Usage: memoryrouter {' '.join(path)}")
    assert run_program([*path, "--no-such-option"]) == 2
    error_line(capsys)


def test_the_help_lists_every_command_once_on_one_line_and_the_exit_codes(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_program(["--help"]) == 0
    text = capsys.readouterr().out
    assert EXIT_CODES in " ".join(text.split())
    listed = re.findall(r"^  ([a-z-]+)  +\S", text.partition("Server:")[2].partition("Exit codes")[0], re.M)
    assert sorted(listed) == sorted(program.commands)
    assert "..." not in text.partition("Server:")[2]


def error_line(capsys: pytest.CaptureFixture[str]) -> str:
    """The one line on stderr of a command that printed no result."""
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("error: ")
    assert captured.err.count("\n") == 1
    assert captured.err.endswith("\n")
    return captured.err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["serve", "--port", "70000"], "server.port must be an integer from 0 to 65535"),
        (["serve", "--port", "many"], "'many' is not a valid integer"),
        (["serve", "--prt", "1"], "No such option"),
        (["serve", "--config", "absent.toml"], "absent.toml: the configuration cannot be read"),
        (["serve", "--host", "203.0.113.7"], "203.0.113.7 is no address of this machine"),
        (["init", "--data-dir", "/proc/none"], "The data directory /proc/none cannot be written"),
        (["keys", "list"], "there is no data directory data; run `memoryrouter init`"),
        (["keys", "create"], "Missing argument 'NAME'"),
        (["unknown"], "No such command"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(
    capsys: pytest.CaptureFixture[str], arguments: list[str], words: str
) -> None:
    assert run_program(arguments) == 2
    assert words in error_line(capsys)


def test_a_wrong_directory_does_not_become_a_data_directory(capsys: pytest.CaptureFixture[str]) -> None:
    Path("data").mkdir()
    for arguments in (["keys", "list"], ["audit"], ["export", "--vault", "1", "--output", "x"]):
        assert run_program(arguments) == 2, arguments
        assert "no data directory" in error_line(capsys)
    assert not list(Path("data").iterdir())


def test_a_mistake_in_config_or_environment_is_one_line_and_exit_code_2(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("config.toml").write_text("[server]\nprot = 1\n")
    assert run_program(["init"]) == 2
    assert "unknown setting server.prot; did you mean server.port?" in error_line(capsys)

    Path("config.toml").unlink()
    monkeypatch.setenv("MEMORYROUTER_STORE__SHARDS", "0")
    assert run_program(["init"]) == 2
    assert "MEMORYROUTER_STORE__SHARDS: store.shards must be an integer from 1 to 64" in error_line(capsys)
    assert not Path("data").exists()


def test_init_prints_the_account_key_once(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_program(["init"]) == 0
    assert ACCOUNT_KEY_LINE.fullmatch(capsys.readouterr().out)
    assert Path("data").is_dir()

    assert run_program(["init"]) == 2
    assert "initialised already" in error_line(capsys)


def test_init_as_json_ends_with_the_account_key(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_program(["init", "--json", "--data-dir", "elsewhere"]) == 0

    printed = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert set(printed) == {"account_key"}
    assert printed["account_key"].startswith("mk_")
    assert Path("elsewhere").is_dir()


def run_json(capsys: pytest.CaptureFixture[str], *arguments: str) -> object:
    """The JSON that a command prints as its last line."""
    assert run_program([*arguments, "--json"]) == 0
    return json.loads(capsys.readouterr().out.splitlines()[-1])


def test_keys_are_created_listed_and_revoked_without_a_server(capsys: pytest.CaptureFixture[str]) -> None:
    run_program(["init"])
    capsys.readouterr()

    created = run_json(capsys, "keys", "create", "user:42")
    assert isinstance(created, dict)
    assert list(created) == ["key", "name", "created_at"]
    assert created["name"] == "user:42"
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", created["created_at"])

    rows = run_json(capsys, "keys", "list")
    assert isinstance(rows, list)
    assert [(row["kind"], row["name"]) for row in rows][1] == ("user", "user:42")
    assert rows[1]["key"] == created["key"][:7] + "…"

    assert run_program(["keys", "revoke", str(rows[1]["number"])]) == 0
    capsys.readouterr()
    rows = run_json(capsys, "keys", "list", "--all")
    assert isinstance(rows, list)
    assert rows[0]["revoked_at"] is None
    assert rows[1]["revoked_at"] is not None

    assert run_program(["keys", "list", "--all"]) == 0
    listed = capsys.readouterr().out
    assert created["key"] not in listed
    assert re.search(r"^2\tuser:42\tuser\tmk_.{4}…\trevoked\t", listed, re.M)


def test_a_key_without_json_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    run_program(["init"])
    capsys.readouterr()

    assert run_program(["keys", "create", "user:42"]) == 0
    assert re.fullmatch(r"key: mk_[A-Za-z0-9_-]{32,}\n", capsys.readouterr().out)


def test_a_refused_command_is_one_line_and_exit_code_1(capsys: pytest.CaptureFixture[str]) -> None:
    run_program(["init"])
    capsys.readouterr()

    assert run_program(["keys", "revoke", "99"]) == 1
    assert "there is no key with number 99" in error_line(capsys)
    assert run_program(["keys", "create", "x" * 201]) == 1
    assert "name must have 1 to 200 characters" in error_line(capsys)


def test_a_lost_account_key_is_replaced(capsys: pytest.CaptureFixture[str]) -> None:
    run_program(["init"])
    lost = capsys.readouterr().out

    assert run_program(["keys", "replace-account-key"]) == 0
    replaced = capsys.readouterr().out
    assert ACCOUNT_KEY_LINE.fullmatch(replaced)
    assert replaced != lost
    rows = run_json(capsys, "keys", "list", "--all")
    assert isinstance(rows, list)
    assert [(row["kind"], row["revoked_at"] is None) for row in rows] == [("account", False), ("account", True)]


def test_a_directory_without_an_account_says_what_to_do(capsys: pytest.CaptureFixture[str]) -> None:
    async def open_and_close() -> None:
        async with open_store(Path("data"), settings=StoreSettings()):
            pass

    trio.run(open_and_close)
    assert run_program(["keys", "create", "user:42"]) == 2
    assert "there is no account yet. Run `memoryrouter init`" in error_line(capsys)


def test_an_error_inside_nurseries_is_still_one_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nurseries wrap what they raise in groups of groups."""
    from router import service

    async def serve(*_: object, **__: object) -> None:
        raise ExceptionGroup("outer", [ExceptionGroup("inner", [SetupError("the port is in use.")])])

    monkeypatch.setattr(service, "serve", serve)
    assert run_program(["serve"]) == 2
    assert error_line(capsys) == "error: the port is in use.\n"

    async def fail(*_: object, **__: object) -> None:
        raise ExceptionGroup("outer", [StoreUnavailable("the disk\nis gone.")])

    monkeypatch.setattr(service, "serve", fail)
    assert run_program(["serve"]) == 1
    assert error_line(capsys) == "error: the disk is gone.\n"


def test_an_unforeseen_fault_shows_its_place_and_not_its_text(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from router import service

    async def serve(*_: object, **__: object) -> None:
        raise ValueError("my sister's name is Ada")

    monkeypatch.setattr(service, "serve", serve)
    assert run_program(["serve"]) == 1

    line = json.loads(capsys.readouterr().err)
    assert line["event"] == "crashed"
    assert line["error"].startswith("ValueError at router/test_cli.py:")
    assert "Ada" not in str(line)


class Server:
    """`python -m router serve` as a process of its own, ready when it says where it serves."""

    def __init__(self, data_dir: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "router", "serve", "--data-dir", str(data_dir), "--port", "0"],
            cwd=PROJECT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert self.process.stderr is not None
        self.url = ""
        for line in self.process.stderr:
            if (event := json.loads(line))["event"] == "serving":
                self.url = event["url"]
                break
        assert self.url, "the server did not start"

    def stop(self) -> tuple[int, str]:
        """End it as an operator would; its exit code and all that it wrote to stdout."""
        self.process.send_signal(signal.SIGTERM)
        out, _ = self.process.communicate(timeout=PATIENCE_S)
        return self.process.returncode, out


def run_beside(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Another process of the program, in the project's directory."""
    return subprocess.run(
        [sys.executable, "-m", "router", *arguments],
        cwd=PROJECT, capture_output=True, text=True, timeout=PATIENCE_S, check=False,
    )  # fmt: skip


def test_a_server_from_first_start_to_second(tmp_path: Path) -> None:
    """One account key line on the first start only; keys through the socket; one line for what is taken; exit 0."""
    data_dir = tmp_path / "data"
    server = Server(data_dir)
    port = server.url.rpartition(":")[2]

    created = run_beside("keys", "create", "user:42", "--json", "--data-dir", str(data_dir))
    assert json.loads(created.stdout)["name"] == "user:42", created.stderr
    for arguments, words in (
        (["serve", "--port", port, "--data-dir", str(tmp_path / "other")], f"port {port} is already in use"),
        (["serve", "--port", "0", "--data-dir", str(data_dir)], "in use by another process"),
        (["init", "--data-dir", str(data_dir)], "in use by another process"),
    ):
        refused = run_beside(*arguments)
        assert (refused.returncode, refused.stdout) == (2, ""), refused.stderr
        assert words in refused.stderr
        assert refused.stderr.count("\n") == 1
    code, out = server.stop()
    assert code == 0
    assert ACCOUNT_KEY_LINE.fullmatch(out)

    again = Server(data_dir)
    assert again.stop() == (0, "")
    listed = run_beside("keys", "list", "--json", "--data-dir", str(data_dir))
    assert [row["name"] for row in json.loads(listed.stdout)][1:] == ["user:42"]
