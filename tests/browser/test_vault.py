"""One vault: its timeline, its search with reasons, and everything that can be done to its memories."""

from __future__ import annotations

import re
from datetime import UTC, datetime

import pytest
from playwright.sync_api import Locator, Page, expect

from tests.browser.dashboard import Dashboard
from tests.browser.seeding import HOSTILE, HOUR_MS, SAID_MS, Vault
from tests.browser.serving import Account


@pytest.fixture
def vault(account: Account) -> Vault:
    """A user's vault, empty."""
    return Vault(account)


def items(page: Page) -> Locator:
    return page.locator("li.memory")


def test_the_timeline_shows_memories_as_text_and_never_as_markup(dashboard: Dashboard, vault: Vault) -> None:
    vault.upload("My sister lives in Oslo.", HOSTILE, session_id="<i>chat</i>", metadata={"<u>city</u>": "<b>Oslo</b>"})
    page = dashboard.open(f"vaults/{vault.id}")
    expect(items(page)).to_have_count(2)
    expect(items(page).first).to_contain_text(HOSTILE)
    expect(items(page).first).to_contain_text("<i>chat</i>")
    expect(items(page).first).to_contain_text("<b>Oslo</b>")
    assert page.locator("li.memory script, li.memory img, li.memory b, li.memory i, li.memory u").count() == 0
    assert page.evaluate("() => window.broken") is None
    dashboard.assert_accessible()
    dashboard.assert_fits()


def test_older_memories_come_page_by_page(dashboard: Dashboard, vault: Vault) -> None:
    vault.upload(*(f"Memory number {number}." for number in range(120)))
    page = dashboard.open(f"vaults/{vault.id}")
    expect(items(page)).to_have_count(50)
    expect(items(page).first).to_contain_text("Memory number 119.")
    older = page.get_by_role("button", name="Show older memories")
    older.click()
    expect(items(page)).to_have_count(100)
    older.click()
    expect(items(page)).to_have_count(120)
    expect(items(page).last).to_contain_text("Memory number 0.")
    expect(older).to_be_hidden()


def test_filters_are_the_servers_and_stay_in_the_address(dashboard: Dashboard, vault: Vault) -> None:
    vault.upload("We met in Oslo.", "Rain all day.", session_id="trip")
    vault.upload("The answer was Bergen.", role="assistant", session_id="other")
    page = dashboard.open(f"vaults/{vault.id}")
    expect(items(page)).to_have_count(3)
    page.get_by_role("searchbox", name="Words in it").fill("oslo")
    expect(items(page)).to_have_count(1)
    page.get_by_role("button", name="Clear filters").click()
    expect(items(page)).to_have_count(3)
    page.locator("summary").filter(has_text="Filters").click()
    page.get_by_label("Session").fill("trip")
    expect(items(page)).to_have_count(2)
    since = datetime.fromtimestamp((SAID_MS + HOUR_MS // 2) / 1000, UTC).strftime("%Y-%m-%dT%H:%M")
    page.get_by_label("Said from").fill(since)
    expect(items(page)).to_have_count(1)
    dashboard.assert_accessible()
    page.reload()
    dashboard.settled()
    expect(items(page)).to_have_count(1)
    expect(items(page)).to_contain_text("Rain all day.")
    page.get_by_label("Said by").select_option("Assistant")
    expect(page.get_by_text("No memory matches these filters.")).to_be_visible()


def test_a_memory_can_be_edited(dashboard: Dashboard, vault: Vault) -> None:
    vault.upload("My sister lives in Oslo.", metadata={"source": "form"})
    page = dashboard.open(f"vaults/{vault.id}")
    page.get_by_role("button", name="Edit mem_").click()
    dialog = page.get_by_role("dialog")
    expect(dialog.get_by_label("Text")).to_have_value("My sister lives in Oslo.")
    dashboard.assert_accessible()
    dialog.get_by_label("Metadata").fill("{broken")
    dialog.get_by_role("button", name="Save").click()
    expect(dialog.get_by_text("This is not JSON.")).to_be_visible()
    dialog.get_by_label("Metadata").fill('{"source": "hand"}')
    dialog.get_by_label("Text").fill("My sister lives in <b>Bergen</b>.")
    dialog.get_by_label("Session").fill("family")
    dialog.get_by_role("button", name="Save").click()
    expect(dialog).to_have_count(0)
    expect(items(page)).to_contain_text("My sister lives in <b>Bergen</b>.")
    (memory,) = vault.account.memories(key=vault.key)
    assert (memory["content"], memory["session_id"]) == ("My sister lives in <b>Bergen</b>.", "family")
    assert (memory["metadata"], memory["timestamp"]) == ({"source": "hand"}, SAID_MS)


def test_one_memory_or_the_chosen_ones_can_be_deleted(dashboard: Dashboard, vault: Vault) -> None:
    vault.upload("One.", "Two.", "Three.", "Four.")
    page = dashboard.open(f"vaults/{vault.id}")
    items(page).filter(has_text="Two.").get_by_role("button", name="Delete mem_").click()
    expect(page.get_by_role("dialog")).to_contain_text("Two.")
    page.get_by_role("dialog").get_by_role("button", name="Cancel").click()
    assert len(vault.texts()) == 4
    items(page).filter(has_text="Two.").get_by_role("button", name="Delete mem_").click()
    page.get_by_role("dialog").get_by_role("button", name="Delete memory").click()
    expect(items(page)).to_have_count(3)
    for text in ("One.", "Four."):
        items(page).filter(has_text=text).get_by_role("checkbox").check()
    page.get_by_role("button", name="Delete selected").click()
    page.get_by_role("dialog").get_by_role("button", name="Delete 2 memories").click()
    expect(items(page)).to_have_count(1)
    assert vault.texts() == ["Three."]


def test_all_that_match_a_filter_can_be_deleted_once_they_are_counted(dashboard: Dashboard, vault: Vault) -> None:
    vault.upload(*(f"Noise {number}." for number in range(60)), session_id="noise")
    vault.upload("Kept.")
    page = dashboard.open(f"vaults/{vault.id}?session_id=noise")
    expect(items(page)).to_have_count(50)
    page.get_by_role("button", name="Delete all that match").click()
    page.get_by_role("dialog").get_by_role("button", name="Delete 60 memories").click()
    expect(page.get_by_text("No memory matches these filters.")).to_be_visible()
    assert vault.texts() == ["Kept."]


def test_what_one_request_stored_can_be_undone(dashboard: Dashboard, vault: Vault) -> None:
    vault.upload("Wrong one.", "Wrong two.")
    vault.remember("Right.")
    page = dashboard.open(f"vaults/{vault.id}")
    items(page).filter(has_text="Wrong one.").get_by_role("button", name="Undo the request").click()
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text("2 memories")
    dialog.get_by_role("button", name="Delete 2 memories").click()
    expect(items(page)).to_have_count(1)
    assert vault.texts() == ["Right."]


def test_what_was_stored_since_a_time_can_be_undone(dashboard: Dashboard, vault: Vault) -> None:
    vault.upload("One.", "Two.")
    page = dashboard.open(f"vaults/{vault.id}")
    page.get_by_role("button", name="Undo…").click()
    page.get_by_role("dialog").get_by_label("Stored since").fill("2020-01-01T00:00")
    page.get_by_role("dialog").get_by_role("button", name="Count them").click()
    page.get_by_role("dialog").get_by_role("button", name="Delete 2 memories").click()
    expect(page.get_by_text("This vault is empty.")).to_be_visible()
    assert vault.texts() == []


def test_a_search_says_why_each_memory_was_found(dashboard: Dashboard, vault: Vault) -> None:
    vault.upload("My locker number at the pool is 4471.", "The weather was fine.", HOSTILE, "I prefer tea.")
    page = dashboard.open(f"vaults/{vault.id}")
    page.get_by_role("tab", name="Search").click()
    page.get_by_label("Question").fill("What is my locker number?")
    page.get_by_role("button", name="Search", exact=True).click()
    found = page.get_by_role("tabpanel", name="Search").locator("li.memory")
    expect(found.first).to_contain_text("My locker number at the pool is 4471.")
    reasons = found.first.get_by_role("table", name="Why it was found")
    expect(reasons.get_by_role("row").filter(has_text="Words in and around")).to_contain_text(re.compile(r"\+\d"))
    assert reasons.locator("svg rect").count() == reasons.get_by_role("row").count() > 2
    expect(found.first.locator(".badge").first).to_have_text(re.compile(r"^[\d.]+ %$"))
    assert page.evaluate("() => window.broken") is None
    dashboard.assert_accessible()
    dashboard.assert_fits()


def test_a_long_memory_is_short_until_all_of_it_is_asked_for(dashboard: Dashboard, vault: Vault) -> None:
    vault.upload("word " * 5_000 + "The end.")
    page = dashboard.open(f"vaults/{vault.id}")
    expect(items(page)).not_to_contain_text("The end.")
    page.get_by_role("button", name="Show all").click()
    expect(items(page)).to_contain_text("The end.")
    page.get_by_role("button", name="Show less").click()
    expect(items(page)).not_to_contain_text("The end.")


def test_sessions_are_listed_lead_to_their_memories_and_can_be_deleted(dashboard: Dashboard, vault: Vault) -> None:
    vault.upload("One.", "Two.", session_id="first")
    vault.upload("Three.", session_id="second")
    page = dashboard.open(f"vaults/{vault.id}?tab=sessions")
    expect(
        page.get_by_role("row").filter(has=page.get_by_role("link", name="first", exact=True)).get_by_role("cell").first
    ).to_have_text("2")
    dashboard.assert_accessible()
    page.get_by_role("link", name="first", exact=True).click()
    expect(items(page)).to_have_count(2)
    page.get_by_role("tab", name="Sessions").click()
    page.get_by_role("button", name="Delete session first").click()
    page.get_by_role("dialog").get_by_role("button", name="Delete session").click()
    expect(page.get_by_role("link", name="first", exact=True)).to_have_count(0)
    assert vault.texts() == ["Three."]


def test_a_vault_is_deleted_only_once_its_id_is_typed(dashboard: Dashboard, vault: Vault) -> None:
    vault.upload("One.")
    page = dashboard.open(f"vaults/{vault.id}?tab=manage")
    page.get_by_role("button", name="Delete this vault").click()
    dialog = page.get_by_role("dialog")
    go = dialog.get_by_role("button", name="Delete vault")
    expect(go).to_be_disabled()
    dashboard.assert_accessible()
    dialog.get_by_role("textbox").fill("vault_")
    expect(go).to_be_disabled()
    dialog.get_by_role("textbox").fill(vault.id)
    go.click()
    expect(page.get_by_role("heading", level=1, name="Vaults")).to_be_visible()
    assert vault.texts() == []


def test_a_vault_keeps_its_memories_for_as_long_as_it_is_told(dashboard: Dashboard, vault: Vault) -> None:
    page = dashboard.open(f"vaults/{vault.id}?tab=manage")
    page.get_by_label("Days").fill("soon")
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_text("A whole number of days, 1 or more.")).to_be_visible()
    page.get_by_label("Days").fill("30")
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_text("Memories are kept for 30 days.")).to_be_visible()
    assert vault.account.call("GET", f"/v1/vaults/{vault.id}")["retention_days"] == 30


def test_a_vault_that_is_not_there_or_not_ours_says_so(dashboard: Dashboard, vault: Vault) -> None:
    with dashboard.refusals(404):
        page = dashboard.open("vaults/vault_999999")
        expect(page.get_by_role("alert")).to_be_visible()
        dashboard.assert_accessible()
