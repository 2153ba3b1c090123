"""Keys: made and shown once, found, renamed, limited, switched off, rotated, ended."""

from __future__ import annotations

import re

from playwright.sync_api import Locator, Page, expect

from tests.browser.dashboard import Dashboard
from tests.browser.seeding import HOSTILE
from tests.browser.serving import Account


def _panel(page: Page, name: str) -> Locator:
    page.get_by_role("button", name=name, exact=True).click()
    panel = page.get_by_role("dialog", name=name)
    expect(panel).to_be_visible()
    return panel


def test_a_key_is_made_shown_once_and_works(dashboard: Dashboard, account: Account) -> None:
    page = dashboard.open("keys")
    page.get_by_role("button", name="Create a key").first.click()
    page.get_by_role("button", name="Create", exact=True).click()
    name = page.get_by_label("Name", exact=True)
    expect(name).to_have_accessible_description(re.compile("Give it a name"))
    name.fill("user:42")
    page.get_by_text("Vault, expiry, limits").click()
    page.get_by_label("Requests a minute").fill("600")
    page.get_by_label("Expires").fill("2199-12-24T18:00")
    page.get_by_role("button", name="Create", exact=True).click()
    shown = page.get_by_role("dialog", name="Key created")
    expect(shown).to_be_visible()
    dashboard.assert_accessible()
    page.keyboard.press("Escape")
    expect(shown).to_be_visible()
    key = dashboard.copied_by(shown.get_by_role("button", name="Copy key"))
    for tool in ("Python", "Node", "Environment", "curl"):
        shown.get_by_role("tab", name=tool).click()
        expect(shown.get_by_role("tabpanel").get_by_text(key).first).to_be_visible()
    shown.get_by_role("button", name="Done").click()
    expect(shown).to_have_count(0)
    # A dialog that closes is out of sight before it is out of the page.
    page.wait_for_function("(key) => !document.documentElement.outerHTML.includes(key)", arg=key)
    account.call("POST", "/v1/memories", {"content": "It works."}, key=key, status=201)
    row = page.get_by_role("row").filter(has_text="user:42")
    expect(row).to_contain_text("600/min")
    (made,) = [one for one in account.call("GET", "/v1/keys")["data"] if one["name"] == "user:42"]
    assert made["limits"]["requests_per_minute"] == 600
    assert made["expires_at"] == "2199-12-24T18:00:00.000Z"


def test_the_newest_keys_come_first(dashboard: Dashboard, account: Account) -> None:
    """Whoever has just made one sees it, however many there are."""
    for number in range(60):
        account.mint(f"user:{number}")
    page = dashboard.open("keys")
    expect(page.get_by_role("row").nth(1)).to_contain_text("user:59")
    page.get_by_role("button", name="Next").click()
    expect(page.get_by_role("row").nth(1)).to_contain_text("user:9")
    expect(page.get_by_role("row").last).to_contain_text("account")


def test_a_key_is_renamed_limited_and_given_an_end(dashboard: Dashboard, account: Account) -> None:
    key = account.mint("user:42", limits={"memories_max": 5})
    page = dashboard.open("keys")
    panel = _panel(page, "user:42")
    dashboard.assert_accessible()
    panel.get_by_role("button", name="Rename").click()
    page.get_by_label("Name", exact=True).fill(HOSTILE)
    page.get_by_role("button", name="Rename").last.click()
    panel = page.get_by_role("dialog", name=HOSTILE)
    expect(panel.get_by_role("heading", name=HOSTILE)).to_be_visible()
    panel.get_by_role("button", name="Limits").click()
    page.get_by_label("Requests at once").fill("many")
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_label("Requests at once")).to_have_accessible_description(re.compile("whole number"))
    page.get_by_label("Requests at once").fill("4")
    page.get_by_label("Memories", exact=True).fill("")
    page.get_by_role("button", name="Save").click()
    expect(panel.get_by_text("4 at once")).to_be_visible()
    panel.get_by_role("button", name="Expiry").click()
    page.get_by_label("Expires").fill("2001-01-01T00:00")
    with dashboard.refusals(400):
        page.get_by_role("button", name="Save").click()
        expect(page.get_by_label("Expires")).to_have_accessible_description(re.compile("lies in the past"))
    page.get_by_label("Expires").fill("2199-01-01T00:00")
    page.get_by_role("button", name="Save").click()
    expect(panel.get_by_text("1 Jan 2199")).to_be_visible()
    dashboard.assert_fits()
    now = account.call("GET", f"/v1/keys/{key['id']}")
    assert (now["name"], now["limits"]["concurrent_max"], now["limits"]["memories_max"]) == (HOSTILE, 4, None)
    assert page.evaluate("() => window.broken") is None


def test_a_key_is_switched_off_and_on(dashboard: Dashboard, account: Account) -> None:
    key = account.mint("user:42")
    page = dashboard.open("keys")
    panel = _panel(page, "user:42")
    panel.get_by_role("button", name="Disable").click()
    page.get_by_role("dialog", name="Disable").get_by_role("button", name="Disable").click()
    expect(panel.get_by_text("Disabled", exact=True).first).to_be_visible()
    account.call("GET", "/v1/memory/stats", key=key["key"], status=401)
    panel.get_by_role("button", name="Enable").click()
    expect(panel.get_by_text("Live", exact=True)).to_be_visible()
    account.call("GET", "/v1/memory/stats", key=key["key"])
    page.keyboard.press("Escape")
    expect(page.get_by_role("button", name="user:42", exact=True)).to_be_focused()


def test_a_key_is_rotated_and_the_old_one_works_for_a_while(dashboard: Dashboard, account: Account) -> None:
    key = account.mint("user:42")
    page = dashboard.open("keys")
    _panel(page, "user:42").get_by_role("button", name="Rotate").click()
    page.get_by_label("The old key ends").select_option("In one day")
    page.get_by_role("button", name="Rotate").last.click()
    shown = page.get_by_role("dialog", name="The new key")
    expect(shown.get_by_text("The old key works until")).to_be_visible()
    new = shown.get_by_role("textbox", name="The key").inner_text()
    shown.get_by_role("button", name="Done").click()
    account.call("GET", "/v1/memory/stats", key=key["key"])
    account.call("GET", "/v1/memory/stats", key=new)
    panel = page.get_by_role("dialog", name="user:42")
    expect(panel.get_by_text("Replaced", exact=True)).to_be_visible()
    expect(panel.get_by_role("button", name="Rotate")).to_have_count(0)


def test_a_revoked_key_leaves_its_vault_to_another(dashboard: Dashboard, account: Account) -> None:
    key = account.mint("user:42")
    page = dashboard.open("keys")
    panel = _panel(page, "user:42")
    panel.get_by_role("button", name="Revoke").click()
    page.get_by_role("dialog", name="Revoke").get_by_role("button", name="Revoke").click()
    account_row = page.get_by_role("row").filter(has_text=key["vault_id"])
    expect(account_row).to_have_count(0)
    panel.get_by_role("button", name="New key for its vault").click()
    expect(page.get_by_label("Vault")).to_have_value(key["vault_id"])
    page.get_by_label("Name", exact=True).fill("user:43")
    page.get_by_role("button", name="Create", exact=True).click()
    expect(page.get_by_role("dialog", name="Key created")).to_contain_text(key["vault_id"])
    page.get_by_role("button", name="Done").click()
    expect(account_row).to_contain_text("user:43")
    page.get_by_label("Show revoked keys").check()
    expect(page.get_by_role("row").filter(has_text="user:42")).to_contain_text("Revoked")


def test_a_vault_goes_with_its_key_only_when_its_id_is_typed(dashboard: Dashboard, account: Account) -> None:
    key = account.mint("user:42")
    account.upload([{"content": "To be forgotten."}], key=key["key"])
    page = dashboard.open("keys")
    panel = _panel(page, "user:42")
    panel.get_by_role("button", name="Delete with its vault").click()
    sure = page.get_by_role("dialog", name="Delete the key and its vault?")
    go = sure.get_by_role("button", name="Delete for good")
    expect(go).to_be_disabled()
    expect(sure.get_by_role("textbox")).to_be_focused()
    dashboard.assert_accessible()
    sure.get_by_role("textbox").fill("vault_")
    expect(go).to_be_disabled()
    sure.get_by_role("textbox").fill(key["vault_id"])
    go.click()
    expect(sure).to_have_count(0)
    expect(page.get_by_role("row").filter(has_text="user:42")).to_have_count(0)
    account.call("GET", f"/v1/vaults/{key['vault_id']}", status=404)


def test_what_the_server_refuses_is_said_in_the_dialog(dashboard: Dashboard) -> None:
    page = dashboard.open("keys")
    page.get_by_role("row").nth(1).get_by_role("button").click()
    page.get_by_role("button", name="Revoke").click()
    sure = page.get_by_role("dialog", name="Revoke")
    with dashboard.refusals(409):
        sure.get_by_role("button", name="Revoke").click()
        expect(sure.get_by_role("alert")).to_contain_text("last")
    sure.get_by_role("button", name="Cancel").click()
    expect(page.get_by_role("dialog")).to_have_count(1)


def test_a_list_that_cannot_be_had_says_so_and_tries_again(dashboard: Dashboard) -> None:
    away = "**/dashboard/api/v1/keys*"
    dashboard.context.route(away, lambda route: route.fulfill(status=503, json={"error": "Too busy.", "hint": "Soon."}))
    with dashboard.refusals(503):
        page = dashboard.open("keys")
        expect(page.get_by_role("alert")).to_contain_text("Too busy.")
        dashboard.assert_accessible()
    dashboard.context.unroute(away)
    page.get_by_role("button", name="Try again").click()
    expect(page.get_by_role("row")).to_have_count(2)
