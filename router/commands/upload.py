"""`memoryrouter upload`: files of any known kind into the vault of a key.

Owns the words and figures of the command, and the choice of the way: over HTTP where a server's address is given or one
runs on the data directory, else by opening that itself. Everything is read and checked before anything is sent. Heavy
imports happen inside, so that `--help` answers at once.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from router.commands.connecting import KEY, URL, require_key, server_of
from router.commands.options import CONFIG, DATA_DIR, JSON, load, run
from router.commands.terminal import Column, Progress, one_line, print_fields, print_json, print_rows

if TYPE_CHECKING:
    from models.settings import Settings
    from router.commands.upload_delivery import Delivery, ProgressFile
    from router.commands.upload_plan import Choice, Line, Survey

FORMATS = ("jsonl", "chat", "chatgpt", "claude", "mem0", "zep", "markdown", "text")
STDIN = "-"
SAMPLE_CHARACTERS = 60
SHOWN_EVERY = 1_000

Paths = list[tuple[Path, str]]

EPILOG = """FILES are JSON lines, exports of ChatGPT and Claude (the .zip or a .json of it), memories of mem0 and Zep,
Markdown, plain text, directories of them, or - for stdin; .gz and .zip are unpacked. Exit codes: 0 done; 1 a fault, or
files that cannot be read whole; 2 a mistake in arguments or settings."""


def _since(_context: click.Context, _parameter: click.Parameter, value: str | None) -> int | None:
    if value is None:
        return None
    from models.archives.entries import time_ms

    found = time_ms(value)
    if found is None:
        raise click.BadParameter(f"{value} is no date like 2025-01-31 or 2025-01-31T12:00:00Z.")
    return found


@click.command("upload", epilog=EPILOG, short_help="Store files, chat exports or notes in a vault.")
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path, allow_dash=True))
@click.option("--format", "format_name", type=click.Choice(FORMATS), help="Of all FILES, instead of finding it out.")
@click.option("--session", help="Session of everything, instead of one for each conversation.")
@click.option("--since", "since_ms", metavar="DATE", callback=_since, help="Leave out what was told before.")
@click.option("--role", type=click.Choice(["user", "assistant"]), help="Only what this side said.")
@click.option("--user", help="Only what the files say is this user's, where they hold several users' memories.")
@click.option("--limit", type=click.IntRange(min=1), help="At most so many messages, the first ones.")
@click.option("--skip-bad", is_flag=True, help="Leave out what cannot be read, instead of storing nothing.")
@click.option("--dry-run", is_flag=True, help="Only say what would be stored.")
@click.option("--show", "shows_text", is_flag=True, help="With --dry-run: show the beginning of some texts.")
@click.option("--restart", is_flag=True, help="Begin anew instead of going on with an upload that broke off.")
@KEY
@URL
@CONFIG
@DATA_DIR
@JSON
def upload_command(
    files: tuple[Path, ...],
    format_name: str | None,
    session: str | None,
    since_ms: int | None,
    role: str | None,
    user: str | None,
    limit: int | None,
    key: str | None,
    url: str | None,
    config: Path | None,
    data_dir: Path,
    *,
    skip_bad: bool,
    dry_run: bool,
    shows_text: bool,
    restart: bool,
    as_json: bool,
) -> None:
    """Store the messages of FILES in the vault of a key.

    Everything is read and checked before anything is sent. What the vault knows already is passed over, so an export
    that has grown is simply uploaded again; an upload that broke off goes on where it was.
    """
    if shows_text and not dry_run:
        raise click.UsageError("--show needs --dry-run.")
    if not dry_run:
        key = require_key(key)
    settings = load(config)
    from router.commands.upload_plan import Choice

    choice = Choice(format_name=format_name, session_id=session, since_ms=since_ms, role=role, user=user, limit=limit)
    with _readable(files) as paths:
        survey = _surveyed(paths, choice, settings)
        _check(survey, choice, skip_bad=skip_bad, as_json=as_json)
        if dry_run or key is None:
            _print_dry_run(survey, shows_text=shows_text, as_json=as_json)
            return
        url = url or server_of(data_dir)
        file = None
        if not any(map(_flows, files)):  # what comes through a pipe is gone
            file = _progress_file(url or str(data_dir.resolve()), key, paths, choice)
            if restart:
                file.forget()
        delivery = _deliver(paths, choice, settings, survey.messages, file, url=url, key=key, data_dir=data_dir)
    _print_result(survey, delivery, as_json=as_json)


@contextmanager
def _readable(files: tuple[Path, ...]) -> Iterator[Paths]:
    """The files, in a form that can be read twice, each with the name to show: of what flows, a copy."""
    with ExitStack() as opened:
        copies: dict[Path, Path] = {}
        for path in dict.fromkeys(filter(_flows, files)):
            folder = opened.enter_context(tempfile.TemporaryDirectory(prefix="memoryrouter-"))
            copies[path] = Path(folder, "copy")
            with ExitStack() as copying:
                mode = os.O_WRONLY | os.O_CREAT | os.O_EXCL
                copy = copying.enter_context(os.fdopen(os.open(copies[path], mode, 0o600), "wb"))
                is_stdin = str(path) == STDIN
                shutil.copyfileobj(sys.stdin.buffer if is_stdin else copying.enter_context(path.open("rb")), copy)
        yield [(copies.get(path, path), "stdin" if str(path) == STDIN else str(path)) for path in files]


def _flows(path: Path) -> bool:
    """Whether it can be read only once: stdin, or a pipe, which `<(command)` and `/dev/stdin` are, too."""
    return str(path) == STDIN or path.is_fifo()


def _surveyed(paths: Paths, choice: Choice, settings: Settings) -> Survey:
    from router.commands.upload_plan import Survey, planned_lines

    survey = Survey()
    with Progress("read", unit="messages") as progress:
        for _ in planned_lines(paths, choice, survey, settings=settings.memory):
            if survey.messages % SHOWN_EVERY == 0:
                progress.show(survey.messages)
    return survey


def _check(survey: Survey, choice: Choice, *, skip_bad: bool, as_json: bool) -> None:
    """Refuse what must not be stored.

    Raises:
        click.UsageError: memories of several users for one vault.
        InvalidRequest: something cannot be read, and nobody said that it may be left out.
    """
    if len(survey.owners) > 1 and choice.user is None:
        named = ", ".join(sorted(one_line(owner) for owner in survey.owners)[:5])
        raise click.UsageError(
            f"These are the memories of {len(survey.owners)} users ({named} ...), and a vault is for one. "
            "Choose one by --user; docs/importing.md shows how to upload them all, each into a vault of its own."
        )
    for problem in survey.problems:
        click.echo(f"{'skipped' if skip_bad else 'bad'}: {one_line(problem)}", err=True)
    if survey.bad and not skip_bad:
        if as_json:
            print_json({**_figures(survey), "stored": 0, "duplicates": 0})
        from models.errors import InvalidRequest

        raise InvalidRequest(
            f"{survey.bad} entries cannot be read; nothing was sent.",
            hint="Mend them, or leave them out by --skip-bad.",
        )


def _progress_file(where: str, key: str, paths: Paths, choice: Choice) -> ProgressFile:
    """The progress file of this upload: the same files, unchanged, to the same vault, with the same choices."""
    from models.ids import hash_key
    from router.commands.upload_delivery import progress_file, progress_folder

    states: list[object] = []
    for path, _ in paths:
        inner = [path] if not path.is_dir() else sorted(found for found in path.rglob("*") if found.is_file())
        for file in inner:
            status = file.stat()
            states.append((str(file.resolve()), status.st_size, status.st_mtime_ns))
    return progress_file(progress_folder(), where, hash_key(key).hex(), choice, *states)


def _deliver(
    paths: Paths,
    choice: Choice,
    settings: Settings,
    total: int,
    file: ProgressFile | None,
    *,
    url: str | None,
    key: str,
    data_dir: Path,
) -> Delivery:
    """Send everything, and forget how far it was only when it is through."""
    from models.errors import InvalidRequest, MemoryRouterError
    from router.commands.upload_delivery import Delivery
    from router.commands.upload_plan import Survey, planned_lines

    def lines() -> Iterator[Line]:
        return planned_lines(paths, choice, Survey(), settings=settings.memory)

    delivery = Delivery(lines, file)
    with Progress("uploaded", unit="messages") as progress:

        def show(done: int) -> None:
            progress.show(done, total)

        show(delivery.done)
        try:
            _send(delivery, settings, show, url=url, key=key, data_dir=data_dir)
        except MemoryRouterError as error:
            if delivery.done:
                error.hint = f"{error.hint} {delivery.done} of {total} messages are through; run it again to go on."
            raise
    delivery.finish()
    if delivery.done != total:
        raise InvalidRequest(
            f"The files have changed while they were read: {delivery.done} messages instead of {total} were sent.",
            hint="Run it again; nothing is stored twice.",
        )
    return delivery


def _send(
    delivery: Delivery, settings: Settings, show: Callable[[int], None], *, url: str | None, key: str, data_dir: Path
) -> None:
    if url:
        from router.commands.upload_http import upload_over_http

        upload_over_http(delivery, url, key, show=show)
    else:
        from router.commands.upload_direct import upload_into_directory

        run(partial(upload_into_directory, delivery, settings, data_dir, key=key, show=show))


# --- words ---


def _figures(survey: Survey) -> dict[str, Any]:
    return {
        "files": survey.files,
        "conversations": survey.conversations,
        "messages": survey.messages,
        "sessions": survey.sessions,
        "oldest": _iso(survey.oldest_ms),
        "newest": _iso(survey.newest_ms),
        "skipped": dict(sorted(survey.skipped.items())),
        "errors": survey.bad,
        "problems": survey.problems,
    }


def _print_dry_run(survey: Survey, *, shows_text: bool, as_json: bool) -> None:
    figures = _figures(survey)
    samples = [
        {
            "timestamp": _iso(fields.get("timestamp")),
            "role": fields.get("role") or "user",
            "session_id": fields.get("session_id"),
            "characters": len(fields["content"]),
            **({"content": one_line(fields["content"])[:SAMPLE_CHARACTERS]} if shows_text else {}),
        }
        for fields in survey.samples
    ]
    if as_json:
        print_json({**figures, "dry_run": True, "samples": samples})
        return
    del figures["problems"]
    print_fields(figures)
    columns = [
        Column("told", minutes=True),
        Column("role"),
        Column("session", shrinks=True),
        Column("characters", "right"),
    ]
    columns += [Column("text", shrinks=True)] if shows_text else []
    print_rows(columns, [list(sample.values()) for sample in samples])


def _print_result(survey: Survey, delivery: Delivery, *, as_json: bool) -> None:
    figures = _figures(survey)
    if as_json:
        print_json(
            {**figures, "stored": delivery.stored, "duplicates": delivery.duplicates, "resumed": delivery.resumed}
        )
        return
    before = f"; {delivery.resumed} were sent before" if delivery.resumed else ""
    click.echo(
        f"uploaded: {delivery.stored} of {survey.messages} messages; {delivery.duplicates} were known already{before}"
    )
    if survey.skipped or survey.bad:
        reasons = [f"{count} {reason}" for reason, count in sorted(survey.skipped.items())]
        reasons += [f"{survey.bad} unreadable"] if survey.bad else []
        click.echo(f"left out: {', '.join(reasons)}")


def _iso(moment_ms: object) -> str | None:
    from models.times import format_time

    return format_time(int(moment_ms)) if isinstance(moment_ms, int | float) else None
