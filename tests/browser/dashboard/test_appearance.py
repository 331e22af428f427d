"""Light and dark, phone and desk, keyboard and screen reader."""

import re

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import expect

from mock import realistic

THEMES = ("light", "dark")
# What of axe's rules is a promise: WCAG 2.2, A and AA, and its best practices.
RULES = {"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]}


@pytest.fixture
def busy(serve):
    """A server with something in every panel."""
    mock = realistic()
    mock.tick_seconds = 0.2
    mock.start()
    yield mock
    mock.close()


def fill_in(page, mock):
    expect(page.locator("#ends-rows tr")).to_have_count(5)
    expect(page.locator(".attention .items button").first).to_be_visible()
    page.locator("#follow-user").fill("usr-vex")
    page.locator("#follow-payload").check()
    page.get_by_role("button", name="Follow", exact=True).click()
    expect(page.locator("#follow-state")).to_contain_text("Following")
    mock.user_event("usr-vex", payload={"turn": 1})
    mock.missed(3)
    expect(page.locator("#follow-events > li")).to_have_count(2)
    page.locator("#ends-cause").select_option("lapped")
    page.locator("#ends-rows summary").first.click()
    page.get_by_text("The same as a table").click()
    page.get_by_role("button", name="Pause").click()


def assert_accessible(page):
    results = Axe().run(page, options=RULES)
    found = [
        f"{violation['id']}: {node['target']} {node['failureSummary']}"
        for violation in results.response["violations"]
        for node in violation["nodes"]
    ]
    assert found == []
    # It has looked at something.
    assert len(results.response["passes"]) > 20


@pytest.mark.parametrize("theme", THEMES)
@pytest.mark.parametrize("width", [360, 1280])
def test_axe_finds_nothing(busy, open_page, theme, width):
    page = open_page(busy.url, color_scheme=theme, viewport={"width": width, "height": 900})
    fill_in(page, busy)
    assert_accessible(page)


@pytest.mark.parametrize("theme", THEMES)
def test_axe_finds_nothing_in_the_dialogs(busy, open_page, theme):
    page = open_page(busy.url, color_scheme=theme)
    page.locator("#gateways-rows button").first.click()
    page.locator("#disconnect-error").evaluate("(error) => { error.hidden = false; error.textContent = 'That did not work.'; }")
    assert_accessible(page)
    page.keyboard.press("Escape")
    busy.tokens = {"secret": "read"}
    busy.stop()
    busy.start()
    expect(page.locator("#token")).to_be_visible()
    assert_accessible(page)
    page.keyboard.press("Escape")
    assert_accessible(page)


@pytest.mark.parametrize("theme", THEMES)
def test_axe_finds_nothing_while_the_server_is_away(busy, open_page, theme):
    page = open_page(busy.url, color_scheme=theme)
    expect(page.locator("#gateways-rows tr")).to_have_count(48)
    busy.stop()
    expect(page.locator("#state-text")).to_have_text("Unreachable")
    assert_accessible(page)


CONTRAST = """() => {
    const luminance = ([r, g, b]) => {
        const part = (value) => (value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4);
        return 0.2126 * part(r / 255) + 0.7152 * part(g / 255) + 0.0722 * part(b / 255);
    };
    const canvas = document.createElement('canvas').getContext('2d', { willReadFrequently: true });
    const rgb = (colour) => {
        canvas.clearRect(0, 0, 1, 1);
        canvas.fillStyle = colour;
        canvas.fillRect(0, 0, 1, 1);
        return [...canvas.getImageData(0, 0, 1, 1).data];
    };
    const behind = (element) => {
        for (let at = element; at !== null; at = at.parentElement) {
            const colour = rgb(getComputedStyle(at).backgroundColor);
            if (colour[3] === 255) return colour;
        }
        return [255, 255, 255, 255];
    };
    const ratio = (a, b) => {
        const [low, high] = [luminance(a), luminance(b)].sort((x, y) => x - y);
        return (high + 0.05) / (low + 0.05);
    };
    const found = {};
    const look = (name, element, colour) => { found[name] = ratio(rgb(colour), behind(element)); };
    const of = (selector, property) => {
        const element = document.querySelector(selector);
        const colour = getComputedStyle(element)[property];
        return [element.closest('.plot') ?? element.parentElement, colour];
    };
    look('line', ...of('#chart-delay .plot .line', 'stroke'));
    look('second line', ...of('#chart-delay .plot .line.second', 'stroke'));
    look('axis text', ...of('#chart-delay .plot text', 'fill'));
    look('input border', ...of('#gateways-filter', 'borderTopColor'));
    look('button border', ...of('#gateways-pause', 'borderTopColor'));
    look('meter fill', document.querySelector('.bar'), getComputedStyle(document.querySelector('.bar > div')).backgroundColor);
    look('meter border', ...of('.bar', 'borderTopColor'));
    look('attention critical', ...of('.attention [data-level="critical"]', 'borderLeftColor'));
    look('attention warning', ...of('.attention [data-level="warning"]', 'borderLeftColor'));
    const focused = document.querySelector('#gateways-filter');
    look('focus', focused.parentElement, getComputedStyle(focused).outlineColor);
    const text = {};
    for (const element of document.querySelectorAll('body *')) {
        const own = [...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim() !== '');
        if (!own || !element.checkVisibility({ checkOpacity: true, checkVisibilityCSS: true }) || element.closest('svg, option')) continue;
        const value = ratio(rgb(getComputedStyle(element).color), behind(element));
        const name = `${element.tagName} ${element.className}`;
        text[name] = Math.min(text[name] ?? 99, value);
    }
    return { found, text };
}"""


@pytest.mark.parametrize("theme", THEMES)
@pytest.mark.parametrize("chosen", ["by the system", "by hand"])
def test_colours_are_apart_enough(busy, open_page, theme, chosen):
    other = THEMES[1 - THEMES.index(theme)]
    page = open_page(busy.url, color_scheme=theme if chosen == "by the system" else other)
    if chosen == "by hand":
        page.get_by_label("Colours").select_option(theme)
    fill_in(page, busy)
    page.locator("#gateways-filter").focus()
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("Tab")
    computed = page.evaluate(CONTRAST)
    too_low = {name: ratio for name, ratio in computed["found"].items() if ratio < 3}
    assert too_low == {}
    too_low = {name: ratio for name, ratio in computed["text"].items() if ratio < 4.5}
    assert too_low == {}
    assert len(computed["text"]) > 30
    dark = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (dark == "rgb(16, 19, 23)") == (theme == "dark")


def test_colours_that_were_chosen_are_kept(busy, open_page):
    page = open_page(busy.url, color_scheme="light")
    page.get_by_label("Colours").select_option("dark")
    page.reload()
    expect(page.get_by_label("Colours")).to_have_value("dark")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(16, 19, 23)"


@pytest.mark.parametrize("width", [320, 360, 412, 720, 768, 1280, 2200])
def test_the_page_never_scrolls_sideways(busy, open_page, width):
    page = open_page(busy.url, viewport={"width": width, "height": 800})
    fill_in(page, busy)
    assert page.evaluate("document.documentElement.scrollWidth") == width
    for id in ("disconnect", "token"):
        page.evaluate("(id) => document.getElementById(id).showModal()", id)
        box = page.locator(f"#{id}").bounding_box()
        assert box["x"] >= 0 and box["x"] + box["width"] <= width
        page.evaluate("(id) => document.getElementById(id).close()", id)


def test_text_may_be_twice_as_large(busy, open_page):
    page = open_page(busy.url)
    page.evaluate("document.documentElement.style.fontSize = '32px'")
    fill_in(page, busy)
    assert page.evaluate("document.documentElement.scrollWidth") == 1280


def test_a_phone_shows_rows_as_cards_with_named_cells(busy, open_page):
    page = open_page(busy.url, viewport={"width": 360, "height": 800}, has_touch=True, is_mobile=True)
    row = page.locator("#gateways-rows tr").first
    label = row.locator("td").nth(3).evaluate("(cell) => getComputedStyle(cell, '::before').content")
    assert label == '"Lag, time"'
    assert row.bounding_box()["width"] <= 360
    # Headers are away: the sort order is chosen here.
    page.get_by_label("Sort by").select_option("id")
    expect(row).to_contain_text("eu-west/gw-17")


def test_targets_are_large_enough_on_a_phone(busy, open_page):
    page = open_page(busy.url, viewport={"width": 360, "height": 800}, has_touch=True, is_mobile=True)
    expect(page.locator("#gateways-rows tr").first).to_be_visible()
    sizes = page.evaluate(
        """() => [...document.querySelectorAll('main button, main select, main input')]
            .filter((element) => element.checkVisibility() && element.getBoundingClientRect().width > 1)
            .map((element) => [element.outerHTML.slice(0, 60), Math.min(element.offsetHeight, element.parentElement.offsetHeight)])"""
    )
    assert len(sizes) > 20
    # WCAG 2.5.8 asks for 24. A box to tick has its label beside it.
    assert [size for size in sizes if size[1] < 24 and "checkbox" not in size[0]] == []


def test_the_tree_has_landmarks_and_headings(busy, open_page):
    page = open_page(busy.url)
    for role in ("banner", "main", "contentinfo"):
        assert page.get_by_role(role).count() == 1, role
    assert page.get_by_role("navigation", name="Sections").count() == 1
    assert page.get_by_role("heading", level=1).all_inner_texts() == ["galaxy-push"]
    sections = [re.sub(r" \(.*", "", text) for text in page.get_by_role("heading", level=2).all_inner_texts()]
    assert sections == [
        "Needs attention",
        "Overview",
        "Last ten minutes",
        "Gateways",
        "Recent ends",
        "Ring and server",
        "Recent invalidations",
        "Follow one user",
    ]
    for name in sections:
        assert page.get_by_role("region", name=re.compile(f"^{name}")).count() == 1, name
    for name in ("Gateways that are subscribed", "Streams that have ended of late", "Session invalidations that were published of late"):
        assert page.get_by_role("table", name=name).count() == 1, name


@pytest.mark.parametrize("width", [360, 1280])
def test_tables_stay_tables_for_a_screen_reader(busy, open_page, width):
    page = open_page(busy.url, viewport={"width": width, "height": 800})
    table = page.get_by_role("table", name="Gateways that are subscribed")
    expect(table.get_by_role("row", name="eu-west/gw-17")).to_have_count(1)
    row = table.get_by_role("row", name="eu-west/gw-17")
    assert row.get_by_role("cell").count() == 10


def test_everything_is_reached_and_used_by_keyboard(mock, page):
    expect(page.locator("#gateways-rows tr")).to_have_count(8)
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to what needs attention")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("#attention")).to_be_focused()
    reached = set()
    for _ in range(120):
        page.keyboard.press("Tab")
        reached.add(page.evaluate("document.activeElement.id || document.activeElement.textContent.trim().slice(0, 40) || document.activeElement.getAttribute('aria-label')"))
        assert page.evaluate(
            "document.activeElement === document.body || getComputedStyle(document.activeElement).outlineStyle !== 'none'"
        ), "the focus is not seen"
    for wanted in (
        "gateways-filter", "gateways-sort", "gateways-order", "gateways-limit", "gateways-pause",
        "ends-cause", "ends-filter", "invalidations-filter", "follow-user", "follow-payload", "follow-start",
        "Disconnect", "Lag, events",
    ):
        assert any(text.startswith(wanted) for text in reached), f"{wanted} of {sorted(reached)}"
    # And steered: sort, and disconnect.
    header = page.locator("#gateways").get_by_role("columnheader", name="Delivered")
    header.get_by_role("button").focus()
    page.keyboard.press("Enter")
    expect(header).to_have_attribute("aria-sort", "descending")
    page.get_by_role("button", name="Disconnect gw-00004").focus()
    page.keyboard.press("Space")
    expect(page.locator("#disconnect-cancel")).to_be_focused()
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect(page.locator("#toast")).to_contain_text("gw-00004 was disconnected")
    assert mock.disconnected == ["gw-00004"]


def test_live_regions_do_not_chatter(serve, open_page):
    """Figures change each second; what is read out changes with what happens alone."""
    mock = serve(tick_seconds=0.1)
    page = open_page(mock.url)
    page.evaluate(
        """() => {
            window.said = [];
            for (const region of document.querySelectorAll('[role=status], [role=alert], [aria-live]')) {
                new MutationObserver(() => window.said.push(region.textContent))
                    .observe(region, { childList: true, characterData: true, subtree: true });
            }
        }"""
    )
    start = mock.now
    while mock.now < start + 30:
        page.wait_for_timeout(100)
    assert page.evaluate("window.said") == []
    mock.end("gw-00001", "lapped", "too slow")
    expect(page).to_have_title("(1) Serving · galaxy-push")
    assert page.evaluate("window.said") == ["1 thing needs attention."]


@pytest.mark.parametrize("wish, behavior", [("reduce", "auto"), ("no-preference", "smooth")])
def test_reduced_motion_is_respected(mock, open_page, wish, behavior):
    page = open_page(mock.url, reduced_motion=wish)
    assert page.evaluate("getComputedStyle(document.documentElement).scrollBehavior") == behavior
    moves = page.evaluate(
        "[...document.querySelectorAll('*')].some((e) => parseFloat(getComputedStyle(e).transitionDuration) > 0)"
    )
    assert moves == (wish == "no-preference")
