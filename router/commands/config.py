"""`memoryrouter config`: the configuration file with every setting, its comment and its default.

Owns where that file is: beside the program's modules, also in a wheel and in the single executable file.
"""

from __future__ import annotations

from pathlib import Path

import click

from models.errors import SetupError

DEFAULT_CONFIG = Path(__file__).parents[1] / "config.toml"


@click.command("config", short_help="Print a configuration file with every setting.")
@click.option("--output", type=click.Path(path_type=Path), help="Write it to this file, which must not be there yet.")
def print_config(output: Path | None) -> None:
    """Print a configuration file with every setting, what it means, and its default.

    Such as: memoryrouter config --output config.toml
    """
    text = DEFAULT_CONFIG.read_text(encoding="utf-8")
    if output is None:
        click.echo(text, nl=False)
        return
    try:
        with output.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise SetupError(f"{output} is already there.") from None
    except OSError as error:
        raise SetupError(f"{output} cannot be written: {error.strerror}.") from error
    click.echo(f"written: {output}")
