"""The table of gateways, also of 10,000."""

import pytest
from playwright.sync_api import expect


@pytest.fixture
def crowd(serve):
    # A tick makes much text: not too often.
    mock = serve(gateways=10_000, tick_seconds=1)
    with mock.lock:
        for at in (4_711, 12, 9_999):
            mock.gateways[at].update(state="behind", lag_events=at, lag_seconds=float(at))
    return mock


def ids(page):
    return page.locator("#gateways-rows tr td:first-child").all_inner_texts()


def last_query(mock):
    return [path for _, path, _ in mock.requests if path.startswith("/api/v1/gateways?")][-1]


def test_the_furthest_behind_comes_first(crowd, open_page):
    page = open_page(crowd.url)
    expect(page.locator("#gateways-rows tr")).to_have_count(50)
    expect(page.locator("#gateways-count")).to_have_text("(10,000)")
    assert ids(page)[:3] == ["gw-09999", "gw-04711", "gw-00012"]
    expect(page.locator("#gateways-rows tr").first).to_contain_text("behind")


@pytest.mark.parametrize(
    "title, first, second",
    [
        ("Gateway", "ascending", "descending"),
        ("State", "ascending", "descending"),
        ("Lag, events", "descending", "ascending"),
        ("Bytes/s", "descending", "ascending"),
        ("Delivered", "descending", "ascending"),
        ("Since", "descending", "ascending"),
        ("Peer", "ascending", "descending"),
        ("Principal", "ascending", "descending"),
    ],
)
def test_a_header_sorts_and_turns_round(crowd, open_page, title, first, second):
    page = open_page(crowd.url)
    header = page.locator("#gateways").get_by_role("columnheader", name=title, exact=True)
    header.get_by_role("button").click()
    expect(header).to_have_attribute("aria-sort", first)
    header.get_by_role("button").click()
    expect(header).to_have_attribute("aria-sort", second)
    expect(page.locator("th[aria-sort]")).to_have_count(1)


def test_sorting_is_over_all_rows(crowd, open_page):
    page = open_page(crowd.url)
    header = page.locator("#gateways").get_by_role("columnheader", name="Gateway", exact=True)
    header.get_by_role("button").click()
    expect(page.locator("#gateways-rows tr").first).to_contain_text("gw-00000")
    header.get_by_role("button").click()
    expect(page.locator("#gateways-rows tr").first).to_contain_text("gw-09999")


def test_fields_without_a_column_sort_too(crowd, open_page):
    with crowd.lock:
        crowd.gateways[77]["missed"] = 5_000
    page = open_page(crowd.url)
    page.locator("#gateways-sort").select_option("missed")
    first = page.locator("#gateways-rows tr").first
    expect(first).to_contain_text("gw-00077")
    expect(first).to_contain_text("missed 5,000")
    expect(page.locator("th[aria-sort]")).to_have_count(0)


def test_the_filter_is_over_all_rows(crowd, open_page):
    page = open_page(crowd.url)
    page.locator("#gateways-filter").fill("GW-0123")
    expect(page.locator("#gateways-rows tr")).to_have_count(10)
    expect(page.locator("#gateways-count")).to_have_text("(10 of 10,000)")
    page.locator("#gateways-filter").fill("behind")
    expect(page.locator("#gateways-rows tr")).to_have_count(3)
    page.locator("#gateways-filter").fill("no such")
    expect(page.locator("#gateways-none")).to_have_text("No gateway matches the filter.")


def test_pages_go_to_the_end_and_back(crowd, open_page):
    page = open_page(crowd.url)
    page.locator("#gateways-sort").select_option("id")
    page.locator("#gateways-limit").select_option("250")
    where = page.locator("#gateways-page")
    expect(where).to_have_text("1 to 250 of 10,000")
    expect(page.locator("#gateways-previous")).to_be_disabled()
    page.locator("#gateways-next").click()
    expect(where).to_have_text("251 to 500 of 10,000")
    assert ids(page)[0] == "gw-00250"
    page.locator("#gateways-last").click()
    expect(where).to_have_text("9,751 to 10,000 of 10,000")
    assert ids(page)[-1] == "gw-09999"
    expect(page.locator("#gateways-next")).to_be_disabled()
    page.locator("#gateways-first").click()
    expect(where).to_have_text("1 to 250 of 10,000")


def test_a_page_that_is_gone_becomes_the_last_one(serve, open_page):
    mock = serve(gateways=200)
    page = open_page(mock.url)
    page.locator("#gateways-last").click()
    expect(page.locator("#gateways-page")).to_have_text("151 to 200 of 200")
    with mock.lock:
        mock.gateways = mock.gateways[:60]
    expect(page.locator("#gateways-page")).to_have_text("51 to 60 of 60")


def test_figures_are_brought_up_to_date(mock, page):
    row = page.locator("#gateways-rows tr", has_text="gw-00003")
    expect(row).to_contain_text("live")
    with mock.lock:
        mock.gateways[3].update(state="behind", lag_events=77, lag_seconds=9.0)
    expect(row).to_contain_text("behind")
    expect(page.locator("#gateways-rows tr").first).to_contain_text("gw-00003")


def test_a_pause_holds_the_rows(mock, page):
    row = page.locator("#gateways-rows tr", has_text="gw-00003")
    expect(row).to_contain_text("live")
    page.get_by_role("button", name="Pause").click()
    expect(page.get_by_role("button", name="Resume: paused at")).to_be_visible()
    with mock.lock:
        mock.gateways[3].update(state="behind", lag_events=77, lag_seconds=9.0)
    # The rest of the page knows it.
    expect(page.locator("#tiles")).to_contain_text("1 behind")
    # What needs attention is kept up to date all the same.
    behind = page.locator('#attention-list > li[data-key="behind"]')
    expect(behind).to_contain_text("gw-00003")
    with mock.lock:
        mock.gateways[5].update(state="behind", lag_events=78, lag_seconds=9.0)
    expect(behind).to_contain_text("gw-00005")
    expect(row).to_contain_text("live")
    page.get_by_role("button", name="Resume").click()
    expect(row).to_contain_text("behind")


def test_the_focus_stays_on_a_row_that_moves(mock, page):
    button = page.get_by_role("button", name="Disconnect gw-00006")
    button.focus()
    with mock.lock:
        mock.gateways[6].update(state="behind", lag_events=77, lag_seconds=9.0)
    expect(page.locator("#gateways-rows tr").first).to_contain_text("gw-00006")
    expect(button).to_be_focused()


def test_what_a_page_holds_does_not_grow_with_gateways(serve, crowd, open_page):
    elements = []
    for mock in (serve(gateways=100), crowd):
        page = open_page(mock.url)
        expect(page.locator("#gateways-rows tr")).to_have_count(50)
        elements.append(page.locator("#gateways *").count())
    assert elements[0] == elements[1]


def test_refreshes_and_live_figures_leave_nothing_behind(serve, open_page):
    mock = serve(gateways=10_000, tick_seconds=1)
    page = open_page(mock.url)
    expect(page.locator("#gateways-rows tr")).to_have_count(50)
    session = page.context.new_cdp_session(page)
    session.send("Performance.enable")

    def held():
        session.send("HeapProfiler.collectGarbage")
        metrics = session.send("Performance.getMetrics")["metrics"]
        figures = {metric["name"]: metric["value"] for metric in metrics}
        return figures["Nodes"], figures["JSEventListeners"]

    def turn_pages(times):
        for _ in range(times):
            page.locator("#gateways-next").click()
            expect(page.locator("#gateways-page")).to_contain_text("51 to 100")
            page.locator("#gateways-previous").click()
            expect(page.locator("#gateways-page")).to_contain_text("1 to 50")

    turn_pages(2)
    nodes, listeners = held()
    turn_pages(10)
    # Charts and lists vary by a few nodes; ten pages kept would be more than 10,000. What the
    # page has let go of is collected in a moment.
    for _ in range(50):
        later_nodes, later_listeners = held()
        if later_nodes < nodes + 1_000:
            break
        page.wait_for_timeout(200)
    assert later_nodes < nodes + 1_000
    assert later_listeners < listeners + 100


def test_typing_asks_for_the_result_alone(crowd, open_page):
    page = open_page(crowd.url)
    expect(page.locator("#gateways-rows tr")).to_have_count(50)
    box = page.locator("#gateways-filter")
    box.press_sequentially("gw-01234", delay=1)
    expect(page.locator("#gateways-rows tr")).to_have_count(1)
    assert ids(page) == ["gw-01234"]
    filters = {path.split("filter=")[1] for _, path, _ in crowd.requests if "filter=" in path}
    assert "gw-01234" in filters
    assert len(filters) < 8, "a request for each letter"


def test_a_slow_answer_never_replaces_a_later_one(mock, page):
    """The answer for `gw-00001` arrives after the one for `gw-00002` was asked for."""
    held = []

    def hold(route):
        held.append(route)

    page.route("**/api/v1/gateways?*filter=gw-00001*", hold)
    page.locator("#gateways-filter").fill("gw-00001")
    with page.expect_request("**/api/v1/gateways?*filter=gw-00001*"):
        pass
    page.locator("#gateways-filter").fill("gw-00002")
    expect(page.locator("#gateways-rows tr")).to_have_count(1)
    assert ids(page) == ["gw-00002"]
    for route in held:
        # The page has given these up.
        try:
            route.continue_()
        except Exception as error:
            assert "already" in str(error) or "closed" in str(error) or "Invalid" in str(error), error
    expect(page.locator("#gateways-rows tr")).to_have_count(1)
    assert ids(page) == ["gw-00002"]


def test_a_query_that_is_refused_is_told(mock, page):
    page.route(
        "**/api/v1/gateways?*filter=bad*",
        lambda route: route.fulfill(status=400, json={"error": "BAD_QUERY", "message": "filter: too odd"}),
    )
    page.locator("#gateways-filter").fill("bad")
    expect(page.locator("#gateways-error")).to_have_text("The gateways cannot be shown: filter: too odd.")
    page.locator("#gateways-filter").fill("")
    expect(page.locator("#gateways-error")).to_be_hidden()
