"""What every browser test does with the dashboard: sign in, open a screen, judge its accessibility, and watch it.

Owns what counts as a fault of a page: errors and warnings on its console, uncaught errors, violations of its content
security policy (they are console errors), and any request beyond its own origin.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib.resources import files
from typing import Any, Literal

from playwright.sync_api import BrowserContext, ConsoleMessage, Locator, Page, Request, WebError, expect

from tests.browser.serving import Account
from tests.patience import PATIENCE_S

THEMES: tuple[Literal["light", "dark"], ...] = ("light", "dark")
OF_COLOURS = ["color-contrast", "link-in-text-block"]
"""Rules of axe that can tell one theme from the other; all others are asked once."""

_TWO_FRAMES = "() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))"
_REFUSED = re.compile(r"Failed to load resource: the server responded with a status of (\d+)")
_INSIDE = ("data:", "blob:")

expect.set_options(timeout=PATIENCE_S * 1000)


@cache
def _axe() -> str:
    """axe-core; run where it finds itself loaded, it loads nothing again."""
    script = (files("axe_playwright_python") / "axe.min.js").read_text()
    return f"() => {{ if (!window.axe) {{ {script} }} }}"


def _described(violation: dict[str, Any]) -> str:
    """What is wrong where."""
    places = [f"  {node['target']}: {node['html'][:300]}" for node in violation["nodes"]]
    return "\n".join([f"{violation['id']} ({violation['help']})", *places])


class Dashboard:
    """One tab of a fresh browser profile, with guards.

    Attributes:
        page: Playwright's.
        account: who is signed in.
    """

    def __init__(self, context: BrowserContext, account: Account) -> None:
        self.context = context
        self.account = account
        self._faults: list[str] = []
        self._allowed: set[int] = set()
        context.on("console", self._hear)
        context.on("weberror", self._hear_error)
        context.on("request", self._see)
        context.set_default_timeout(PATIENCE_S * 1000)
        self.page: Page = context.new_page()

    def _hear(self, message: ConsoleMessage) -> None:
        refused = _REFUSED.match(message.text)
        if refused and int(refused[1]) in self._allowed:
            return
        if message.type in {"error", "warning", "assert"}:
            self._faults.append(f"console: {message.text} ({message.location})")

    def _hear_error(self, error: WebError) -> None:
        self._faults.append(f"uncaught: {error.error}")

    def _see(self, request: Request) -> None:
        if not request.url.startswith((f"{self.account.url}/", *_INSIDE)):
            self._faults.append(f"a request left the origin: {request.method} {request.url}")

    @contextmanager
    def refusals(self, *statuses: int) -> Iterator[None]:
        """Within the block the server is expected to refuse something, which browsers write on the console."""
        before = self._allowed
        self._allowed = before | set(statuses)
        yield
        self.page.evaluate("() => new Promise((done) => setTimeout(done))")  # what is on its way has been heard
        self._allowed = before

    def assert_no_faults(self) -> None:
        """Nothing was wrong so far."""
        if not self.page.is_closed():
            self.page.evaluate("() => 0")  # what is on its way has been heard
        assert not self._faults, "\n".join(self._faults)

    def sign_in(self) -> None:
        """Begin a session as the sign-in form would, without the form: the cookie is in the context's jar."""
        answer = self.context.request.post(
            f"{self.account.url}/dashboard/session", headers={"X-Dashboard": "1"}, data={"key": self.account.key}
        )
        assert answer.ok, answer.text()

    def copied_by(self, button: Locator) -> str:
        """What a button puts on the clipboard, which takes a moment; the word that says so is gone soon."""
        self.context.grant_permissions(["clipboard-read", "clipboard-write"])
        self.page.evaluate("() => navigator.clipboard.writeText('')")
        button.click()
        self.page.wait_for_function("async () => (await navigator.clipboard.readText()) !== ''")
        text: str = self.page.evaluate("() => navigator.clipboard.readText()")
        return text

    def open(self, screen: str = "") -> Page:
        """Go to a screen by its address, such as `vaults/vault_3`, and wait until it has loaded."""
        self.page.goto(f"{self.account.url}/dashboard/{screen}")
        self.settled()
        return self.page

    def settled(self) -> None:
        """Wait until the screen shows a title and nothing is loading any more."""
        expect(self.page.get_by_role("heading", level=1)).to_be_visible()
        expect(self.page.locator("[aria-busy=true]")).to_have_count(0)

    def assert_accessible(self) -> None:
        """axe finds nothing wrong with what is shown, in both themes."""
        self.page.evaluate(_axe())
        for theme in THEMES:
            self.page.emulate_media(color_scheme=theme, reduced_motion="reduce")
            options: dict[str, Any] = {"resultTypes": ["violations"]}
            if theme != THEMES[0]:
                options["runOnly"] = OF_COLOURS
            violations = self.page.evaluate("(options) => axe.run(options).then((found) => found.violations)", options)
            assert not violations, "\n".join(f"{theme}: {_described(violation)}" for violation in violations)

    def assert_fits(self, width: int = 360) -> None:
        """Nothing makes the page itself scroll sideways on a screen of this width."""
        before = self.page.viewport_size
        assert before is not None
        self.page.set_viewport_size({"width": width, "height": 780})
        self.page.evaluate(_TWO_FRAMES)  # charts are drawn anew once they know their width
        over = self.page.evaluate("() => document.documentElement.scrollWidth - document.documentElement.clientWidth")
        self.page.set_viewport_size(before)
        assert over <= 0, f"{over} px too wide at {width} px"
