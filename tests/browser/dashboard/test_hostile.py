"""Texts of peers: whatever they hold is text, and stays in its place."""

import json

import pytest
from playwright.sync_api import expect

MARKUP = "<img src=x onerror=\"document.title='pwned'\"><script>document.title='pwned'</script></td></table><b>"
RIGHT_TO_LEFT = "abc\u202egpj.exe"
ARABIC = "بوابة-١٢٣"
CONTROLS = "a\u0007b\u001b[31mc\u0000d\u0085e\r\nf\u2028g"
LONG = "i" * 256
ODD_IDS = [
    MARKUP[:90],
    RIGHT_TO_LEFT,
    ARABIC,
    LONG,
    "a/b/../c",
    "%2e%2e%2f",
    "100%",
    "a?b=c&d#e",
    "a b+c",
    "'\";--",
    "🚀🚀",
    "__proto__",
    "constructor",
]


@pytest.fixture
def hostile(serve):
    mock = serve(gateways=0)
    with mock.lock:
        mock.gateways = [mock.make_gateway(at, id=id, principal=MARKUP, peer=RIGHT_TO_LEFT) for at, id in enumerate(ODD_IDS)]
        mock.checks[0].update(ok=False, name=MARKUP, detail=CONTROLS)
        mock.listeners[0]["address"] = MARKUP
    for at, id in enumerate(ODD_IDS):
        mock.end(id, "lapped", detail=MARKUP + CONTROLS, peer=MARKUP, principal=RIGHT_TO_LEFT, ago=at)
    mock.end(MARKUP, MARKUP, detail="a cause that nobody knows", ago=20)
    mock.invalidate(MARKUP, RIGHT_TO_LEFT, CONTROLS)
    mock.invalidate("long", LONG, "r" * 60_000)
    return mock


def assert_harmless(page):
    assert "pwned" not in page.title()
    assert page.locator("img").count() == 1, "an image beside the icon"
    assert page.locator("script").count() == 1
    assert page.locator("main b:not(figure b):not(#listeners b):not(.head b)").count() == 0


def test_nothing_of_it_becomes_a_part_of_the_page(hostile, open_page):
    page = open_page(hostile.url)
    expect(page.locator("#gateways-rows tr")).to_have_count(len(ODD_IDS))
    expect(page.locator("#ends-rows tr")).to_have_count(len(ODD_IDS) + 1)
    page.locator("#follow-user").fill(MARKUP)
    page.locator("#follow-payload").check()
    page.get_by_role("button", name="Follow", exact=True).click()
    expect(page.locator("#follow-state")).to_contain_text("Following <img")
    hostile.user_event(MARKUP, kind=MARKUP, event_id=RIGHT_TO_LEFT, trace_id=CONTROLS, payload={MARKUP: [MARKUP, CONTROLS]})
    expect(page.locator("#follow-events pre")).to_contain_text("<script>")
    assert_harmless(page)


def test_every_id_is_shown_whole_and_disconnected_by_its_name(hostile, open_page):
    page = open_page(hostile.url)
    for id in ODD_IDS:
        row = page.locator("#gateways-rows tr").filter(has=page.locator("td.key bdi", has_text=shown(id)))
        button = row.get_by_role("button").first
        expect(row.locator("td.key bdi").first).to_have_text(shown(id))
        button.click()
        expect(page.locator("#disconnect-id")).to_have_text(shown(id))
        page.locator("#disconnect-confirm").click()
        expect(page.locator("#disconnect")).to_be_hidden()
        assert hostile.disconnected[-1] == id
    assert hostile.disconnected == ODD_IDS


def shown(text):
    return text.replace("\u202e", "⟨U+202E⟩")


def test_characters_that_hide_or_turn_are_shown_by_number(hostile, open_page):
    page = open_page(hostile.url)
    row = page.locator("#invalidations-rows tr", has_text="<img")
    expect(row).to_contain_text("abc⟨U+202E⟩gpj.exe")
    expect(row).to_contain_text("a⟨U+0007⟩b⟨U+001B⟩[31mc⟨U+0000⟩d⟨U+0085⟩e⟨U+000D⟩⟨U+000A⟩f⟨U+2028⟩g")
    raw = page.evaluate("/[\\u0000-\\u0008\\u000e-\\u001f\\u202a-\\u202e\\u2066-\\u2069]/.test(document.documentElement.outerHTML)")
    assert raw is False


def test_text_from_right_to_left_turns_nothing_beside_it(hostile, open_page):
    page = open_page(hostile.url)
    cell = page.locator("#gateways-rows td.key", has_text=ARABIC)
    expect(cell).to_have_count(1)
    assert cell.locator("bdi").count() == 1
    assert page.evaluate("getComputedStyle(document.querySelector('bdi')).unicodeBidi") == "isolate"


def test_a_very_long_text_is_cut(hostile, open_page):
    page = open_page(hostile.url)
    row = page.locator("#invalidations-rows tr", has_text="long")
    expect(row).to_contain_text("r… (60,000 characters)")
    assert len(row.inner_text()) < 1_000


@pytest.mark.parametrize("width", [360, 1280])
def test_none_of_it_is_wider_than_the_page(hostile, open_page, width):
    page = open_page(hostile.url, viewport={"width": width, "height": 800})
    expect(page.locator("#invalidations-rows tr")).to_have_count(2)
    page.locator("#follow-user").fill(LONG)
    page.get_by_role("button", name="Follow", exact=True).click()
    expect(page.locator("#follow-state")).to_contain_text("Following")
    hostile.user_event(LONG, kind=LONG, payload={LONG: LONG})
    expect(page.locator("#follow-events > li")).to_have_count(1)
    assert page.evaluate("document.documentElement.scrollWidth") == width


@pytest.mark.parametrize("id", [".", ".."])
def test_an_id_that_no_browser_can_send(hostile, open_page, id):
    """A path has no place for these two, also percent-encoded: the URL standard drops them."""
    with hostile.lock:
        hostile.gateways = [hostile.make_gateway(0, id=id)]
    page = open_page(hostile.url)
    page.get_by_role("button", name=f"Disconnect {id}", exact=True).click()
    expect(page.locator("#disconnect-error")).to_contain_text("A browser cannot send this id")
    expect(page.locator("#disconnect-confirm")).to_be_disabled()
    page.keyboard.press("Escape")
    assert not [request for request in hostile.requests if request[0] == "DELETE"]


@pytest.mark.parametrize(
    "body, words",
    [("<html>Bad gateway</html>", "the server answered 502"), (json.dumps({"error": "X", "message": MARKUP}), "<img src=x")],
)
def test_errors_that_are_not_the_servers_own(mock, page, body, words):
    page.route("**/api/v1/access", lambda route: route.fulfill(status=502, body=body))
    mock.stop()
    mock.start()
    expect(page.locator("#connection-text")).to_contain_text(words)
    assert_harmless(page)


def test_a_stream_of_nonsense_is_given_up_and_tried_again(mock, page):
    mock.send("status", "not a status")
    expect(page.locator("#connection")).to_be_visible()
    expect(page.locator("#state-text")).to_have_text("Serving")


def test_events_of_a_later_version_are_left_alone(mock, page):
    mock.send("novelty", {"anything": 1})
    mock.invalidate("usr-vex")
    expect(page.locator("#invalidations-rows tr")).to_have_count(1)
    assert sum("/api/v1/live" in path for _, path, _ in mock.requests) == 1


# The tests before rest on these: what they watch for would be seen.


@pytest.mark.parametrize(
    "script, fault",
    [
        ("document.body.setAttribute('style', 'color: red')", "policy: style-src-attr"),
        ("document.body.append(Object.assign(document.createElement('script'), { text: '1' }))", "policy: script-src-elem"),
        ("document.body.append(Object.assign(new Image(), { src: 'http://127.0.0.2:9/' }))", "policy: img-src http://127.0.0.2:9/"),
        ("fetch('http://127.0.0.2:9/').catch(() => {})", "policy: connect-src http://127.0.0.2:9/"),
        ("setTimeout(() => { throw new Error('a fault'); })", "error: a fault"),
        ("console.error('a complaint')", "console: a complaint"),
    ],
)
def test_a_fault_of_the_page_is_seen(page, script, fault):
    page.faults.are_expected = True
    page.evaluate(f"() => {{ {script} }}")
    for _ in range(600):
        if any(fault in found for found in page.faults.found):
            return
        page.wait_for_timeout(50)
    raise AssertionError(page.faults.found)
