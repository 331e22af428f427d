"""The dashboard, before a mock of the admin listener or before the real server."""

import pytest
from playwright.sync_api import expect

from mock import Mock


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


@pytest.fixture
def open_page(pages):
    """Opens the dashboard of this address, in a browser of its own."""

    def open(url, wait=True, **options):
        page = pages.open(url, **options)
        if wait:
            expect(page.locator("#state-text")).to_have_text("Serving")
        return page

    return open


@pytest.fixture
def page(mock, open_page):
    return open_page(mock.url)
