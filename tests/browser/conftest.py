"""One server, one provider and one browser for all browser tests; for each test a fresh account and a fresh profile.

Without a chromium on PATH these tests are skipped, unless MEMORYROUTER_TEST_BROWSER=required: then they fail. The
fixtures live as long as this package's tests, and no longer: Playwright's blocking interface keeps an asyncio loop in
the thread, beside which the other tests must not run.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from playwright.sync_api import Browser, BrowserContext, ViewportSize, sync_playwright

from tests.browser.dashboard import Dashboard
from tests.browser.many_keys import server_with_many_keys
from tests.browser.provider_stub import GOOD_KEY, StubProvider, running_provider
from tests.browser.serving import Account, RunningServer, running_server
from tests.patience import PATIENCE_S

REQUIRED = "MEMORYROUTER_TEST_BROWSER"
FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
)
WIDE: ViewportSize = {"width": 1440, "height": 900}


@pytest.fixture(scope="package")
def chromium_path() -> str:
    """Where the browser is."""
    path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if path is None:
        reason = f"no chromium on PATH; {REQUIRED}=required makes this a failure"
        if os.environ.get(REQUIRED) == "required":
            pytest.fail(reason)
        pytest.skip(reason)
    return path


@pytest.fixture(scope="package")
def provider() -> Iterator[StubProvider]:
    """The provider `openai` of the server."""
    with running_provider() as running:
        yield running


@pytest.fixture(scope="package")
def server(
    chromium_path: str, provider: StubProvider, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RunningServer]:
    """A server that was started for the first time."""
    environment = {"MEMORYROUTER_PROVIDERS__OPENAI__BASE_URL": provider.url}
    with running_server(tmp_path_factory.mktemp("browser") / "data", environment=environment) as running:
        yield running


@pytest.fixture(scope="package")
def browser(chromium_path: str, server: RunningServer) -> Iterator[Browser]:
    """Chromium; started after the server, so that what runs Trio comes before Playwright."""
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(
            executable_path=chromium_path, args=[*FLAGS], headless=True, timeout=PATIENCE_S * 1000
        )
        yield opened
        opened.close()


@pytest.fixture
def account(server: RunningServer) -> Account:
    """An account of this test alone. It has its account key and that key's empty vault."""
    return server.new_account()


@pytest.fixture
def account_with_models(account: Account) -> Account:
    """The same, with a key for the provider."""
    account.call("PUT", "/v1/providers/openai/key", {"key": GOOD_KEY})
    return account


@contextmanager
def signed_in(browser: Browser, account: Account) -> Iterator[Dashboard]:
    """A tab of a fresh profile that is signed in, on no page yet; at the end it must have been without a fault."""
    context = new_profile(browser)
    opened = Dashboard(context, account)
    opened.sign_in()
    yield opened
    opened.assert_no_faults()
    context.close()


def new_profile(browser: Browser) -> BrowserContext:
    """A fresh profile, the same on every machine."""
    return browser.new_context(viewport=WIDE, locale="en-GB", timezone_id="UTC", reduced_motion="reduce")


@pytest.fixture(scope="package")
def account_with_many(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Account]:
    """The account of a server of its own, with a hundred thousand keys."""
    with server_with_many_keys(tmp_path_factory.mktemp("many") / "data") as running:
        yield Account(running.url, running.account_key)


@pytest.fixture
def dashboard(browser: Browser, account: Account) -> Iterator[Dashboard]:
    """A tab that is signed in, on no page yet. At the end nothing may have been wrong with what it showed."""
    with signed_in(browser, account) as opened:
        yield opened
