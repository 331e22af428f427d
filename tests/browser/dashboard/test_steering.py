"""Disconnecting a gateway, and following a user."""

import re

import pytest
from playwright.sync_api import expect


def ask(page, id):
    page.get_by_role("button", name=f"Disconnect {id}", exact=True).click()
    dialog = page.get_by_role("dialog", name="Disconnect this gateway?")
    expect(dialog).to_be_visible()
    expect(dialog.locator("#disconnect-id")).to_have_text(id)
    return dialog


def test_a_gateway_is_disconnected_after_it_was_confirmed(mock, page):
    dialog = ask(page, "gw-00003")
    expect(dialog.get_by_role("button", name="Cancel")).to_be_focused()
    assert mock.disconnected == []
    dialog.get_by_role("button", name="Disconnect").click()
    expect(dialog).to_be_hidden()
    expect(page.locator("#toast")).to_have_text("gw-00003 was disconnected.")
    expect(page.locator("#gateways-rows tr", has_text="gw-00003")).to_have_count(0)
    expect(page.locator("#ends-rows tr").first).to_contain_text("an operator has disconnected it")
    assert mock.disconnected == ["gw-00003"]


@pytest.mark.parametrize("way", ["button", "escape"])
def test_whoever_cancels_disconnects_nothing(mock, page, way):
    dialog = ask(page, "gw-00003")
    if way == "button":
        dialog.get_by_role("button", name="Cancel").click()
    else:
        page.keyboard.press("Escape")
    expect(dialog).to_be_hidden()
    expect(page.get_by_role("button", name="Disconnect gw-00003")).to_be_focused()
    assert mock.disconnected == []
    assert not [request for request in mock.requests if request[0] == "DELETE"]


def test_the_focus_stays_within_the_dialog(page):
    dialog = ask(page, "gw-00003")
    for _ in range(6):
        page.keyboard.press("Tab")
        assert page.evaluate(
            "document.activeElement === document.body || document.querySelector('#disconnect').contains(document.activeElement)"
        )
    expect(dialog).to_be_visible()


def test_one_that_has_gone_meanwhile(mock, page):
    dialog = ask(page, "gw-00003")
    with mock.lock:
        del mock.gateways[3]
    dialog.get_by_role("button", name="Disconnect").click()
    expect(dialog.get_by_role("alert")).to_have_text("No gateway of this id is subscribed any more.")
    expect(page.locator("#gateways-rows tr")).to_have_count(7)
    page.keyboard.press("Escape")
    expect(page.locator("#gateways")).to_be_focused()


def test_a_server_that_is_away_disconnects_nothing(mock, page):
    dialog = ask(page, "gw-00003")
    mock.stop()
    dialog.get_by_role("button", name="Disconnect").click()
    expect(dialog.get_by_role("alert")).to_have_text("That did not work: no connection.")


def test_whoever_may_only_read_sees_no_buttons(serve, open_page):
    page = open_page(serve(write=False).url)
    expect(page.locator("#gateways-rows tr")).to_have_count(8)
    expect(page.get_by_role("button", name=re.compile("^Disconnect"))).to_have_count(0)


def test_a_right_that_was_lost_meanwhile_takes_the_buttons_away(mock, page):
    dialog = ask(page, "gw-00003")
    mock.role = "read"
    dialog.get_by_role("button", name="Disconnect").click()
    expect(dialog.get_by_role("alert")).to_contain_text("You may not disconnect gateways")
    dialog.get_by_role("button", name="Cancel").click()
    expect(page.get_by_role("button", name=re.compile("^Disconnect"))).to_have_count(0)
    assert mock.disconnected == []


# Following.


def follow(page, user, payloads=False):
    page.locator("#follow-user").fill(user)
    page.locator("#follow-payload").set_checked(payloads)
    page.get_by_role("button", name="Follow", exact=True).click()
    expect(page.locator("#follow-state")).to_contain_text(f"Following {user}")


def test_events_of_a_user_appear_as_they_go_by(mock, page):
    follow(page, "usr-vex")
    mock.user_event("usr-other", kind="not.mine")
    mock.user_event("usr-vex", kind="turn.ready", event_id="evt-9", request_id="req-4", trace_id="tr-2", device_session_id="dev-1")
    mock.user_event(
        "usr-vex", **{"class": "session_invalidation"}, kind="", event_id="", reason="signed_out", payload_bytes=0
    )
    items = page.locator("#follow-events > li")
    expect(items).to_have_count(2)
    expect(items.first).to_contain_text(re.compile(r"invalidation.*signed_out.*session all"))
    expect(items.nth(1)).to_contain_text(
        re.compile(r"client event.*turn\.ready.*session dev-1.*event evt-9.*request req-4.*trace tr-2.*cursor .*payload 12 B")
    )
    expect(page.locator("#follow-events pre")).to_have_count(0)


def test_payloads_are_shown_where_they_were_asked_for(mock, page):
    follow(page, "usr-vex", payloads=True)
    mock.user_event("usr-vex", payload={"turn": 43, "big": 12345678901234567890, "small": 0.1})
    mock.user_event("usr-vex", payload_base64="AAEC/w==")
    shown = page.locator("#follow-events pre")
    expect(shown).to_have_count(2)
    expect(shown.first).to_have_text("base64 AAEC/w==")
    # A number that JavaScript has no double for stays as it was published.
    expect(shown.nth(1)).to_contain_text('"big": 12345678901234567890')
    expect(shown.nth(1)).to_contain_text('"small": 0.1')


def test_payloads_are_not_asked_for_without_the_right(serve, open_page):
    mock = serve()
    mock.payloads = False
    page = open_page(mock.url)
    expect(page.locator("#follow-payload")).to_be_disabled()
    expect(page.locator("#follow-payload-hint")).to_be_visible()


def test_events_that_went_by_too_fast_are_told(mock, page):
    follow(page, "usr-vex")
    mock.missed(1_234)
    expect(page.locator("#follow-events > li")).to_contain_text("1,234 events of all users went by too fast")


def test_who_stops_following_sees_no_more(mock, page):
    follow(page, "usr-vex")
    mock.user_event("usr-vex")
    expect(page.locator("#follow-events > li")).to_have_count(1)
    page.get_by_role("button", name="Stop following").click()
    expect(page.locator("#follow-state")).to_have_text("No longer following.")
    expect(page.get_by_role("button", name="Stop following")).to_be_hidden()
    mock.user_event("usr-vex")
    mock.invalidate("usr-vex", "", "a mark")
    expect(page.locator("#invalidations-rows tr")).to_have_count(1)
    expect(page.locator("#follow-events > li")).to_have_count(1)


def test_another_user_begins_anew(mock, page):
    follow(page, "usr-vex")
    mock.user_event("usr-vex")
    expect(page.locator("#follow-events > li")).to_have_count(1)
    follow(page, "usr-mira")
    expect(page.locator("#follow-events > li")).to_have_count(0)
    mock.user_event("usr-vex")
    mock.user_event("usr-mira", kind="mine")
    expect(page.locator("#follow-events > li")).to_have_count(1)
    expect(page.locator("#follow-events")).to_contain_text("mine")


def test_a_user_that_cannot_be_followed_takes_nothing_else_away(mock, page):
    page.locator("#follow-user").fill("x" * 300)
    page.get_by_role("button", name="Follow", exact=True).click()
    expect(page.locator("#follow-error")).to_have_text("This user cannot be followed: user: 1 to 256 bytes.")
    mock.invalidate("usr-vex")
    expect(page.locator("#invalidations-rows tr")).to_have_count(1)
    expect(page.locator("#state-text")).to_have_text("Serving")


def test_a_burst_keeps_the_newest(mock, page):
    follow(page, "usr-vex")
    for at in range(400):
        mock.user_event("usr-vex", event_id=f"evt-{at}")
    expect(page.locator("#follow-events > li").first).to_contain_text("event evt-399")
    expect(page.locator("#follow-events > li")).to_have_count(200)
