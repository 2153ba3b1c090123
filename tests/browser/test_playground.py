"""The playground: chats that stream, and what memory did with each, word for word."""

from __future__ import annotations

import pytest
from playwright.sync_api import Locator, Page, expect

from tests.browser.dashboard import Dashboard
from tests.browser.provider_stub import StubProvider
from tests.browser.seeding import HOSTILE, Vault
from tests.browser.serving import Account

LOCKER = "My locker number at the pool is 4471."
QUESTION = "What is my locker number?"


@pytest.fixture
def vault(account_with_models: Account) -> Vault:
    """A user's vault that knows a number and something hostile."""
    vault = Vault(account_with_models)
    vault.upload(LOCKER, HOSTILE)
    return vault


def ask(page: Page, text: str) -> None:
    page.get_by_label("Message").fill(text)
    page.get_by_label("Message").press("Enter")


def last_answer(page: Page) -> Locator:
    return page.get_by_role("article", name="Assistant").last


def inspector(page: Page) -> Locator:
    return page.get_by_role("region", name="What memory did")


def test_a_chat_shows_exactly_what_was_injected_and_what_was_stored(
    dashboard: Dashboard, vault: Vault, provider: StubProvider
) -> None:
    page = dashboard.open(f"playground?vault={vault.id}&model=openai/stub-large")
    dashboard.assert_accessible()
    dashboard.assert_fits()
    ask(page, QUESTION)
    expect(last_answer(page)).to_contain_text(f"You said: {QUESTION}")
    block = inspector(page).get_by_role("region", name="The injected text")
    expect(block).to_contain_text(LOCKER)
    sent = provider.asked[-1]["messages"][-1]["content"]
    assert (block.text_content() or "").strip() in sent
    stored = inspector(page).locator(".stored li")
    expect(stored).to_have_count(2)
    expect(stored.first).to_contain_text(QUESTION)
    expect(stored.last).to_contain_text(f"You said: {QUESTION}")
    assert {f"You said: {QUESTION}", QUESTION} <= set(vault.texts())
    dashboard.assert_accessible()
    stored.first.get_by_role("link").click()
    expect(page.get_by_role("heading", level=2, name="One memory")).to_be_visible()
    expect(page.locator("li.memory")).to_contain_text(QUESTION)


def test_local_recall_answers_from_the_vault_without_a_provider(dashboard: Dashboard, vault: Vault) -> None:
    page = dashboard.open(f"playground?vault={vault.id}")
    expect(page.get_by_label("Model", exact=True)).to_have_value("local/recall")
    ask(page, QUESTION)
    expect(last_answer(page)).to_contain_text("4471")
    expect(inspector(page)).to_contain_text("Stored")
    assert page.evaluate("() => window.broken") is None


def test_a_reply_is_shown_while_it_comes_and_can_be_stopped(
    dashboard: Dashboard, vault: Vault, provider: StubProvider
) -> None:
    provider.gate.clear()
    page = dashboard.open(f"playground?vault={vault.id}&model=openai/stub-waits")
    ask(page, "Wait for it")
    expect(last_answer(page).locator(".chat-text")).to_have_text("You said: ")
    provider.gate.set()
    expect(last_answer(page).locator(".chat-text")).to_have_text("You said: Wait for it")
    expect(inspector(page).locator(".stored li")).to_have_count(2)
    provider.gate.clear()
    ask(page, "And stop")
    expect(last_answer(page).locator(".chat-text")).to_have_text("You said: ")
    page.get_by_role("button", name="Stop").click()
    expect(last_answer(page)).to_contain_text("stopped")
    expect(page.get_by_label("Message")).to_have_value("And stop")
    provider.gate.set()
    assert [message["content"] for message in provider.asked[-1]["messages"]][:2] == [
        "Wait for it",
        "You said: Wait for it",
    ]


def test_memory_can_be_read_only_or_off(dashboard: Dashboard, vault: Vault, provider: StubProvider) -> None:
    before = len(vault.texts())
    page = dashboard.open(f"playground?vault={vault.id}&model=openai/stub-large")
    page.get_by_label("Memory", exact=True).select_option("Off")
    ask(page, QUESTION)
    expect(inspector(page)).to_contain_text("Reading is off for this chat.")
    expect(inspector(page)).to_contain_text("Storing is off for this chat.")
    assert provider.asked[-1]["messages"][-1]["content"] == QUESTION
    page.get_by_label("Memory", exact=True).select_option("Read only")
    ask(page, QUESTION)
    expect(inspector(page).get_by_role("region", name="The injected text")).to_contain_text(LOCKER)
    expect(inspector(page)).to_contain_text("Storing is off for this chat.")
    assert len(vault.texts()) == before


def test_a_session_keeps_to_itself(dashboard: Dashboard, vault: Vault) -> None:
    page = dashboard.open(f"playground?vault={vault.id}&model=openai/stub-large")
    page.get_by_role("button", name="New session").click()
    session = page.get_by_role("textbox", name="Session").input_value()
    assert session.startswith("try-")
    ask(page, QUESTION)
    expect(inspector(page)).to_contain_text("Nothing was injected.")
    expect(inspector(page).locator(".stored li")).to_have_count(2)
    assert len(vault.account.memories(key=vault.key, query=f"&session_id={session}")) == 2


def test_a_provider_that_fails_says_why_and_the_message_is_not_lost(dashboard: Dashboard, vault: Vault) -> None:
    page = dashboard.open(f"playground?vault={vault.id}&model=openai/stub-fails")
    with dashboard.refusals(500):
        ask(page, "Hello?")
        expect(last_answer(page).get_by_role("alert")).to_contain_text("The stub <b>fails</b>.")
    expect(page.get_by_label("Message")).to_have_value("Hello?")
    dashboard.assert_accessible()


def test_models_and_vaults_by_the_names_of_their_keys_are_offered(dashboard: Dashboard, vault: Vault) -> None:
    dashboard.page.route("**/api/v1/models", lambda route: route.fulfill(json={"data": [{"id": "openai/stub-small"}]}))
    page = dashboard.open("playground")
    expect(page.locator("datalist option[value='openai/stub-small']")).to_have_count(1)
    page.get_by_label("Vault").fill("alice")
    expect(page.locator(f"datalist option[value='{vault.id}']")).to_have_count(1)
