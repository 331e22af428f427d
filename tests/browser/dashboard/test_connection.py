"""The live stream: servers that go away, come back, fall silent, refuse."""

import re

from playwright.sync_api import expect


def test_a_server_that_goes_away_and_comes_back(mock, page):
    expect(page.locator("#gateways-rows tr")).to_have_count(8)
    mock.stop()
    expect(page.locator("#state-text")).to_have_text("Unreachable")
    expect(page.locator("#connection-text")).to_contain_text(re.compile(r"has been unreachable for \d+ s.*The figures below are of"))
    expect(page.locator("#connection-next")).to_contain_text(re.compile(r"Next try in \d+ s|Trying now"))
    # What was known stays to be read.
    expect(page.locator("#gateways-rows tr")).to_have_count(8)
    expect(page).to_have_title(re.compile("Unreachable"))
    mock.end("gw-00001", "lapped", "while nobody looked")
    mock.start()
    expect(page.locator("#state-text")).to_have_text("Serving")
    expect(page.locator("#connection")).to_be_hidden()
    expect(page.locator("#ends-rows tr")).to_contain_text("while nobody looked")
    expect(page.locator("#announcer")).not_to_be_empty()


def test_the_wait_grows_and_can_be_cut_short(mock, page):
    mock.stop()
    # Once it waits for several seconds, it has tried several times.
    expect(page.locator("#connection-next")).to_have_text(re.compile(r"Next try in ([4-9]|1\d) s\."))
    mock.start()
    page.get_by_role("button", name="Try now").click()
    expect(page.locator("#state-text")).to_have_text("Serving")


def test_a_page_that_finds_no_server_goes_on_trying(mock, page):
    mock.stop()
    expect(page.locator("#state-text")).to_have_text("Unreachable")
    mock.restart()
    mock.end("gw-00002", "cancelled", "after the restart")
    mock.start()
    expect(page.locator("#toast")).to_contain_text("The server was started anew")
    expect(page.locator("#ends-rows tr")).to_have_count(1)


def test_a_stream_that_falls_silent_is_given_up(mock, page):
    page.clock.install()
    page.reload()
    expect(page.locator("#state-text")).to_have_text("Serving")
    mock.is_silent = True
    before = sum("/api/v1/live" in path for _, path, _ in mock.requests)
    page.clock.run_for(11_000)
    expect(page.locator("#connection-text")).to_contain_text("nothing for 10 s")
    page.clock.run_for(2_000)
    expect(page.locator("#state-text")).to_have_text("Serving")
    assert sum("/api/v1/live" in path for _, path, _ in mock.requests) == before + 1


def test_a_server_with_too_many_live_streams_is_asked_from_time_to_time(serve, open_page):
    mock = serve()
    mock.max_live = 0
    page = open_page(mock.url, wait=False)
    expect(page.locator("#state-text")).to_have_text("Not live")
    expect(page.locator("#connection-text")).to_contain_text("No live figures: 0 live streams are open.")
    expect(page.locator("#gateways-rows tr")).to_have_count(8)
    mock.max_live = 16
    expect(page.locator("#state-text")).to_have_text("Serving")


def test_a_page_holds_one_stream(mock, page):
    page.locator("#follow-user").fill("usr-vex")
    page.get_by_role("button", name="Follow", exact=True).click()
    expect(page.locator("#follow-state")).to_contain_text("Following")
    mock.user_event("usr-vex")
    expect(page.locator("#follow-events > li")).to_have_count(1)
    # The mock sees within moments that a browser has closed a stream.
    for _ in range(600):
        if len(mock.readers) == 1:
            break
        page.wait_for_timeout(50)
    assert [reader.user for reader in mock.readers] == ["usr-vex"]


def test_what_the_stream_brings_outlives_a_list_that_was_under_way(mock, open_page):
    mock.end("gw-00001", "stalled", "before the page")
    mock.sends_ends.clear()
    page = open_page(mock.url)
    assert mock.ends_are_held.wait(60)
    mock.end("gw-00002", "stalled", "while the list is under way")
    expect(page.locator("#ends-rows tr")).to_have_count(1)
    mock.sends_ends.set()
    expect(page.locator("#ends-rows tr")).to_have_count(2)
    expect(page.locator("#ends-rows")).to_contain_text("while the list is under way")


def test_events_in_small_pieces_are_read_as_they_are(serve, open_page):
    mock = serve(tick_seconds=5)
    mock.piece_bytes = 7
    page = open_page(mock.url)
    mock.invalidate("usr-üñï-🚀", "", "in pieces")
    expect(page.locator("#invalidations-rows tr")).to_contain_text("usr-üñï-🚀")


def parsed(page, pieces):
    return page.evaluate(
        """async (pieces) => {
            const { EventParser } = await import('/assets/dashboard.js');
            const taken = [];
            const parser = new EventParser((event, data) => taken.push([event, data]));
            for (const piece of pieces) parser.push(piece);
            return taken;
        }""",
        pieces,
    )


STREAM = (
    "\ufeff: a comment\n\nevent: status\ndata: {\"a\":1}\n\n"
    "data:no space\rdata:  two spaces\r\rid: 7\nretry: 10\nevent: lonely\n\n"
    "event:end\r\ndata\r\ndata: x:y\r\n\r\ndata: unknown field beside\nfoo: bar\n\n"
    "data: never ended"
)
EVENTS = [
    ["status", '{"a":1}'],
    ["message", "no space\n two spaces"],
    ["end", "\nx:y"],
    ["message", "unknown field beside"],
]


def test_the_stream_is_parsed_as_the_standard_says(page):
    assert parsed(page, [STREAM]) == EVENTS
    assert parsed(page, list(STREAM)) == EVENTS
    for at in range(1, len(STREAM)):
        assert parsed(page, [STREAM[:at], STREAM[at:]]) == EVENTS, at


def test_an_event_without_end_is_given_up(page):
    message = page.evaluate(
        """async () => {
            const { EventParser } = await import('/assets/dashboard.js');
            const parser = new EventParser(() => {});
            try {
                for (let at = 0; at < 20; at += 1) parser.push('x'.repeat(1 << 20));
                return 'taken';
            } catch (error) {
                return error.message;
            }
        }"""
    )
    assert message == "an event is too long"


def test_numbers_have_units_and_few_digits(page):
    texts = page.evaluate(
        """async () => {
            const { bytes, count, duration, short } = await import('/assets/dashboard.js');
            return {
                bytes: [0, 999, 1000, 1023, 1024, 1536, 1 << 20, 2 ** 43].map(bytes),
                count: [0, 12345, NaN].map(count),
                duration: [0, 0.0000005, 0.00012, 0.9994, 1, 59.94, 59.96, 60, 61, 3600, 86399, 90061].map(duration),
                short: [0, 0.0123, 9.999, 999, 9999, 10000, 999499, 999500, 5e9, 5e12].map(short),
            };
        }"""
    )
    assert texts == {
        "bytes": ["0 B", "999 B", "0.977 KiB", "0.999 KiB", "1 KiB", "1.5 KiB", "1 MiB", "8 TiB"],
        "count": ["0", "12,345", "–"],
        "duration": ["0 s", "0.5 µs", "120 µs", "999 ms", "1 s", "59.9 s", "1 min", "1 min", "1 min 1 s", "1 h", "23 h 59 min", "1 d 1 h"],
        "short": ["0", "0.0123", "10", "999", "9,999", "10 k", "999 k", "1 M", "5 G", "5.00e+12"],
    }
