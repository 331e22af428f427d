"""Debian's Chromium, driven by Playwright."""

import contextlib
import os

from playwright.sync_api import sync_playwright

BINARY = os.environ.get("BROWSER_CHROMIUM", "/usr/bin/chromium")


@contextlib.contextmanager
def launched():
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=BINARY)
        yield browser
        browser.close()
