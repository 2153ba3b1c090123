"""The guards that every browser test has: each sees what it is there for."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import Browser

from tests.browser.dashboard import Dashboard
from tests.browser.serving import Account


@pytest.mark.parametrize(
    ("script", "fault"),
    [
        ("console.error('something is wrong')", "something is wrong"),
        ("setTimeout(() => { throw new Error('nobody caught it'); })", "nobody caught it"),
        ("document.body.append(Object.assign(new Image(), {src: 'http://127.0.0.2:9/x'}))", "violates"),
        ("document.body.append(Object.assign(document.createElement('style'), {textContent: 'a{}'}))", "violates"),
    ],
)
def test_what_a_page_does_wrong_is_heard(browser: Browser, account: Account, script: str, fault: str) -> None:
    context = browser.new_context()
    guarded = Dashboard(context, account)
    guarded.sign_in()
    page = guarded.open()
    guarded.assert_no_faults()
    page.evaluate(f"() => {{ {script} }}")
    page.evaluate("() => new Promise((done) => setTimeout(done))")
    with pytest.raises(AssertionError, match=re.compile(fault)):
        guarded.assert_no_faults()
    context.close()


def test_a_request_that_leaves_the_origin_is_seen(browser: Browser, account: Account) -> None:
    context = browser.new_context()
    guarded = Dashboard(context, account)
    guarded.context.route("http://elsewhere.invalid/", lambda route: route.fulfill(body="a page"))
    guarded.page.goto("http://elsewhere.invalid/")
    with pytest.raises(AssertionError, match="left the origin"):
        guarded.assert_no_faults()
    context.close()


def test_what_is_not_accessible_is_found(browser: Browser, account: Account) -> None:
    context = browser.new_context()
    guarded = Dashboard(context, account)
    guarded.sign_in()
    page = guarded.open()
    page.evaluate("() => document.querySelector('main').append(document.createElement('button'))")
    with pytest.raises(AssertionError, match="button-name"):
        guarded.assert_accessible()
    context.close()
