"""A page in a browser: whatever a test does, it must ask nothing of other hosts, must keep to its
content security policy, and must not fail.
"""

import urllib.parse

from playwright.sync_api import expect

# Nothing here takes long; this only ends a test that would otherwise hang.
LIMIT_MS = 60_000
expect.set_options(timeout=LIMIT_MS)

WATCH_POLICY = """
addEventListener('securitypolicyviolation', (event) =>
    notePolicyViolation(`${event.effectiveDirective} ${event.blockedURI} ${event.sample}`));
"""


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


class Pages:
    """Opens pages, each in a browser of its own, and looks in the end that none has failed."""

    def __init__(self, browser):
        self.browser = browser
        self.opened = []

    def open(self, url, **options):
        options.setdefault("viewport", {"width": 1280, "height": 900})
        options.setdefault("reduced_motion", "reduce")
        context = self.browser.new_context(locale="en-GB", timezone_id="Asia/Kathmandu", **options)
        context.set_default_timeout(LIMIT_MS)
        page = context.new_page()
        page.faults = Faults(url)
        page.faults.watch(context, page)
        self.opened.append((context, page))
        page.goto(url)
        return page

    def close(self):
        for context, page in self.opened:
            context.close()
            assert page.faults.are_expected or page.faults.found == []
