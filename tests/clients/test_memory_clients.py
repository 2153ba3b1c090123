"""The product's own public clients from PyPI, exactly as their users run them."""

from __future__ import annotations

from pathlib import Path

from tests.clients.running import DOG, open_pair, run_client, stored


async def test_hermes_recalls_and_captures(tmp_path: Path) -> None:
    """Nothing of what it recalled is stored again, nor anything under a wrong key."""
    async with open_pair(tmp_path) as pair:
        variables = {"HERMES_HOME": str(tmp_path)}
        await run_client("hermes", "hermes_memoryrouter_plugin.py", pair.server, tmp_path, variables=variables)
        assert sorted(await stored(pair.server)) == [
            ("assistant", "A fine car."),
            ("assistant", "A fine name."),
            ("user", "I drive an old blue Saab."),
            ("user", "My boat is called Nemo."),
            ("user", DOG),
        ]


async def test_langchain_memoryrouter_does_all_it_offers(tmp_path: Path) -> None:
    """Clients, graph nodes, tools, store; what a graph retains twice is stored once."""
    async with open_pair(tmp_path) as pair:
        await run_client("langchain", "langchain_memoryrouter_package.py", pair.server, tmp_path)
        found = await stored(pair.server)
        assert len(found) == len(set(found))
        assert {("user", "What is my dog called?"), ("user", "favourite-tea: oolong")} < set(found)
