"""The dashboard in Debian's Chromium, before a mock of the admin listener or before the
real server. Whatever a test does, the page must ask nothing of other hosts, must keep to
its content security policy, and must not fail.
"""

import pathlib
import sys
import urllib.parse

import pytest
from playwright.sync_api import expect

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "support"))

import chromium
from mock import Mock

# Nothing here takes long; this only ends a test that would otherwise hang.
LIMIT_MS = 60_000
expect.set_options(timeout=LIMIT_MS)

WATCH_POLICY = """
addEventListener('securitypolicyviolation', (event) =>
    notePolicyViolation(`${event.effectiveDirective} ${event.blockedURI} ${event.sample}`));
"""


@pytest.fixture(scope="session")
def browser():
    with chromium.launched() as browser:
        yield browser


@pytest.fixture
def serve():
    """Starts mocks; a second of theirs passes faster than one of ours."""
    mocks = []

    def start(**settings):
        mock = Mock(**{"tick_seconds": 0.2, **settings})
        mocks.append(mock)
        return mock.start()

    yield start
    for mock in mocks:
        mock.close()


@pytest.fixture
def mock(serve):
    return serve()


class Faults:
    """What a page must never do."""

    def __init__(self, origin):
        self.origin = origin
        self.found = []
        # Of a test that provokes them.
        self.are_expected = False

    def watch(self, context, page):
        context.expose_function("notePolicyViolation", lambda text: self.found.append(f"policy: {text}"))
        context.add_init_script(WATCH_POLICY)
        page.on("pageerror", lambda error: self.found.append(f"error: {error}"))
        page.on("console", self.note_console)
        page.on("request", self.note_request)

    def note_console(self, message):
        # A server that is away, or refuses, is no fault of the page.
        if message.type == "error" and "Failed to load resource" not in message.text:
            self.found.append(f"console: {message.text}")

    def note_request(self, request):
        parts = urllib.parse.urlsplit(request.url)
        if parts.scheme != "data" and f"{parts.scheme}://{parts.netloc}" != self.origin:
            self.found.append(f"request: {request.url}")


@pytest.fixture
def open_page(browser):
    """Opens the dashboard of this address, in a browser of its own."""
    opened = []

    def open(url, wait=True, **options):
        options.setdefault("viewport", {"width": 1280, "height": 900})
        options.setdefault("reduced_motion", "reduce")
        context = browser.new_context(locale="en-GB", timezone_id="Asia/Kathmandu", **options)
        context.set_default_timeout(LIMIT_MS)
        page = context.new_page()
        page.faults = Faults(url)
        page.faults.watch(context, page)
        opened.append((context, page))
        page.goto(url)
        if wait:
            expect(page.locator("#state-text")).to_have_text("Serving")
        return page

    yield open
    for context, page in opened:
        context.close()
        assert page.faults.are_expected or page.faults.found == []


@pytest.fixture
def page(mock, open_page):
    return open_page(mock.url)
