"""The list of vaults: named by their keys, with their sizes, found by name and id, and those that no key opens."""

from __future__ import annotations

from playwright.sync_api import expect

from tests.browser.dashboard import Dashboard
from tests.browser.seeding import HOSTILE, Vault
from tests.browser.serving import Account


def test_vaults_stand_with_the_name_of_their_key_and_their_size(dashboard: Dashboard, account: Account) -> None:
    alice = Vault(account, "user:alice")
    alice.upload("One.", "Two.", "Three.")
    Vault(account, HOSTILE[:150])
    page = dashboard.open("vaults")
    row = page.get_by_role("row").filter(has_text="user:alice")
    expect(row).to_contain_text(alice.id)
    expect(row.get_by_role("cell").nth(1)).to_have_text("3")
    expect(page.get_by_role("cell", name=HOSTILE[:150])).to_be_visible()
    assert page.evaluate("() => window.broken") is None
    dashboard.assert_accessible()
    dashboard.assert_fits()
    page.get_by_role("link", name=alice.id, exact=True).click()
    expect(page.get_by_role("heading", level=1, name=alice.id)).to_be_visible()


def test_a_vault_is_found_by_the_name_of_its_key_and_by_its_id(dashboard: Dashboard, account: Account) -> None:
    alice, bob = Vault(account, "user:alice"), Vault(account, "user:bob")
    page = dashboard.open("vaults")
    search = page.get_by_role("searchbox")
    search.fill("ali")
    expect(page.get_by_role("row")).to_have_count(2)
    expect(page.get_by_role("link", name=alice.id, exact=True)).to_be_visible()
    search.fill(bob.id)
    expect(page.get_by_role("link", name=bob.id, exact=True)).to_be_visible()
    expect(page.get_by_role("row")).to_have_count(2)
    search.fill("nobody")
    expect(page.get_by_text("No vault is opened by such a key.")).to_be_visible()
    page.reload()
    dashboard.settled()
    expect(page.get_by_role("searchbox")).to_have_value("nobody")


def test_vaults_without_a_key_are_listed_by_themselves(dashboard: Dashboard, account: Account) -> None:
    created = account.mint("user:gone")
    account.call("DELETE", f"/v1/keys/{created['id']}?vault=keep")
    page = dashboard.open("vaults")
    expect(page.get_by_role("link", name=created["vault_id"], exact=True)).to_have_count(0)
    page.get_by_label("Which vaults").select_option("Without a key")
    expect(page.get_by_role("row").filter(has_text=created["vault_id"])).to_contain_text("no key")
    dashboard.assert_accessible()
