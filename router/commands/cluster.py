"""The operator's commands on a cluster: who is there and owns what, and what should move.

Owns their words; what they do is in `actors.cluster.operations`. They need the database only, and no server on this
machine. Heavy imports happen inside the functions. Must never show the database's URL: it may hold a password.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from router.commands.options import CONFIG, EXIT_FAULT, JSON, load
from router.commands.terminal import Column, note, print_fields, print_json, print_rows

if TYPE_CHECKING:
    from actors.cluster.operations import ClusterStatus

_NODES = (
    Column("node", style="bold"),
    Column("state"),
    Column("address"),
    Column("zone", rank=2),
    Column("version", rank=1),
    Column("lease s", "right", rank=3),
    Column("parts", "right"),
    Column("of", "right"),
)
_PARTS = (
    Column("part", "right", "bold"),
    Column("owner"),
    Column("placed at"),
    Column("epoch", "right"),
    Column("pinned to", rank=1),
)


@click.group(short_help="Show a cluster's nodes and partitions, and move them.")
def cluster() -> None:
    """Show and change how the servers on one PostgreSQL database share its partitions. NODE is as in `status`."""


@cluster.command("status")
@click.option("--parts", "shows_parts", is_flag=True, help="Also every partition.")
@CONFIG
@JSON
@click.pass_context
def show_status(context: click.Context, config: Path | None, *, shows_parts: bool, as_json: bool) -> None:
    """Show the nodes, how many partitions each owns, and how many it should.

    Exit code 0: every partition is owned by the node that should own it. 1: some are not, yet or any more.
    """
    from actors.cluster.operations import status

    found = status(_url(config))
    if as_json:
        print_json(_as_json(found, parts=shows_parts))
    else:
        _print(found, parts=shows_parts)
    context.exit(0 if found.settled else EXIT_FAULT)


@cluster.command("drain")
@click.argument("node")
@click.option("--undo", is_flag=True, help="Let the node own partitions again.")
@CONFIG
@JSON
def drain_node(node: str, config: Path | None, *, undo: bool, as_json: bool) -> None:
    """Have NODE give all its partitions to the others, within seconds; it goes on forwarding requests.

    That holds until it is undone, or the node has stopped: a node that is started again owns its share.
    """
    from actors.cluster.operations import drain

    found = drain(_url(config), node, draining=not undo)
    (drained,) = (one for one in found.nodes if one.node_id == node)
    fields = {"node": node, "state": drained.state, "parts": drained.parts, "parts_placed": drained.parts_placed}
    if as_json:
        print_json(fields)
    else:
        print_fields(fields)


@cluster.command("move")
@click.argument("part", type=int)
@click.argument("node", required=False)
@click.option("--unpin", is_flag=True, help="Let placement decide again.")
@CONFIG
@JSON
def move_part(part: int, node: str | None, config: Path | None, *, unpin: bool, as_json: bool) -> None:
    """Move the partition PART to NODE, and pin it there; with --unpin, end that.

    While NODE is dead, drains or leaves, the partition is where placement puts it.
    """
    if unpin == (node is not None):
        raise click.UsageError("Give either NODE or --unpin.")
    import msgspec

    from actors.cluster.operations import move

    fields: dict[str, Any] = msgspec.to_builtins(move(_url(config), part, node))
    if as_json:
        print_json(fields)
    else:
        print_fields(fields)


def _url(config: Path | None) -> str:
    """The database's URL by the settings."""
    from models.errors import SetupError

    store = load(config).store
    if store.kind != "postgres":
        raise SetupError('a cluster needs PostgreSQL: set store.kind = "postgres" and store.url.')
    return store.url.reveal()


def _as_json(found: ClusterStatus, *, parts: bool) -> dict[str, Any]:
    import msgspec

    answer: dict[str, Any] = msgspec.to_builtins(found)
    if not parts:
        answer["parts"] = len(found.parts)
    return answer


def _print(found: ClusterStatus, *, parts: bool) -> None:
    print_rows(
        _NODES,
        [
            (
                node.node_id,
                node.state,
                node.address,
                node.zone,
                node.version,
                node.lease_remaining_s,
                node.parts,
                node.parts_placed,
            )
            for node in found.nodes
        ],
    )
    if parts:
        print_rows(_PARTS, [(part.part, part.owner, part.placed, part.epoch, part.pinned) for part in found.parts])
    astray = sum(part.owner is None or part.owner != part.placed for part in found.parts)
    if astray:
        note(f"{astray} of {len(found.parts)} partitions have no owner or another one than they should")
