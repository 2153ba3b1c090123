"""An account with a hundred thousand keys: its screens page and search on the server, and stay small and accessible."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, expect

from tests.browser.conftest import signed_in
from tests.browser.dashboard import Dashboard
from tests.browser.many_keys import KEYS
from tests.browser.serving import Account

NODES_MAX = 2_000
"""Of a page: it holds one page of the list, however long that is."""


@pytest.fixture
def crowded(browser: Browser, account_with_many: Account) -> Iterator[Dashboard]:
    """A tab that is signed in to it."""
    with signed_in(browser, account_with_many) as opened:
        yield opened


def test_vaults_are_turned_page_by_page_and_found_by_name_and_number(crowded: Dashboard) -> None:
    page = crowded.open("vaults")
    expect(page.get_by_role("row")).to_have_count(51)
    page.get_by_role("button", name="Next").click()
    expect(page.get_by_text("51\u2013100", exact=True)).to_be_visible()
    page.get_by_role("button", name="Previous").click()
    expect(page.get_by_text("1\u201350", exact=True)).to_be_visible()
    search = page.get_by_role("searchbox")
    search.fill(f"user:{KEYS - 1}")
    expect(page.get_by_role("row")).to_have_count(2)
    expect(page.get_by_role("row").nth(1)).to_contain_text(f"vault_{KEYS}")
    search.fill("user:9999")
    expect(page.get_by_role("row")).to_have_count(12)  # 9999 and 99990 to 99999
    search.fill(f"vault_{KEYS - 7}")
    expect(page.get_by_role("link", name=f"vault_{KEYS - 7}", exact=True)).to_be_visible()
    page.get_by_label("Which vaults").select_option("Without a key")
    search.fill("")
    expect(page.get_by_text("Every vault has its key.")).to_be_visible()
    crowded.assert_accessible()


@pytest.mark.parametrize("screen", ["", "keys", "vaults", "playground", "usage", "providers", "audit"])
def test_no_screen_grows_with_the_number_of_keys(crowded: Dashboard, screen: str) -> None:
    page = crowded.open(screen)
    expect(page.get_by_role("alert")).to_have_count(0)
    assert page.evaluate("() => document.querySelectorAll('*').length") < NODES_MAX
    if screen in {"keys", "vaults"}:
        crowded.assert_accessible()
        crowded.assert_fits()


def test_the_playground_offers_vaults_by_name_out_of_all_of_them(crowded: Dashboard) -> None:
    page = crowded.open("playground")
    page.get_by_label("Vault").fill(f"user:{KEYS - 3}")
    expect(page.locator(f"datalist option[value='vault_{KEYS - 2}']")).to_have_count(1)
    assert page.locator("datalist option").count() <= 21


def test_keys_are_turned_page_by_page_and_found_by_name(crowded: Dashboard) -> None:
    page = crowded.open("keys")
    expect(page.get_by_role("row")).to_have_count(51)
    page.get_by_role("button", name="Next").click()
    expect(page.get_by_text("51\u2013100", exact=True)).to_be_visible()
    page.get_by_role("searchbox").fill(f"user:{KEYS - 1}")
    expect(page.get_by_role("row")).to_have_count(2)
    expect(page.get_by_role("row").nth(1)).to_contain_text(f"user:{KEYS - 1}")
    page.get_by_role("searchbox").fill("nobody")
    expect(page.get_by_text("No key's name contains “nobody”")).to_be_visible()
