"""`memoryrouter completion` and `memoryrouter bench`: what goes with the program and is no part of serving.

Owns how the benchmarks of the package `bench` are found and started. Must never import one: their first lines are read
from their compiled code, and each runs in a process of its own, as `python -m bench.NAME` would.
"""

from __future__ import annotations

import sys
from pathlib import Path

import click

from router.commands.options import JSON
from router.commands.terminal import Column, print_json, print_rows, warn

COMPLETION_VARIABLE = "_MEMORYROUTER_COMPLETE"
"""By which the shells' scripts ask the program itself; click reads it."""

PACKAGE = "bench"
_COLUMNS = (Column("name", style="bold"), Column("question", shrinks=True))


@click.command(short_help="Print the completion script of a shell.")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print the script by which SHELL completes commands, options and values.

    \b
    bash: memoryrouter completion bash > ~/.local/share/bash-completion/completions/memoryrouter
    zsh:  memoryrouter completion zsh > ~/.zfunc/_memoryrouter   (with ~/.zfunc in fpath, before compinit)
    fish: memoryrouter completion fish > ~/.config/fish/completions/memoryrouter.fish
    """
    from click.shell_completion import get_completion_class

    complete = get_completion_class(shell)
    assert complete is not None, "click completes all of the choices"
    program = context.find_root()
    # Its own source() starts the shell to ask for its version; the script is the same whatever that says.
    script = complete(program.command, {}, "memoryrouter", COMPLETION_VARIABLE)
    click.echo(script.source_template % script.source_vars())


def _names_with(_context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[str]:
    return [name for name in benchmarks() if name.startswith(incomplete)]


@click.command(
    short_help="Run one of the benchmarks.",
    context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False},
)
@click.argument("name", required=False, shell_complete=_names_with)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
@click.option("--list", "lists", is_flag=True, help="List the benchmarks, with the question that each answers.")
@JSON
@click.pass_context
def bench(context: click.Context, name: str | None, arguments: tuple[str, ...], *, lists: bool, as_json: bool) -> None:
    """Run the benchmark NAME with its own ARGUMENTS; `bench NAME --help` names them.

    Most start a server of their own on a temporary directory. Their figures are worth something on a quiet machine.
    """
    found = benchmarks()
    if lists or (as_json and name is None):
        _print_list(found, as_json=as_json)
        if not found:
            warn("no benchmarks are installed with this program.")
        return
    if name is None:
        raise click.UsageError("Give the NAME of a benchmark, or --list.")
    if name.replace("-", "_") not in found:
        raise click.UsageError(f"There is no benchmark {name}; `memoryrouter bench --list` names all.")
    context.exit(_run(name.replace("-", "_"), arguments))


def benchmarks() -> dict[str, str]:
    """Every benchmark with the first line of what it says of itself; none where they are not installed."""
    import importlib.util
    import pkgutil

    package = importlib.util.find_spec(PACKAGE)
    if package is None or package.submodule_search_locations is None:
        return {}
    found = {}
    for module in sorted(pkgutil.iter_modules(package.submodule_search_locations), key=lambda module: module.name):
        if not module.name.startswith("_"):
            found[module.name] = _first_line(module.name)
    return found


def _first_line(name: str) -> str:
    import importlib.util

    spec = importlib.util.find_spec(f"{PACKAGE}.{name}")
    code = getattr(spec and spec.loader, "get_code", lambda _: None)(f"{PACKAGE}.{name}")
    words = code.co_consts[0] if code is not None and "__doc__" in code.co_names else ""
    return words.strip().partition("\n")[0] if isinstance(words, str) else ""


def _print_list(found: dict[str, str], *, as_json: bool) -> None:
    if as_json:
        print_json([{"name": name, "question": question} for name, question in found.items()])
    else:
        print_rows(_COLUMNS, found.items())


def _run(name: str, arguments: tuple[str, ...]) -> int:
    """Run one as a program of its own; its exit code.

    Raises:
        SetupError: this program has no Python to run it by.
    """
    import importlib.util
    import os
    import subprocess

    from models.errors import SetupError

    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or not spec.origin:
        raise SetupError("the benchmarks are not installed.", hint="Install the package: pip install .")
    root = str(Path(spec.origin).parent.parent)
    path = os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))
    # -P: a folder `bench` in the current directory is none of ours.
    command = [sys.executable, "-P", "-m", f"{PACKAGE}.{name}", *arguments]
    with subprocess.Popen(command, env={**os.environ, "PYTHONPATH": path}) as process:
        while True:
            try:
                return process.wait()
            except KeyboardInterrupt:  # it got the same signal, and ends in its own way
                continue
