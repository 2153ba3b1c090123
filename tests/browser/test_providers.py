"""The providers' screen: storing a key, checking and removing it; the key itself is never shown."""

from __future__ import annotations

from playwright.sync_api import Locator, Page, expect

from tests.browser.dashboard import Dashboard
from tests.browser.provider_stub import GOOD_KEY
from tests.browser.serving import Account


def row(page: Page) -> Locator:
    return page.get_by_role("row").filter(has=page.get_by_role("rowheader").get_by_text("openai", exact=True))


def test_a_key_is_checked_stored_checked_again_and_removed(dashboard: Dashboard, account: Account) -> None:
    page = dashboard.open("providers")
    expect(row(page)).to_contain_text("No key")
    dashboard.assert_accessible()
    dashboard.assert_fits()
    page.get_by_role("button", name="Add key: openai").click()
    dialog = page.get_by_role("dialog")
    dashboard.assert_accessible()
    with dashboard.refusals(400):
        dialog.get_by_label("Key", exact=True).fill("sk-not-the-right-one-0123456789")
        dialog.get_by_role("button", name="Store key").click()
        expect(dialog.get_by_text("refuses this key")).to_be_visible()
    assert account.call("GET", "/v1/providers")["data"][0]["key_source"] == "none"
    dialog.get_by_label("Key", exact=True).fill(GOOD_KEY)
    dialog.get_by_role("button", name="Store key").click()
    expect(dialog).to_have_count(0)
    expect(row(page)).to_contain_text("Your key")
    expect(row(page)).to_contain_text(GOOD_KEY[-4:])
    expect(row(page)).to_contain_text("takes the key")
    assert GOOD_KEY not in page.content()
    page.reload()
    dashboard.settled()
    page.get_by_role("button", name="Check openai").click()
    expect(row(page)).to_contain_text("takes the key")
    dashboard.assert_accessible()
    page.get_by_role("button", name="Remove key: openai").click()
    page.get_by_role("dialog").get_by_role("button", name="Remove key").click()
    expect(row(page)).to_contain_text("No key")
    assert account.call("GET", "/v1/providers")["data"][0]["key_source"] == "none"


def test_an_unchecked_key_that_the_provider_refuses_says_so_when_it_is_checked(dashboard: Dashboard) -> None:
    page = dashboard.open("providers")
    page.get_by_role("button", name="Add key: openai").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("Key", exact=True).fill("sk-not-the-right-one-0123456789")
    dialog.get_by_label("Check it with the provider first").uncheck()
    dialog.get_by_role("button", name="Store key").click()
    expect(row(page)).to_contain_text("Your key")
    page.get_by_role("button", name="Check openai").click()
    expect(row(page)).to_contain_text("refuses the key (401)")
