"""The usage screen: figures, charts with their tables, ranges, one key, and the same as CSV."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

from playwright.sync_api import expect

from tests.browser.dashboard import Dashboard
from tests.browser.seeding import Vault
from tests.browser.serving import Account


def use(vault: Vault, times: int, model: str = "openai/stub-large") -> None:
    for number in range(times):
        body = {"model": model, "messages": [{"role": "user", "content": f"Question {number}"}]}
        vault.account.call("POST", "/v1/chat/completions", body, key=vault.key)


def test_usage_is_drawn_by_day_model_and_key_and_is_a_table_too(
    dashboard: Dashboard, account_with_models: Account
) -> None:
    use(Vault(account_with_models, "user:alice"), 3)
    use(Vault(account_with_models, "user:bob"), 1, model="local/recall")
    used = account_with_models.call("GET", "/v1/account/usage")["total_requests"]
    page = dashboard.open("usage")
    expect(page.locator(".stat").filter(has_text="Requests")).to_contain_text(str(used))
    charts = page.locator("figure.chart")
    expect(charts).to_have_count(4)
    spoken = f"Requests by day. Answered: last {used}, at most {used}; Failed: last 0, at most 0."
    expect(charts.first.get_by_role("img")).to_have_attribute("aria-label", spoken)
    charts.first.get_by_text("Show as a table").click()
    today = datetime.now(UTC)
    table = page.get_by_role("table", name="Requests by day")
    expect(table.get_by_role("row")).to_have_count(31)
    expect(table.get_by_role("row").last).to_contain_text(f"{today.day} {today:%b}")
    models = page.get_by_role("table", name="By model")
    expect(models.get_by_role("row").filter(has_text="openai/stub-large").get_by_role("cell").first).to_have_text("3")
    keys = page.get_by_role("table", name="By key")
    row = keys.get_by_role("row").filter(has_text="user:alice")
    expect(row.get_by_role("cell").first).to_have_text("3")
    dashboard.assert_accessible()
    dashboard.assert_fits()


def test_one_keys_usage_and_other_days_can_be_asked_for(dashboard: Dashboard, account_with_models: Account) -> None:
    alice = Vault(account_with_models, "user:alice")
    use(alice, 3)
    page = dashboard.open("usage")
    row = page.get_by_role("table", name="By key").get_by_role("row").filter(has_text="user:alice")
    row.get_by_role("link").click()
    expect(page.get_by_role("table", name="By key")).to_have_count(0)
    expect(page.locator(".stat").filter(has_text="Requests")).to_contain_text("3")
    expect(page.get_by_role("table", name="By key")).to_have_count(0)
    page.get_by_label("Days").select_option("Last 7 days")
    dashboard.settled()
    page.get_by_text("Show as a table").first.click()
    expect(page.get_by_role("table", name="Requests by day").get_by_role("row")).to_have_count(8)
    page.get_by_label("Days").select_option("From … to …")
    past = datetime.now(UTC) - timedelta(days=60)
    page.get_by_label("From").fill(f"{past:%Y-%m-%d}")
    page.get_by_label("To", exact=True).fill(f"{past:%Y-%m-%d}")
    expect(page.get_by_text("This key has used nothing in these days.")).to_be_visible()
    dashboard.assert_accessible()


def test_usage_is_downloaded_as_csv(dashboard: Dashboard, account_with_models: Account, tmp_path: Path) -> None:
    use(Vault(account_with_models), 2)
    page = dashboard.open("usage")
    with page.expect_download() as downloading:
        page.get_by_role("button", name="Download CSV").click()
    file = tmp_path / "usage.csv"
    downloading.value.save_as(file)
    lines = file.read_text().splitlines()
    assert lines[0].startswith("date,key_id,model,requests,")
    assert any(line.split(",")[2:4] == ["openai/stub-large", "2"] for line in lines)
    assert downloading.value.suggested_filename.endswith(f"{datetime.now(UTC):%Y-%m-%d}.csv")
