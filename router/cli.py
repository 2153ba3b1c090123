"""The command line: the program, its first commands and its errors; the same as `python -m router`.

Owns stdout (results only; logs go to stderr), the exit codes and the words of an error that ends a command:
one line, no traceback. Heavy imports happen inside the commands, so that `--help` answers at once.

Exit codes: 0 done, 1 a fault or a refused command, 2 a mistake in settings, arguments or the data directory.
"""

from __future__ import annotations

import errno
import logging
import os
import sys
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import click

from models.version import VERSION
from router.commands.accounts import accounts, audit
from router.commands.chatting import chat
from router.commands.cluster import cluster
from router.commands.config import print_config
from router.commands.grouping import Grouped
from router.commands.keys import keys, vaults
from router.commands.migrating import migrate_store
from router.commands.operations import backup, doctor, restore, rotate_server_key
from router.commands.options import CONFIG, DATA_DIR, EXIT_FAULT, EXIT_SETUP, JSON, load, run, with_store
from router.commands.providers import providers
from router.commands.searching import search
from router.commands.server_status import status
from router.commands.terminal import complain, print_json, settle_streams, warn
from router.commands.tools import bench, completion
from router.commands.transfers import export_command, import_command
from router.commands.upload import upload_command

if TYPE_CHECKING:
    from actors.store.directory_protocol import Directory

Fault = TypeVar("Fault", bound=Exception)

_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS})

EPILOG = """\
Exit codes: 0 done; 1 a fault, or a refused command; 2 a mistake in arguments, settings or the data directory.

Results go to stdout, everything else to stderr. Lists are tables on a terminal, lines with tabs when piped, and JSON
with --json. NO_COLOR, FORCE_COLOR and TERM=dumb are honoured.
"""


@click.group(cls=Grouped, context_settings={"help_option_names": ["-h", "--help"]}, epilog=EPILOG)
@click.version_option(VERSION, prog_name="memoryrouter", message="%(prog)s %(version)s")
def program() -> None:
    """A private memory for every user of an AI product, behind the URL of an OpenAI-style API."""


@click.command()
@CONFIG
@DATA_DIR
@click.option("--host", help="Address to listen on; overrides server.host.")
@click.option("--port", type=int, help="Port to listen on; overrides server.port.")
@click.option("--workers", type=int, help="Processes that share the work; overrides server.workers.")
@click.pass_context
def serve(
    context: click.Context, config: Path | None, data_dir: Path, host: str | None, port: int | None, workers: int | None
) -> None:
    """Run the server. The first start creates the account and prints its key once."""
    settings = load(config, {"server.host": host, "server.port": port, "server.workers": workers})
    from models.settings_loading import missing_provider_keys
    from router.observe import log_event
    from router.startup_code import unexpected_startup_code

    for file in unexpected_startup_code():
        log_event("unexpected_startup_code", level=logging.WARNING, file=str(file))
    for sentence in missing_provider_keys(settings, os.environ):
        log_event("provider_key_missing", level=logging.WARNING, reason=sentence)
    if settings.server.workers > 1:
        from router.workers import serve_with_workers

        context.exit(
            run(partial(serve_with_workers, settings, data_dir=data_dir, announce=_print_account_key, warn=warn))
        )
    from router.runtime import begin_imports, settle_interpreter, uncaught_errors_logged

    begin_imports()
    from router import service

    settle_interpreter()
    with uncaught_errors_logged():
        run(partial(service.serve, settings, data_dir=data_dir, announce=_print_account_key, warn=warn))


@click.command(short_help="Create the data directory, and print its account key.")
@CONFIG
@DATA_DIR
@JSON
def init(config: Path | None, data_dir: Path, *, as_json: bool) -> None:
    """Create the data directory with its account, and print the account key once."""
    settings = load(config)
    from router.admin import create_account
    from router.components import wall_clock_ms

    async def create(directory: Directory) -> str:
        return await create_account(directory, created_ms=wall_clock_ms())

    key = run(partial(with_store, settings, data_dir, create))
    if as_json:
        print_json({"account_key": key})
    else:
        _print_account_key(key)


program.add_section("Server", serve, init, status, cluster)
program.add_section("Memory", chat, search, upload_command, export_command, import_command)
program.add_section("Keys and accounts", keys, vaults, accounts, providers, audit)
program.add_section("Data directory", backup, restore, doctor, rotate_server_key, migrate_store)
program.add_section("Tools", print_config, bench, completion)


# --- how commands run ---


def main(arguments: list[str] | None = None) -> None:
    """Run the program and exit the process with its code."""
    settle_streams()
    sys.exit(run_program(sys.argv[1:] if arguments is None else arguments))


def run_program(arguments: list[str]) -> int:
    """Run one command and return its exit code; whatever ends it early has become one line on stderr."""
    try:
        code = program.main(args=arguments, prog_name="memoryrouter", standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        return EXIT_SETUP
    except click.ClickException as error:
        return _complain(error.format_message(), EXIT_SETUP)
    except (click.Abort, KeyboardInterrupt):
        return _complain("interrupted.", EXIT_FAULT)
    except Exception as error:
        return _explain(error, arguments)
    except BaseExceptionGroup:
        return _complain("interrupted.", EXIT_FAULT)
    return code if isinstance(code, int) else 0


def _explain(error: Exception, arguments: list[str]) -> int:
    """One line for an error of a command, perhaps inside the groups of nurseries; returns the exit code.

    A fault that nobody foresaw is told by type and place only: its own text may quote a memory.
    """
    from models.errors import MemoryRouterError, SetupError

    if _first(error, BrokenPipeError):  # as in `memoryrouter keys list | head`
        _write_no_more()
        return EXIT_FAULT
    for kind in (SetupError, MemoryRouterError):
        known = _first(error, kind)
        if known is not None:
            text = f"{known.message} {known.hint}".strip()
            return _complain(text, EXIT_SETUP if kind is SetupError else EXIT_FAULT)
    if _first(error, UnicodeEncodeError) and not all(map(_is_text, arguments)):
        return _complain("an argument has bytes that are no text in this locale.", EXIT_SETUP)
    refused = _first(error, OSError)
    if refused is not None and refused.errno in _NO_ROOM:
        _write_no_more()
        return _complain(f"{refused.filename or 'the output'} cannot be written: {refused.strerror}.", EXIT_FAULT)
    return _report_bug(error)


def _report_bug(error: Exception) -> int:
    from router.observe import describe_error, log_event

    if logging.getLogger().handlers:
        log_event("crashed", level=logging.CRITICAL, error=error)
        return EXIT_FAULT
    return _complain(f"this is a bug: {describe_error(error)}", EXIT_FAULT)


def _is_text(argument: str) -> bool:
    """Whether it has none of the surrogates that stand for bytes which could not be decoded."""
    return not any("\ud800" <= character <= "\udfff" for character in argument)


def _write_no_more() -> None:
    """What is left in stdout's buffer has nowhere to go; the flush at exit must not meet the same error again."""
    with suppress(OSError, ValueError):  # no descriptor: not a real stream
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _first(error: BaseException, kind: type[Fault]) -> Fault | None:
    """The first error of this kind in a group of groups, or the error itself."""
    if isinstance(error, kind):
        return error
    if isinstance(error, BaseExceptionGroup):
        return next(filter(None, (_first(part, kind) for part in error.exceptions)), None)
    return None


def _complain(text: str, code: int) -> int:
    complain(" ".join(text.split()))
    return code


def _print_account_key(key: str) -> None:
    click.echo(f"account key: {key}")
