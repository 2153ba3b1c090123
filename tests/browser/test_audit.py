"""The audit log in words: filtered, searched, in pages, with links to what was changed."""

from __future__ import annotations

from playwright.sync_api import expect

from tests.browser.dashboard import Dashboard
from tests.browser.serving import Account


def test_what_was_done_is_said_in_words(dashboard: Dashboard, account: Account) -> None:
    kept, gone = account.mint("user:kept"), account.mint("user:gone")
    account.call("PATCH", f"/v1/keys/{kept['id']}", {"limits": {"requests_per_minute": 60}, "expires_at": "2199-01-01"})
    account.call("POST", f"/v1/keys/{kept['id']}/rotate", {"grace_s": 600}, status=201)
    account.call("PATCH", f"/v1/vaults/{kept['vault_id']}", {"retention_days": 30})
    account.call("DELETE", f"/v1/keys/{gone['id']}?vault=delete")
    page = dashboard.open("audit")
    table = page.get_by_role("table")
    for said in (
        "Signed in to the dashboard",
        "Vault shredded",
        "Key revoked",
        "Memories are kept for 30 days",
        "takes its place, the old one ends after 10 min",
        "Key changed: expiry, limits",
        "Key created, with a new vault",
    ):
        expect(table.get_by_text(said).first).to_be_visible()
    for text in ("user:kept", "user:gone", kept["key"], account.key):
        expect(page.get_by_text(text)).to_have_count(0)
    dashboard.assert_accessible()
    dashboard.assert_fits()
    table.get_by_role("row").filter(has_text="Key changed").get_by_role("link", name=kept["id"], exact=True).click()
    expect(page.get_by_role("dialog", name="user:kept")).to_be_visible()


def test_the_log_is_filtered_and_searched(dashboard: Dashboard, account: Account) -> None:
    key = account.mint("user:one")
    account.call("PATCH", f"/v1/vaults/{key['vault_id']}", {"retention_days": 7})
    page = dashboard.open("audit")
    page.get_by_label("Of what").select_option("Vaults")
    expect(page.get_by_role("row")).to_have_count(2)
    expect(page.get_by_role("row").nth(1)).to_contain_text("Memories are kept for 7 days")
    page.reload()
    expect(page.get_by_label("Of what")).to_have_value("vault")
    page.get_by_label("Of what").select_option("Everything")
    page.get_by_role("searchbox").fill(f"{key['id']} created")
    expect(page.get_by_role("row")).to_have_count(2)
    page.get_by_role("searchbox").fill("never happened")
    expect(page.get_by_text("No entry fits the search.")).to_be_visible()


def test_the_server_chooses_by_thing_by_actor_and_by_time(dashboard: Dashboard, account: Account) -> None:
    """One page of the log is asked for, however long it is: only words of a sentence are looked for in the browser."""
    key = account.mint("user:one")
    account.call("PATCH", f"/v1/keys/{key['id']}", {"disabled": True})
    page = dashboard.open("audit")
    expect(page.get_by_text("Account created")).to_be_visible()
    search = page.get_by_role("searchbox")
    with page.expect_request("**/v1/audit?*") as asked:
        search.fill(key["id"])
    assert f"subject={key['id']}" in asked.value.url
    assert "limit=50" in asked.value.url
    expect(page.get_by_role("row")).to_have_count(3)
    with page.expect_request("**/v1/audit?*") as asked:
        search.fill("by operator")
    assert "actor=operator" in asked.value.url
    expect(page.get_by_text("Account created")).to_be_visible()
    expect(page.get_by_text("Key changed")).to_have_count(0)
    search.fill("")
    with page.expect_request("**/v1/audit?*") as asked:
        page.get_by_label("When").select_option("In the last hour")
    assert "since=" in asked.value.url
    expect(page.get_by_text("Key changed")).to_be_visible()
    page.reload()
    expect(page.get_by_label("When")).to_have_value("1")
    dashboard.assert_accessible()


def test_a_long_log_is_turned_page_by_page(dashboard: Dashboard, account: Account) -> None:
    for number in range(48):
        account.mint(f"user:{number}")
    page = dashboard.open("audit")
    expect(page.get_by_role("row")).to_have_count(51)
    expect(page.get_by_text("1\u201350")).to_be_visible()
    page.get_by_role("button", name="Next").click()
    expect(page.get_by_text("Account created")).to_be_visible()
    expect(page.get_by_role("button", name="Next")).to_be_disabled()
    page.get_by_role("button", name="Previous").click()
    expect(page.get_by_text("1\u201350")).to_be_visible()
