"""A vault in and out through the browser: imports in slices, exports, and what happens when they break."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from playwright.sync_api import Route, expect

from tests.browser.dashboard import Dashboard
from tests.browser.seeding import HOSTILE, SAID_MS, Vault
from tests.browser.serving import Account

SLICE_LINES = 500  # of js/import_slices.js


@pytest.fixture
def vault(account: Account) -> Vault:
    """A user's vault, empty."""
    return Vault(account)


def lines_file(folder: Path, count: int, *, broken_at: int = 0) -> Path:
    """JSON lines; the one of this number, counted from 1, is none."""
    lines = [json.dumps({"content": f"Line {number}.", "timestamp": SAID_MS + number}) for number in range(count)]
    if broken_at:
        lines[broken_at - 1] = "{broken"
    file = folder / "memories.jsonl"
    file.write_text("\n".join(lines) + "\n")
    return file


def test_a_file_is_imported_in_slices_and_adds_nothing_the_second_time(
    dashboard: Dashboard, vault: Vault, tmp_path: Path
) -> None:
    file = lines_file(tmp_path, 2 * SLICE_LINES + 10)
    page = dashboard.open(f"vaults/{vault.id}?tab=transfer")
    dashboard.assert_accessible()
    dashboard.assert_fits()
    sent: list[int] = []
    page.on("request", lambda request: sent.append(1) if request.url.endswith("/v1/memory/upload") else None)
    page.get_by_label("File").set_input_files(file)
    page.get_by_role("button", name="Import", exact=True).click()
    expect(page.get_by_text("1,010 memories imported.").first).to_be_visible()
    assert len(sent) == 3
    page.get_by_role("button", name="Import", exact=True).click()
    expect(page.get_by_text("1,010 memories were known already.")).to_be_visible()
    assert vault.account.call("GET", "/v1/memory/stats", key=vault.key)["memories"] == 1_010


def test_an_import_can_be_stopped_and_goes_on_where_it_was(dashboard: Dashboard, vault: Vault, tmp_path: Path) -> None:
    page = dashboard.open(f"vaults/{vault.id}?tab=transfer")
    slices: list[Route] = []

    def hold_the_second(route: Route) -> None:
        slices.append(route)
        if len(slices) != 2:
            route.continue_()

    page.route("**/v1/memory/upload", hold_the_second)
    page.get_by_label("File").set_input_files(lines_file(tmp_path, SLICE_LINES + 10))
    page.get_by_role("button", name="Import", exact=True).click()
    bar = page.get_by_role("progressbar")
    expect(page.get_by_text("500 lines, 500 stored")).to_be_visible()
    assert 0 < bar.evaluate("(bar) => bar.value / bar.max") < 1
    dashboard.assert_accessible()
    page.get_by_role("button", name="Cancel").click()
    expect(page.get_by_text("Stopped. 500 lines stored so far")).to_be_visible()
    page.get_by_role("button", name="Go on from there").click()
    expect(page.get_by_text("510 memories imported.").first).to_be_visible()
    assert vault.account.call("GET", "/v1/memory/stats", key=vault.key)["memories"] == SLICE_LINES + 10


def test_a_wrong_line_is_named_as_the_file_counts_it(dashboard: Dashboard, vault: Vault, tmp_path: Path) -> None:
    page = dashboard.open(f"vaults/{vault.id}?tab=transfer")
    page.get_by_label("File").set_input_files(lines_file(tmp_path, SLICE_LINES + 10, broken_at=SLICE_LINES + 7))
    with dashboard.refusals(400):
        page.get_by_role("button", name="Import", exact=True).click()
        expect(page.get_by_role("alert")).to_contain_text(f"Line {SLICE_LINES + 7}: not valid JSON.")
    expect(page.get_by_text("500 lines stored so far")).to_be_visible()


def test_a_vault_is_downloaded_and_imported_into_another(
    dashboard: Dashboard, vault: Vault, account: Account, tmp_path: Path
) -> None:
    vault.upload("My sister lives in Oslo.", HOSTILE)
    page = dashboard.open(f"vaults/{vault.id}?tab=transfer")
    with page.expect_download() as downloading:
        page.get_by_role("button", name="Download").click()
    file = tmp_path / downloading.value.suggested_filename
    downloading.value.save_as(file)
    assert file.name.startswith(vault.id)
    assert json.loads(file.read_text().splitlines()[0])["count"] == 2
    other = Vault(account, "user:bob")
    dashboard.open(f"vaults/{other.id}?tab=transfer")
    page.get_by_label("File").set_input_files(file)
    page.get_by_role("button", name="Import", exact=True).click()
    expect(page.get_by_text("2 memories imported.").first).to_be_visible()
    assert other.texts() == vault.texts()
