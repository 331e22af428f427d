"""Tokens: asked for, kept in memory, sent in a header, shown nowhere."""

import re

import pytest
from playwright.sync_api import expect

TOKENS = {"secret-of-writer": "write", "secret-of-reader": "read", "secret-of-nobody": "none"}


@pytest.fixture
def guarded(serve):
    mock = serve()
    mock.tokens = dict(TOKENS)
    return mock


def enter(page, token, keep=False):
    dialog = page.locator("#token")
    expect(dialog).to_be_visible()
    page.locator("#token-value").fill(token)
    page.locator("#token-keep").set_checked(keep)
    dialog.get_by_role("button", name="Use it").click()


def test_the_page_asks_for_a_token_and_works_with_it(guarded, open_page):
    page = open_page(guarded.url, wait=False)
    expect(page.locator("#state-text")).to_have_text("Locked")
    expect(page.locator("#token-why")).to_contain_text("a bearer token of a principal with admin rights is needed")
    expect(page.locator("#token-value")).to_be_focused()
    expect(page.locator("#gateways-rows tr")).to_have_count(0)
    enter(page, "secret-of-writer")
    expect(page.locator("#state-text")).to_have_text("Serving")
    expect(page.locator("#token")).to_be_hidden()
    expect(page.locator("#identity")).to_contain_text("you are operators")
    expect(page.get_by_role("button", name="Disconnect gw-00003")).to_be_visible()


def test_a_token_that_may_only_read(guarded, open_page):
    page = open_page(guarded.url, wait=False)
    enter(page, "secret-of-reader")
    expect(page.locator("#gateways-rows tr")).to_have_count(8)
    expect(page.get_by_role("button", name=re.compile("^Disconnect"))).to_have_count(0)


@pytest.mark.parametrize("token, words", [("wrong", "is needed"), ("secret-of-nobody", "may not read here")])
def test_a_token_that_does_not_let_in_is_asked_for_again(guarded, open_page, token, words):
    page = open_page(guarded.url, wait=False)
    enter(page, token)
    expect(page.locator("#token-why")).to_contain_text(words)
    enter(page, "secret-of-writer")
    expect(page.locator("#state-text")).to_have_text("Serving")


@pytest.mark.parametrize("text", ["", "   ", "two words", "späte", "a\u200bb"])
def test_what_is_no_token_is_not_sent(guarded, open_page, text):
    page = open_page(guarded.url, wait=False)
    expect(page.locator("#token")).to_be_visible()
    enter(page, text)
    expect(page.locator("#token-error")).to_be_visible()
    assert not [request for request in guarded.requests if "authorization" in request[2]]


def test_whoever_cancels_can_enter_it_later(guarded, open_page):
    page = open_page(guarded.url, wait=False)
    page.locator("#token").get_by_role("button", name="Cancel").click()
    expect(page.locator("#connection-text")).to_contain_text("does not let this page read")
    page.locator("#connection-retry").click()
    enter(page, "secret-of-writer")
    expect(page.locator("#state-text")).to_have_text("Serving")


def test_a_token_is_nowhere_to_be_read(guarded, open_page):
    page = open_page(guarded.url, wait=False)
    enter(page, "secret-of-writer")
    expect(page.locator("#state-text")).to_have_text("Serving")
    expect(page.locator("#gateways-rows tr")).to_have_count(8)
    assert not [path for _, path, _ in guarded.requests if "secret" in path]
    assert [headers for _, _, headers in guarded.requests if "secret" in headers.get("authorization", "")]
    assert not [headers for _, _, headers in guarded.requests if "cookie" in headers or "referer" in headers]
    assert "secret" not in page.content()
    assert "secret" not in page.url
    assert page.evaluate("JSON.stringify([{...sessionStorage}, {...localStorage}])").count("secret") == 0
    assert page.locator("#token-value").input_value() == ""


def test_a_reload_forgets_it_unless_it_was_to_be_kept(guarded, open_page):
    page = open_page(guarded.url, wait=False)
    enter(page, "secret-of-writer")
    expect(page.locator("#state-text")).to_have_text("Serving")
    page.reload()
    expect(page.locator("#state-text")).to_have_text("Locked")
    enter(page, "secret-of-writer", keep=True)
    expect(page.locator("#state-text")).to_have_text("Serving")
    page.reload()
    expect(page.locator("#state-text")).to_have_text("Serving")


def test_forgetting_takes_everything_from_the_page(guarded, open_page):
    page = open_page(guarded.url, wait=False)
    enter(page, "secret-of-writer", keep=True)
    expect(page.locator("#gateways-rows tr")).to_have_count(8)
    page.get_by_role("button", name="Forget the token").click()
    expect(page.locator("#state-text")).to_have_text("Locked")
    expect(page.locator("#gateways-rows tr")).to_have_count(0)
    assert page.evaluate("Object.keys(sessionStorage)") == []
    page.reload()
    expect(page.locator("#state-text")).to_have_text("Locked")


def test_a_token_that_is_revoked_while_the_page_is_open(guarded, open_page):
    page = open_page(guarded.url, wait=False)
    enter(page, "secret-of-writer")
    expect(page.locator("#gateways-rows tr")).to_have_count(8)
    guarded.tokens = {"another": "read"}
    guarded.stop()
    guarded.start()
    expect(page.locator("#state-text")).to_have_text("Locked")
    expect(page.locator("#gateways-rows tr")).to_have_count(0)


def test_a_reader_can_enter_a_token_that_may_more(serve, open_page):
    mock = serve(write=False)
    page = open_page(mock.url)
    page.get_by_role("button", name="Enter a token").click()
    # Only now: the page asks for one by itself as soon as it is refused.
    mock.tokens = dict(TOKENS)
    enter(page, "Bearer secret-of-writer")
    expect(page.get_by_role("button", name="Disconnect gw-00003")).to_be_visible()
