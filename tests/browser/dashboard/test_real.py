"""The dashboard of the real server, with real gateways and publishers."""

import hashlib
import os
import re
import signal

import pytest
from playwright.sync_api import expect

from real import Real

# Sockets between a server and a gateway hold a few MiB: this is more.
FLOOD = [
    {"client_event": {"user_id": "usr-flood", "kind": "flood", "payload": {"text": "x" * 60_000}}} for _ in range(600)
]


@pytest.fixture
def real():
    started = []

    def start(*flags):
        started.append(Real(*flags))
        return started[-1]

    yield start
    for one in started:
        one.close()


def client_event(user, **fields):
    return {"client_event": {"user_id": user, "kind": "turn.ready", **fields}}


def invalidation(user, **fields):
    return {"session_invalidation": {"user_id": user, **fields}}


def test_gateways_and_figures(real, open_page):
    server = real()
    for id in ("gateway-1", "gateway-2", "eu/gateway 3?"):
        server.tail(id)
    page = open_page(server.url)
    expect(page.locator("#gateways-count")).to_have_text("(3)")
    server.publish_events([client_event("usr-mira")] * 500 + [invalidation("usr-vex", reason="signed_out")])
    row = page.locator("#gateways-rows tr", has_text="eu/gateway 3?")
    expect(row).to_contain_text("live")
    expect(row).to_contain_text("501")
    expect(row).to_contain_text("fresh, no-cursor")
    expect(page.locator("#totals")).to_contain_text("Client events500")
    expect(page.locator("#totals")).to_contain_text("Session invalidations1")
    expect(page.locator("#totals")).to_contain_text("Deliveries1,503")
    expect(page.locator("#ring-facts")).to_contain_text("Newest event501")
    expect(page.locator("#listeners")).to_contain_text(server.server.gateways)
    expect(page.locator("#attention-none")).to_be_visible()
    expect(page.locator("#chart-published .plot .line").first).to_be_attached()
    expect(page.locator("#checks")).to_contain_text("ok")


def test_a_gateway_that_takes_nothing_is_found_and_why_it_was_cut(real, open_page):
    server = real("--stall-timeout=3s", "--max-bytes=256MiB")
    server.tail("gateway-1")
    hangs = server.tail("gateway-2")
    page = open_page(server.url)
    expect(page.locator("#gateways-count")).to_have_text("(2)")
    hangs.signal(signal.SIGSTOP)
    server.publish_events(FLOOD)
    behind = page.locator('#attention-list > li[data-key="behind"]')
    stalled = page.locator('#attention-list > li[data-key="ends stalled"]')
    expect(behind.or_(stalled).first).to_contain_text("gateway-2")
    expect(stalled).to_contain_text("The gateway took nothing for the stall timeout")
    stalled.get_by_role("button", name="Show these ends").click()
    expect(page.locator("#ends-rows tr").first).to_contain_text("gateway-2")
    expect(page.locator("#ends-rows tr").first).to_contain_text("stalled")
    expect(page.locator("#gateways-count")).to_have_text("(1)")


def test_a_gateway_that_is_too_slow_is_told_with_what_it_missed(real, open_page):
    server = real("--max-events=64", "--stall-timeout=60s")
    hangs = server.tail("gateway-2")
    page = open_page(server.url)
    expect(page.locator("#gateways-count")).to_have_text("(1)")
    hangs.signal(signal.SIGSTOP)
    server.publish_events(FLOOD)
    hangs.signal(signal.SIGCONT)
    lapped = page.locator('#attention-list > li[data-key="ends lapped"]')
    expect(lapped).to_contain_text(re.compile(r"1 stream of 1 gateway in ten minutes, [\d,]+ events? missed"))


def test_invalidations_appear(real, open_page):
    server = real()
    page = open_page(server.url)
    (cursor,) = server.publish_events([invalidation("usr-vex", device_session_id="dev-1", reason="<b>banned</b>")])
    row = page.locator("#invalidations-rows tr")
    expect(row).to_contain_text(f"usr-vexdev-1<b>banned</b>{cursor}")


def test_a_user_is_followed(real, open_page):
    server = real()
    page = open_page(server.url)
    page.locator("#follow-user").fill("usr-mira")
    page.locator("#follow-payload").check()
    page.get_by_role("button", name="Follow", exact=True).click()
    expect(page.locator("#follow-state")).to_contain_text("Following usr-mira")
    server.publish_events(
        [
            client_event("usr-other"),
            client_event("usr-mira", event_id="evt-9", trace_id="tr-2", payload={"turn": 43}),
            invalidation("usr-mira", reason="signed_out"),
        ]
    )
    items = page.locator("#follow-events > li")
    expect(items).to_have_count(2)
    expect(items.first).to_contain_text(re.compile("invalidation.*signed_out"))
    expect(items.nth(1)).to_contain_text(re.compile(r"turn\.ready.*event evt-9.*trace tr-2"))
    expect(items.nth(1).locator("pre")).to_contain_text('"turn": 43')


@pytest.mark.parametrize("id", ["gateway-2", "a/b?c#d e%41", "<b>&\"'", "🚀" * 64])
def test_a_gateway_is_disconnected(real, open_page, id):
    server = real()
    server.tail("gateway-1")
    gateway = server.tail(id)
    page = open_page(server.url)
    page.locator("#gateways-rows tr", has_text=id).get_by_role("button").click()
    page.locator("#disconnect-confirm").click()
    expect(page.locator("#disconnect")).to_be_hidden()
    gateway.wait_for("TAKEN_OVER|ABORTED|[Aa]borted|taken")
    expect(page.locator("#ends-rows tr").first).to_contain_text(id)
    expect(page.locator("#gateways-rows tr", has_text="gateway-1")).to_have_count(1)


def test_a_server_that_is_started_anew(real, open_page):
    server = real()
    server.tail("gateway-1")
    page = open_page(server.url)
    expect(page.locator("#gateways-count")).to_have_text("(1)")
    server.restart()
    expect(page.locator("#toast")).to_contain_text("started anew")
    expect(page.locator("#state-text")).to_have_text("Serving")
    expect(page.locator("#gateways-count")).to_have_text("(0)")


def test_a_server_that_stops_says_so_until_it_has_gone(real, open_page):
    server = real("--shutdown-delay=5s")
    page = open_page(server.url)
    server.server.signal(signal.SIGTERM)
    expect(page.locator("#state-text")).to_have_text("Stopping")
    expect(page.locator("#state-text")).to_have_text("Unreachable")


@pytest.fixture
def guarded(real, tmp_path):
    def entry(name, token, rights):
        digest = hashlib.sha256(token.encode()).hexdigest()
        return f'[[principal]]\nname = "{name}"\ntoken_sha256 = "{digest}"\n{rights}\n'

    access = tmp_path / "access.toml"
    access.write_text(
        entry("gateways", "token-of-gateway", 'subscribe = ["*"]')
        + entry("readers", "token-of-reader", 'admin = "read"')
        + entry("writers", "token-of-writer", 'subscribe = ["*"]\nadmin = "write"')
    )
    token = tmp_path / "token"
    token.write_text("token-of-gateway")
    server = real(f"--access={access}")
    server.tail("gateway-1", f"--token-file={token}")
    return server


def enter(page, token):
    expect(page.locator("#token")).to_be_visible()
    page.locator("#token-value").fill(token)
    page.locator("#token").get_by_role("button", name="Use it").click()


@pytest.mark.parametrize(
    "token, buttons, payloads", [("token-of-reader", 0, False), ("token-of-writer", 1, True)]
)
def test_a_token_lets_in_as_far_as_it_goes(guarded, open_page, token, buttons, payloads):
    page = open_page(guarded.url, wait=False)
    expect(page.locator("#state-text")).to_have_text("Locked")
    enter(page, "no token of anybody")
    expect(page.locator("#token-error")).to_be_visible()
    enter(page, "token-of-gateway")
    expect(page.locator("#token-title")).to_have_text("Another token is needed")
    enter(page, token)
    expect(page.locator("#state-text")).to_have_text("Serving")
    expect(page.locator("#gateways-rows tr")).to_have_count(1)
    expect(page.get_by_role("button", name=re.compile("^Disconnect"))).to_have_count(buttons)
    expect(page.locator("#follow-payload")).to_be_enabled(enabled=payloads)
