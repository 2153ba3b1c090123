"""The settings in force: grouped, searched, the changed ones marked, secrets not shown."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, expect

from tests.browser.conftest import WIDE
from tests.browser.dashboard import Dashboard
from tests.browser.serving import Account, RunningServer


@pytest.fixture
def operator(browser: Browser, server: RunningServer) -> Iterator[Dashboard]:
    """Signed in with the key of the first start, who sees every setting."""
    context = browser.new_context(viewport=WIDE, locale="en-GB", timezone_id="UTC", reduced_motion="reduce")
    opened = Dashboard(context, Account(server.url, server.account_key))
    opened.sign_in()
    yield opened
    opened.assert_no_faults()
    context.close()


def test_settings_stand_by_area_with_what_they_mean(operator: Dashboard) -> None:
    page = operator.open("settings")
    area = page.get_by_role("region", name="Server")
    expect(area.get_by_text("TCP port to listen on")).to_be_visible()
    expect(area.get_by_text("MEMORYROUTER_SERVER__PORT", exact=True)).to_be_visible()
    operator.assert_fits()
    page.get_by_role("navigation", name="Areas").get_by_role("link", name="Recall").click()
    expect(page.get_by_role("heading", name="Recall")).to_be_focused()


def test_what_was_changed_is_marked_beside_its_default(operator: Dashboard) -> None:
    page = operator.open("settings")
    page.get_by_label("Changed only").check()
    shards = page.get_by_role("listitem").filter(has_text="MEMORYROUTER_STORE__SHARDS")
    expect(shards).to_contain_text("Changed")
    expect(shards).to_contain_text("default")
    expect(page.get_by_text("MEMORYROUTER_RECALL__", exact=False)).to_have_count(0)
    page.reload()
    expect(page.get_by_label("Changed only")).to_be_checked()


def test_a_setting_is_found_by_what_it_means_also_within_a_provider(operator: Dashboard) -> None:
    page = operator.open("settings")
    page.get_by_role("searchbox").fill("openai base_url")
    line = page.get_by_role("listitem").filter(has_text="MEMORYROUTER_PROVIDERS__OPENAI__BASE_URL")
    expect(line).to_contain_text("Changed")
    operator.assert_accessible()
    page.get_by_role("searchbox").fill("nothing is called this")
    expect(page.get_by_text("No such setting")).to_be_visible()
    page.get_by_role("searchbox").fill("openai api_key")
    expect(
        page.get_by_role("listitem").filter(has_text="MEMORYROUTER_PROVIDERS__OPENAI__API_KEY").first
    ).to_contain_text("not set")


def test_the_environment_variable_is_copied(operator: Dashboard) -> None:
    page = operator.open("settings")
    button = page.get_by_role("button", name="Copy MEMORYROUTER_SERVER__HOST", exact=True)
    assert operator.copied_by(button) == "MEMORYROUTER_SERVER__HOST"


def test_other_accounts_see_only_what_concerns_them(dashboard: Dashboard) -> None:
    page = dashboard.open("settings")
    expect(page.get_by_role("region", name="Recall")).to_be_visible()
    expect(page.get_by_role("region", name="Server")).to_have_count(0)
