"""The example gateway, before the real server and a real browser."""

import pytest
from playwright.sync_api import expect

from deployment import Deployment


@pytest.fixture
def deploy(tmp_path):
    deployments = []

    def start(*serve_flags, **how):
        deployments.append(Deployment(tmp_path / "state", *serve_flags, **how))
        return deployments[-1]

    yield start
    for deployment in deployments:
        deployment.close()


@pytest.fixture
def deployment(deploy):
    return deploy()


@pytest.fixture
def log_in(pages):
    """Opens the page in a browser of its own, and logs a user in there."""

    def open(deployment, user, prepare=None):
        page = pages.open(deployment.url)
        if prepare is not None:
            prepare(page)
        page.get_by_label("User").fill(user)
        page.get_by_role("button", name="Log in").click()
        expect(page.locator("#state")).to_have_text("Logged in")
        return page

    return open
