"""What the commands share: their common options, and how they load settings and run.

Owns the exit codes. Heavy imports happen inside the functions, so that `--help` answers at once.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from actors.store.directory_protocol import Directory
    from models.settings import Settings

Result = TypeVar("Result")

EXIT_FAULT = 1
EXIT_SETUP = 2

CONFIG = click.option(
    "--config", type=click.Path(path_type=Path), help="Configuration file; ./config.toml unless given."
)
DATA_DIR = click.option(
    "--data-dir",
    type=click.Path(path_type=Path),
    default=Path("data"),
    help="Data directory; ./data unless given.",
)
JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


def load(config: Path | None, overrides: dict[str, Any] | None = None) -> Settings:
    """The settings that hold for this command; from here on logs go where they say."""
    from models.settings_loading import load_settings
    from router.observe import configure_logging

    settings = load_settings(config, os.environ, overrides=overrides)
    configure_logging(settings.log)
    return settings


def run(command: Callable[[], Awaitable[Result]]) -> Result:
    """Run a command's async part."""
    import trio

    return trio.run(command)


async def with_store(settings: Settings, data_dir: Path, use: Callable[[Directory], Awaitable[Result]]) -> Result:
    """Do something with the store of a data directory that no server uses, or that of a database."""
    from router.configured_store import open_configured_store

    async with open_configured_store(settings, data_dir) as store:
        return await use(store)
