"""Pages in Debian's Chromium."""

import pathlib
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "support"))

import chromium
from pages import Pages


@pytest.fixture(scope="session")
def browser():
    with chromium.launched() as browser:
        yield browser


@pytest.fixture
def pages(browser):
    pages = Pages(browser)
    yield pages
    pages.close()
