"""The operator's page of the cluster: two servers on one PostgreSQL database, one of which dies; a server on files; and
that it is nobody else's."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from tests.browser.conftest import signed_in
from tests.browser.dashboard import Dashboard
from tests.browser.serving import Account, RunningServer, running_server

PARTS = 8


def node_environment(url: str, name: str) -> dict[str, str]:
    """Of a node of this name."""
    return {
        "MEMORYROUTER_STORE__KIND": "postgres",
        "MEMORYROUTER_STORE__URL": url,
        "MEMORYROUTER_STORE__PARTS": str(PARTS),
        "MEMORYROUTER_STORE__SERVER_KEY": base64.b64encode(b"k" * 32).decode(),
        "MEMORYROUTER_CLUSTER__NODE_ID": name,
        "MEMORYROUTER_CLUSTER__TTL_S": "2",
    }


@pytest.fixture
def nodes(chromium_path: str, postgres_url: str, tmp_path: Path) -> Iterator[list[RunningServer]]:
    """Two servers on one database; the first has the account key."""
    with ExitStack() as stack:
        yield [
            stack.enter_context(running_server(tmp_path / name, environment=node_environment(postgres_url, name)))
            for name in ("a", "b")
        ]


def test_nodes_and_their_partitions_are_shown_and_what_becomes_of_a_dead_one(
    nodes: list[RunningServer], browser: Browser
) -> None:
    operator = Account(nodes[0].url, nodes[0].account_key)
    with signed_in(browser, operator) as dashboard:
        page = dashboard.open()
        page.get_by_role("navigation", name="Screens").get_by_role("link", name="Cluster").click()
        table = page.get_by_role("table", name="Nodes")
        expect(table.get_by_role("row")).to_have_count(3)
        expect(table.get_by_role("row", name="a this one")).to_contain_text("Alive")
        expect(page.get_by_text("Each partition is owned by the node that it is placed at.")).to_be_visible()
        expect(table.get_by_role("row", name="b")).to_contain_text(nodes[1].url.removeprefix("http://"))
        dashboard.assert_accessible()
        dashboard.assert_fits()
        table.locator("..").focus()
        expect(page.get_by_role("region", name="Nodes, as a table")).to_be_focused()

        nodes[1].process.kill()
        expect(table.get_by_role("row", name="b")).to_contain_text("Dead")
        expect(page.get_by_text("b has not been heard of, and left without a word.")).to_be_visible()
        expect(page.locator(".stat", has_text="Partitions here")).to_contain_text(f"{PARTS}of {PARTS}")
        taken_over = page.locator("dt", has_text="Taken over from the dead").locator("xpath=following-sibling::dd[1]")
        expect(taken_over).not_to_have_text("0")
        expect(page.get_by_role("region", name="Nodes, as a table")).to_be_focused()
        dashboard.assert_accessible()


def test_a_server_on_files_says_that_it_is_alone(server: RunningServer, browser: Browser) -> None:
    with signed_in(browser, Account(server.url, server.account_key)) as dashboard:
        page = dashboard.open("cluster")
        expect(page.get_by_text("This server is alone")).to_be_visible()
        dashboard.assert_accessible()


def test_several_workers_are_shown_whichever_takes_a_request(
    chromium_path: str, browser: Browser, tmp_path: Path
) -> None:
    environment = {"MEMORYROUTER_SERVER__WORKERS": "2", "MEMORYROUTER_STORE__SHARDS": "4"}
    with (
        running_server(tmp_path / "data", environment=environment) as server,
        signed_in(browser, Account(server.url, server.account_key)) as dashboard,
    ):
        page = dashboard.open("cluster")
        table = page.get_by_role("table", name="Workers")
        expect(table.get_by_role("row")).to_have_count(3)
        expect(table.get_by_role("row", name="0 Serving")).to_contain_text("0, 2")
        expect(table.get_by_role("row", name="1 Serving")).to_contain_text("1, 3")
        expect(page.get_by_text("2 workers on one machine")).to_be_visible()
        dashboard.assert_accessible()
        dashboard.assert_fits()


def test_other_accounts_do_not_see_it(dashboard: Dashboard) -> None:
    page = dashboard.open("cluster")
    expect(page.get_by_text("This is the operator's")).to_be_visible()
    expect(page.get_by_role("navigation", name="Screens").get_by_role("link", name="Cluster")).to_have_count(0)
