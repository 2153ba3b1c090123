"""How the operator's commands on accounts and keys run: beside a server through its socket, else on the directory.

Owns the options that these commands share, their questions before something is lost, and their lists, which are read
page by page. Heavy imports happen inside the functions, so that `--help` answers at once.
"""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from router.commands.options import Result, load, run
from router.commands.terminal import print_fields, print_json

if TYPE_CHECKING:
    from models.settings import Settings

Body = dict[str, Any]
Perform = Callable[[str, Body], Awaitable[Body]]

PAGE = 1_000

ACCOUNT = click.option("--account", help="Number of the account; the first one unless given.")
ANY_ACCOUNT = click.option("--account", help="Number of an account; all of them unless given.")
YES = click.option("--yes", is_flag=True, help="Do not ask.")


def administer(config: Path | None, data_dir: Path, command: str, **arguments: Any) -> Body:
    """Do an operator's command through the running server if there is one, else on the data directory.

    Args:
        arguments: of the command, see `router.admin`.
    """

    async def use(perform: Perform) -> Body:
        return await perform(command, arguments)

    return _with_administration(config, data_dir, use)


def administer_list(
    config: Path | None, data_dir: Path, command: str, *, count_max: int | None = None, **arguments: Any
) -> list[Body]:
    """All entries of a list, or the first `count_max`."""

    async def use(perform: Perform) -> list[Body]:
        return await _pages(perform, command, arguments, count_max=count_max)

    return _with_administration(config, data_dir, use)


def administer_list_of_accounts(config: Path | None, data_dir: Path, command: str, **arguments: Any) -> list[Body]:
    """All entries of a list that there is one of for each account."""

    async def use(perform: Perform) -> list[Body]:
        found = []
        for account in await _pages(perform, "accounts.list", {}, count_max=None):
            found += await _pages(perform, command, {**arguments, "account": account["id"]}, count_max=None)
        return found

    return _with_administration(config, data_dir, use)


async def _pages(perform: Perform, command: str, arguments: Body, *, count_max: int | None) -> list[Body]:
    found: list[Body] = []
    cursor: str | None = ""
    while cursor is not None and (count_max is None or len(found) < count_max):
        limit = PAGE if count_max is None else min(PAGE, count_max - len(found))
        page = await perform(command, {**arguments, "limit": limit, "cursor": cursor})
        found += page["data"]
        cursor = page["next_cursor"]
    return found


def _with_administration(config: Path | None, data_dir: Path, use: Callable[[Perform], Awaitable[Result]]) -> Result:
    settings = load(config)

    async def administer_once() -> Result:
        async with _open_administration(settings, data_dir) as perform:
            return await use(perform)

    return run(administer_once)


@asynccontextmanager
async def _open_administration(settings: Settings, data_dir: Path) -> AsyncIterator[Perform]:
    """Does commands for the length of the block.

    Raises:
        SetupError: there is no data directory, or another process uses it and does not answer.
    """

    from models.errors import SetupError
    from router.admin_socket import SOCKET_NAME, call_admin

    async def beside_a_server(command: str, arguments: Body) -> Body:
        answer = await call_admin(data_dir / SOCKET_NAME, command, arguments)
        if answer is None:
            raise SetupError("the server has stopped; run the command again.")
        return answer

    if await call_admin(data_dir / SOCKET_NAME, "ping", {}) is not None:
        yield beside_a_server
        return
    from router.admin import Administration  # from here on it takes half a server, and its time to import
    from router.components import wall_clock_ms
    from router.configured_store import open_configured_store, require_files
    from router.upstream import open_upstream

    await require_files(settings, data_dir)
    async with (
        open_configured_store(settings, data_dir) as store,
        open_upstream(settings.providers.by_name) as upstream,
    ):
        yield Administration(store, settings, upstream, now_ms=wall_clock_ms).perform


# --- words ---


def ask(question: str, *, yes: bool) -> None:
    """Let whoever sits at a terminal confirm what cannot be undone; a script is taken at its word."""
    if not yes and sys.stdin.isatty():
        click.confirm(question, abort=True, err=True)


def number_in(public: str) -> str:
    """The number in an id such as `key_12`."""
    return public.rpartition("_")[2]


def days_in(text: str) -> int | None:
    """Days after which memories are deleted, as typed: a number, or `none`.

    Raises:
        click.BadParameter: neither.
    """
    if text.lower() == "none":
        return None
    if not text.isascii() or not text.isdigit():
        raise click.BadParameter("DAYS must be a number of days, or none.")
    return int(text)


def print_item(item: Body, *, as_json: bool) -> None:
    """One thing: a line for each of its fields."""
    if as_json:
        print_json(item)
    else:
        print_fields(item)


def print_done(item: Body, sentence: str, *, as_json: bool) -> None:
    """What became of a change: all that is known of what was changed, or one line."""
    if as_json:
        print_json(item)
    else:
        click.echo(sentence)
