"""Signing in and out, as a person does, and what happens when a session ends under an open page."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.browser.conftest import WIDE
from tests.browser.dashboard import Dashboard
from tests.browser.serving import Account


@pytest.fixture
def visitor(browser: Browser, account: Account) -> Iterator[Dashboard]:
    """A tab that is not signed in."""
    context = browser.new_context(viewport=WIDE, locale="en-GB", timezone_id="UTC", reduced_motion="reduce")
    opened = Dashboard(context, account)
    yield opened
    opened.assert_no_faults()
    context.close()


def _title(page: Page, name: str) -> None:
    expect(page.get_by_role("heading", level=1, name=name)).to_be_visible()


def test_an_account_key_signs_in_and_is_kept_nowhere(visitor: Dashboard, account: Account) -> None:
    page = visitor.page
    page.goto(f"{account.url}/dashboard/")
    _title(page, "Sign in to MemoryRouter")
    expect(page.get_by_label("Account key", exact=True)).to_be_focused()
    visitor.assert_accessible()
    visitor.assert_fits()
    page.get_by_label("Account key", exact=True).fill(account.key)
    page.keyboard.press("Enter")
    _title(page, "Overview")
    kept = page.evaluate("() => [JSON.stringify(localStorage), JSON.stringify(sessionStorage), document.cookie].join()")
    assert account.key not in kept + page.content()
    assert page.evaluate("() => document.cookie") == ""
    page.reload()
    _title(page, "Overview")


def test_what_cannot_sign_in_is_told_why(visitor: Dashboard, account: Account) -> None:
    page = visitor.page
    user_key = account.mint("user:nobody")["key"]
    with visitor.refusals(401, 403):
        page.goto(f"{account.url}/dashboard/")
        key = page.get_by_label("Account key", exact=True)
        page.get_by_role("button", name="Sign in").click()
        expect(key).to_have_accessible_description(re.compile("Enter your account key"))
        key.fill("mk_" + "x" * 32)
        page.keyboard.press("Enter")
        expect(key).to_have_attribute("aria-invalid", "true")
        key.fill(user_key)
        page.keyboard.press("Enter")
        expect(key).to_have_accessible_description(re.compile("needs an account key"))
        expect(key).to_be_focused()


def test_who_signs_in_on_a_deep_link_gets_there(visitor: Dashboard, account: Account) -> None:
    page = visitor.page
    page.goto(f"{account.url}/dashboard/keys?search=nobody")
    page.get_by_label("Account key", exact=True).fill(account.key)
    page.keyboard.press("Enter")
    _title(page, "Keys")
    expect(page.get_by_role("searchbox")).to_have_value("nobody")


def test_signing_out_ends_the_session(dashboard: Dashboard, account: Account) -> None:
    page = dashboard.open()
    page.get_by_role("button", name="Sign out").click()
    _title(page, "Sign in to MemoryRouter")
    with dashboard.refusals(401):
        page.reload()
        _title(page, "Sign in to MemoryRouter")


def test_a_session_that_ends_asks_to_sign_in_again_and_comes_back(dashboard: Dashboard, account: Account) -> None:
    page = dashboard.open("keys")
    page.get_by_role("button", name="Create a key").first.click()
    with dashboard.refusals(401):
        dashboard.context.clear_cookies()
        page.get_by_label("Name", exact=True).fill("user:late")
        page.get_by_role("button", name="Create", exact=True).click()
        _title(page, "Sign in to MemoryRouter")
        expect(page.get_by_text("Your session has ended.")).to_be_visible()
        page.get_by_label("Account key", exact=True).fill(account.key)
        page.keyboard.press("Enter")
        _title(page, "Keys")


def test_a_theme_is_chosen_kept_and_there_before_the_page_is_drawn(dashboard: Dashboard) -> None:
    page = dashboard.open()
    ground = "() => getComputedStyle(document.documentElement).backgroundColor"
    light = page.evaluate(ground)
    page.get_by_role("button", name="Theme: as the system").click()
    page.get_by_role("button", name="Theme: light").click()
    expect(page.get_by_role("button", name="Theme: dark")).to_be_visible()
    assert page.evaluate(ground) != light
    page.reload()
    assert page.evaluate("() => document.documentElement.dataset.theme") == "dark"
    page.get_by_role("button", name="Theme: dark").click()
    assert page.evaluate(ground) == light


def test_everything_is_reached_by_keyboard_the_content_first(dashboard: Dashboard) -> None:
    page = dashboard.open()
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.get_by_role("main")).to_be_focused()
    page.get_by_role("link", name="Audit log").press("Enter")
    expect(page.get_by_role("heading", level=1, name="Audit log")).to_be_focused()
    expect(page.get_by_role("link", name="Audit log")).to_have_attribute("aria-current", "page")
    page.go_back()
    _title(page, "Overview")


def test_on_a_telephone_the_menu_opens_and_closes(dashboard: Dashboard) -> None:
    page = dashboard.open()
    page.set_viewport_size({"width": 360, "height": 740})
    expect(page.get_by_role("link", name="Keys", exact=True)).to_be_hidden()
    page.get_by_role("button", name="Menu").click()
    dashboard.assert_accessible()
    page.get_by_role("link", name="Keys", exact=True).click()
    _title(page, "Keys")
    expect(page.get_by_role("link", name="Usage")).to_be_hidden()
    expect(page.get_by_role("button", name="Menu")).to_have_attribute("aria-expanded", "false")


def test_a_screen_whose_file_is_gone_offers_to_reload(dashboard: Dashboard) -> None:
    page = dashboard.open()
    file = "**/js/screens/audit.js"
    dashboard.context.route(file, lambda route: route.fulfill(status=404, body=""))
    with dashboard.refusals(404):
        page.get_by_role("link", name="Audit log").click()
        expect(page.get_by_role("alert")).to_contain_text("reload the page")
    dashboard.context.unroute(file)
    page.get_by_role("button", name="Try again").click()
    _title(page, "Audit log")
