"""The overview: live figures, what to do first, what needs somebody, and what it says when the server is away."""

from __future__ import annotations

import re

import msgspec
from playwright.sync_api import Page, Route, expect

from tests.browser.dashboard import Dashboard
from tests.browser.seeding import Vault
from tests.browser.serving import Account


def _figure(page: Page, name: str) -> str:
    """A tile's figure."""
    return page.locator(".stat").filter(has=page.get_by_text(name, exact=True)).locator(".stat-value").inner_text()


def test_an_account_with_nothing_is_told_what_to_do_first(dashboard: Dashboard, account: Account) -> None:
    page = dashboard.open()
    expect(page.get_by_role("heading", name="Nothing is remembered yet")).to_be_visible()
    expect(page.get_by_role("region", name="First memory with curl")).to_contain_text(
        f"curl {account.url}/v1/memory/ingest"
    )
    page.get_by_role("link", name="Create a key").click()
    expect(page.get_by_role("dialog", name="Create a key")).to_be_visible()


def test_figures_follow_what_happens(dashboard: Dashboard, account: Account) -> None:
    page = dashboard.open()
    expect(page.get_by_text("Version")).to_be_visible()
    assert _figure(page, "Memories") == "0"
    vault = Vault(account)
    vault.upload("The cat is called Minka.", "The dog is called Biscuit.")
    account.call("POST", "/v1/memory/search", {"query": "What is the dog called?"}, key=vault.key)
    tile = page.locator(".stat").filter(has=page.get_by_text("Memories", exact=True))
    expect(tile.locator(".stat-value")).to_have_text("2")
    expect(page.get_by_role("heading", name="Nothing is remembered yet")).to_be_hidden()
    row = page.get_by_role("row").filter(has=page.get_by_role("rowheader", name="Recall"))
    expect(row.get_by_role("cell").first).to_have_text(re.compile(r"\d m?s"))


def test_charts_say_the_same_as_a_table(dashboard: Dashboard, account: Account) -> None:
    Vault(account).upload("One.")
    page = dashboard.open()
    chart = page.get_by_role("figure").first
    expect(chart.get_by_role("img")).to_have_accessible_name(re.compile(r"Requests per minute\. .*Errors"))
    chart.get_by_text("Show as a table").click()
    expect(chart.get_by_role("columnheader")).to_have_text(["Time", "Requests", "Errors"])
    expect(chart.get_by_role("row")).to_have_count(61)
    dashboard.assert_accessible()


def test_queues_and_providers_in_trouble_are_said(dashboard: Dashboard) -> None:
    """The figures are made up: neither a full queue nor a provider in trouble is had at will."""

    def in_trouble(route: Route) -> None:
        answer = route.fetch()
        figures = msgspec.json.decode(answer.body())
        figures["queues"][0] |= {"waiting": 32_000, "capacity": 32_768}
        figures["providers"] = [
            {"name": "openai", "state": "open", "has_key": True, "requests": 90, "errors": 40, "last_error_status": 503,
             "last_used_at": figures["now"]},
            {"name": "anthropic", "state": "ok", "has_key": True, "requests": 12_345_678, "errors": 0,
             "last_error_status": None, "last_used_at": figures["now"]},
        ]  # fmt: skip
        figures["disk"] = {"used_bytes": 10**12, "free_bytes": 10**8}
        route.fulfill(response=answer, body=msgspec.json.encode(figures))

    dashboard.context.route("**/dashboard/api/overview*", in_trouble)
    page = dashboard.open()
    for said in ("“commits” is nearly full", "openai is not asked at the moment", "(last status 503)", "95.4 MiB"):
        expect(page.locator(".notice").filter(has_text=said)).to_be_visible()
    row = page.get_by_role("row").filter(has=page.get_by_role("rowheader", name="anthropic"))
    expect(row).to_contain_text("Works")
    expect(row).to_contain_text("12.3M")
    dashboard.assert_accessible()
    dashboard.assert_fits()


def test_a_server_that_is_away_is_said_and_found_again(dashboard: Dashboard) -> None:
    page = dashboard.open()
    state = page.locator(".live")
    expect(state).to_contain_text("up")
    dashboard.context.route(
        "**/dashboard/api/overview*", lambda route: route.fulfill(status=503, json={"error": "Busy."})
    )
    with dashboard.refusals(503):
        expect(state).to_have_text("Busy. Trying again…")
        expect(page.get_by_text("Memories", exact=True)).to_be_visible()
        dashboard.context.unroute("**/dashboard/api/overview*")
        expect(state).to_contain_text("up")
