"""Every screen of an account that has nothing yet, and of a narrow telephone."""

from __future__ import annotations

import pytest
from playwright.sync_api import expect

from tests.browser.dashboard import Dashboard

SCREENS = {
    "": "Overview",
    "keys": "Keys",
    "vaults": "Vaults",
    "playground": "Playground",
    "usage": "Usage",
    "providers": "Providers",
    "audit": "Audit log",
    "settings": "Settings",
}


@pytest.mark.parametrize(("screen", "heading"), SCREENS.items())
def test_a_screen_with_nothing_on_it_is_whole(dashboard: Dashboard, screen: str, heading: str) -> None:
    page = dashboard.open(screen)
    expect(page.get_by_role("heading", level=1, name=heading)).to_be_visible()
    expect(page.get_by_role("alert")).to_have_count(0)
    dashboard.assert_accessible()
    dashboard.assert_fits()


def test_an_empty_vault_says_how_to_fill_it(dashboard: Dashboard) -> None:
    page = dashboard.open("vaults")
    page.get_by_role("row").nth(1).get_by_role("link").click()
    expect(page.get_by_text("This vault is empty.")).to_be_visible()
    expect(page.get_by_role("region", name="Code")).to_contain_text("curl http://127.0.0.1")
    dashboard.assert_accessible()
    for tab in ("Search", "Sessions", "Import and export", "Manage"):
        page.get_by_role("tab", name=tab).click()
        dashboard.settled()
        dashboard.assert_fits()
    page.get_by_role("tab", name="Sessions").click()
    expect(page.get_by_text("No sessions.")).to_be_visible()
