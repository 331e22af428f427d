"""What an operator reads from the page."""

import re

import pytest
from playwright.sync_api import expect

from mock import DAY, MIB, rfc3339


def attention(page, key):
    return page.locator(f'#attention-list > li[data-key="{key}"]')


def test_a_server_that_is_well_needs_no_attention(page):
    expect(page.locator("#attention-none")).to_be_visible()
    expect(page.locator("#attention-list > li")).to_have_count(0)
    expect(page).to_have_title("Serving · galaxy-push")


def test_the_head_says_which_server_this_is(page):
    identity = page.locator("#identity")
    expect(identity).to_contain_text("version 0.9.0 (3915231c0ffe)")
    expect(identity).to_contain_text("up 3 d 1 h")


def test_the_overview_has_figures_with_units(mock, page):
    tiles = page.locator("#tiles")
    expect(tiles).to_contain_text(re.compile(r"Gateways8\D*0 behind · limit 10,000"))
    expect(tiles).to_contain_text(re.compile(r"Published[\d,.]+/s"))
    expect(tiles).to_contain_text(re.compile(r"Delivery delay, p99[\d.]+ ms.*p50 [\d.]+ µs"))
    expect(tiles).to_contain_text("214 MiB")
    expect(tiles).to_contain_text("0.41 cores")


def test_who_lags_is_said_first(mock, page):
    with mock.lock:
        mock.gateways[5].update(state="behind", lag_events=900, lag_seconds=12.0)
    item = attention(page, "behind")
    expect(item).to_contain_text("1 gateway is behind")
    expect(item.locator(".items")).to_contain_text(re.compile(r"gw-00005.*events and .* behind"))
    item.get_by_role("button", name="gw-00005").click()
    expect(page.locator("#gateways-rows tr")).to_have_count(1)
    expect(page.locator("#gateways-filter")).to_have_value("gw-00005")
    expect(page.locator("#gateways")).to_be_focused()


def test_one_that_is_about_to_be_lapped_is_critical(mock, page):
    with mock.lock:
        mock.gateways[5].update(state="behind", lag_events=900, lag_seconds=200.0)
    expect(attention(page, "behind")).to_have_attribute("data-level", "critical")
    expect(attention(page, "behind")).to_contain_text("If it goes on, it is lapped")


@pytest.mark.parametrize(
    "cause, words",
    [
        ("lapped", "the ring dropped events before the gateway took them"),
        ("stalled", "The gateway took nothing for the stall timeout"),
        ("expired", "has to renew its credential"),
        ("denied", "was revoked, or lost the right to subscribe"),
        ("refused", "The subscription never began"),
    ],
)
def test_why_a_gateway_was_cut_is_said_in_words(mock, page, cause, words):
    mock.end("gw-00003", cause, "the detail with its figures", missed=7)
    item = attention(page, f"ends {cause}")
    expect(item).to_contain_text(words)
    expect(item).to_contain_text("7 events missed")
    expect(item.locator(".items")).to_contain_text("the detail with its figures")
    item.get_by_role("button", name="Show these ends").click()
    expect(page.locator("#ends-cause")).to_have_value(cause)
    expect(page.locator("#ends-meaning")).to_contain_text("What to do:")


def test_ends_are_told_by_gateway(mock, page):
    # So far apart that the mock's clock, which goes on meanwhile, does not change their order.
    for ago in range(0, 50, 10):
        mock.end("gw-00003", "stalled", f"of {ago} s ago", ago=ago)
    mock.end("gw-00004", "stalled", "once", ago=60)
    items = attention(page, "ends stalled").locator(".items li")
    expect(items).to_have_count(2)
    expect(items.first).to_contain_text(re.compile(r"gw-00003.*5 times, the last .*of 0 s ago"))
    expect(items.last).to_contain_text(re.compile(r"gw-00004\d\d:\d\d:\d\d: once"))


def test_how_a_lag_changes_is_told(mock, page):
    # It grows by itself.
    def lags(seconds, **ring):
        with mock.lock:
            mock.gateways[3].update(state="behind", lag_events=99, lag_seconds=seconds)
            mock.ring.update(ring)

    lags(10.0)
    item = attention(page, "behind")
    expect(item).to_contain_text("behind, takes")
    expect(item).to_contain_text("behind, growing, takes")
    lags(10.0, events=mock.ring["max_events"])
    expect(item).to_contain_text("behind, growing: it is lapped in")
    lags(0.0)
    expect(item).to_contain_text("behind, catching up, takes")


def test_what_a_gateway_missed_is_told_while_it_is_there_and_after(mock, page):
    with mock.lock:
        mock.missed_events = 39_491
        mock.gateways[3].update(resume="fresh", reason="expired", missed=39_491, since=rfc3339(mock.now - 30))
        # That is longer ago.
        mock.gateways[4].update(missed=1, since=rfc3339(mock.now - 700))
    item = attention(page, "missed")
    expect(item).to_have_attribute("data-level", "critical")
    expect(item).to_contain_text("39,491 events were missed by 1 gateway in ten minutes")
    expect(item).to_contain_text("has to check its sessions again")
    expect(item.locator(".items")).to_contain_text("gw-00003missed 39,491 events when it subscribed at")
    with mock.lock:
        del mock.gateways[3]
    expect(page.locator("#gateways-rows tr")).to_have_count(7)
    expect(item).to_contain_text("39,491 events were missed")


def test_gateways_that_do_not_come_back_are_missed(mock, page):
    expect(page.locator("#gateways-rows tr")).to_have_count(8)
    with mock.lock:
        del mock.gateways[2:]
    item = attention(page, "fewer")
    expect(item).to_contain_text("2 gateways are subscribed, and 8 were")
    expect(item).to_contain_text(re.compile(r"Since \d\d:\d\d:\d\d there are fewer"))


def test_ends_of_long_ago_need_no_attention(mock, page):
    mock.end("gw-00003", "lapped", "long ago", ago=601)
    expect(page.locator("#ends-rows tr")).to_have_count(1)
    expect(page.locator("#attention-none")).to_be_visible()


def test_an_id_that_two_gateways_use_is_found(mock, page):
    for ago in (1, 2):
        mock.end("gw-00002", "takeover", "10.0.0.9:1 subscribed with the same id", ago=ago)
    expect(page.locator("#ends-rows tr")).to_have_count(2)
    expect(attention(page, "takeovers")).to_have_count(0)
    mock.end("gw-00002", "takeover", "10.0.0.8:1 subscribed with the same id")
    expect(attention(page, "takeovers")).to_contain_text("1 id is taken over again and again")
    expect(attention(page, "takeovers")).to_contain_text("the stream of 10.20.1.2:41001 was 10.0.0.8:1")


def test_a_check_that_fails_is_critical(mock, page):
    with mock.lock:
        mock.checks[0].update(ok=False, detail="no event came back in 1 s")
    item = attention(page, "check ring")
    expect(item).to_have_attribute("data-level", "critical")
    expect(item).to_contain_text("no event came back in 1 s")
    expect(page.locator("#checks li").first).to_contain_text("failed")
    expect(page).to_have_title("(1) Serving · galaxy-push")


def test_a_server_that_stops_says_so(mock, page):
    with mock.lock:
        mock.state = "stopping"
        mock.checks[3].update(ok=False, detail="stopping")
    expect(page.locator("#state-text")).to_have_text("Stopping")
    expect(attention(page, "stopping")).to_contain_text("8 gateways still subscribed")
    expect(attention(page, "check stopping")).to_have_count(0)


@pytest.mark.parametrize(
    "days, level, words", [(13, "warning", "ends in 1"), (2, "critical", "ends in"), (-1, "critical", "has ended")]
)
def test_a_certificate_near_its_end(mock, page, days, level, words):
    with mock.lock:
        mock.listeners[0]["certificate_not_after"] = rfc3339(mock.now + days * DAY)
    item = attention(page, "certificate gateways")
    expect(item).to_have_attribute("data-level", level)
    expect(item).to_contain_text(words)


def test_memory_that_slow_gateways_pin(mock, page):
    with mock.lock:
        mock.ring["pinned_bytes"] = 90 * MIB
    expect(attention(page, "pinned")).to_contain_text("90 MiB of memory is pinned")
    meter = page.get_by_role("meter", name="Pinned by slow gateways")
    expect(meter).to_have_attribute("aria-valuenow", "35")
    expect(meter).to_have_attribute("data-level", "warning")


def test_a_ring_that_is_too_small_for_its_window(mock, page):
    with mock.lock:
        mock.ring.update(events=1_048_576, oldest_age_seconds=41.0)
    item = attention(page, "window")
    expect(item).to_contain_text("The ring keeps 41 s, not the window of 5 min")
    expect(item).to_contain_text("Raise --max-events")


@pytest.mark.parametrize(
    "key, change, words",
    [
        ("gateways", lambda mock: setattr(mock, "max_gateways", 8), "8 of at most 8"),
        ("files", lambda mock: mock.process.update(open_fds=900, max_fds=1_000), "900 of at most 1,000"),
        ("memory", lambda mock: mock.process.update(resident_bytes=900 * MIB), "900 MiB of at most 1 GiB"),
        ("connections publishers", lambda mock: mock.listeners[1].update(connections=500), "500 of at most 512"),
    ],
)
def test_a_limit_that_is_near(mock, page, key, change, words):
    with mock.lock:
        change(mock)
    expect(attention(page, f"limit {key}")).to_contain_text(words)


def test_a_reload_that_failed(mock, page):
    with mock.lock:
        mock.config["last_reload_success"] = False
    expect(attention(page, "reload")).to_contain_text("What was in force before is still in force")
    expect(page.locator("#process")).to_contain_text("failed")


def test_the_ring_shows_how_full_it_is(page):
    expect(page.get_by_role("meter", name="Events")).to_have_attribute("aria-valuenow", "35")
    expect(page.get_by_role("meter", name="Memory")).to_have_attribute("aria-valuetext", "148 MiB of 256 MiB (58 %)")
    expect(page.locator("#ring-meters")).to_contain_text("5 min of 5 min")


def test_listeners_and_totals(mock, page):
    expect(page.locator("#listeners")).to_contain_text(re.compile(r"gateways 10\.20\.0\.4:50051.*TLS, certificate until"))
    expect(page.locator("#listeners")).to_contain_text(re.compile(r"admin 127\.0\.0\.1:50053.*no TLS"))
    mock.end("gw-00001", "cancelled", "the gateway reset it")
    expect(page.locator("#totals")).to_contain_text("Ended: cancelled1")


def test_ends_are_filtered_by_cause_and_text(mock, page):
    for at in range(60):
        mock.end(f"gw-{at:05}", "disconnected" if at % 2 else "cancelled", f"number {at}", ago=at)
    rows = page.locator("#ends-rows tr")
    expect(rows).to_have_count(50)
    page.locator("#ends-more").click()
    expect(rows).to_have_count(60)
    expect(rows.first).to_contain_text("number 0")
    page.locator("#ends-cause").select_option("cancelled")
    expect(rows).to_have_count(30)
    expect(page.locator("#ends-count")).to_have_text("(30 of 60)")
    page.locator("#ends-filter").fill("NUMBER 58")
    expect(rows).to_have_count(1)
    rows.first.get_by_text("What it means").click()
    expect(rows.first).to_contain_text("The gateway ended its stream by itself")
    page.locator("#ends-filter").fill("nothing like it")
    expect(page.locator("#ends-none")).to_have_text("No end matches the filter.")


def test_a_meaning_that_is_open_stays_open_while_others_come(mock, page):
    mock.end("gw-00001", "cancelled", "the first", ago=5)
    row = page.locator("#ends-rows tr", has_text="the first")
    row.get_by_text("What it means").click()
    mock.end("gw-00002", "cancelled", "the second")
    expect(page.locator("#ends-rows tr")).to_have_count(2)
    expect(page.locator("#ends-rows tr").first).to_contain_text("the second")
    expect(row.locator("details")).to_have_attribute("open", "")


def test_ends_that_were_not_sent_are_asked_for(mock, page):
    mock.end("gw-00001", "cancelled", "the first")
    expect(page.locator("#ends-rows tr")).to_have_count(1)
    readers, mock.readers[:] = list(mock.readers), []
    mock.end("gw-00002", "cancelled", "left out")
    mock.readers[:] = readers
    expect(page.locator("#ends-rows tr")).to_have_count(2)


def test_invalidations_appear_as_they_happen(mock, page):
    mock.invalidate("usr-vex", "", "account_banned:automation")
    mock.invalidate("usr-mira", "dev-7", "signed_out")
    rows = page.locator("#invalidations-rows tr")
    expect(rows).to_have_count(2)
    expect(rows.first).to_contain_text("usr-miradev-7signed_out")
    expect(rows.nth(1)).to_contain_text("usr-vexall of the useraccount_banned:automation")
    page.locator("#invalidations-filter").fill("banned")
    expect(rows).to_have_count(1)


def test_times_are_local_with_utc_beside(mock, page):
    mock.now = mock.now // DAY * DAY + 0.5
    mock.end("gw-00001", "cancelled", "at midnight in Greenwich")
    time = page.locator("#ends-rows time")
    expect(time).to_have_text(re.compile("05:45:00$"))
    expect(time).to_have_attribute("title", re.compile(r"00:00:00\.500 UTC$"))


# Charts.


@pytest.mark.parametrize("chart", ["published", "deliveries", "delay", "gateways", "throughput", "memory"])
def test_a_chart_has_lines_axes_and_a_summary(page, chart):
    figure = page.locator(f"#chart-{chart}")
    expect(figure.locator(".plot .line").first).to_have_attribute("d", re.compile(r"^M[\d. ]+L"))
    assert figure.locator(".plot text").count() >= 5
    expect(figure.locator(".summary")).to_contain_text(re.compile(r"\d.* to .*\d"))


def test_pointing_at_a_chart_reads_all_of_them(page):
    plot = page.locator("#chart-delay .plot")
    expect(plot.locator(".line").first).to_be_attached()
    plot.hover()
    for chart in ("published", "delay"):
        expect(page.locator(f"#chart-{chart} .when")).to_have_text(re.compile(r"^at \d\d:\d\d:\d\d$"))
        expect(page.locator(f"#chart-{chart} .mark")).to_have_count(1)
    page.locator("h1").hover()
    expect(page.locator("#chart-published .mark")).to_have_count(0)


def test_a_chart_is_read_by_keys(mock, page):
    slider = page.get_by_role("slider", name="Delivery delay")
    expect(page.locator("#chart-delay .plot .line").first).to_be_attached()
    slider.focus()
    slider.press("PageDown")
    expect(slider).to_have_attribute("aria-valuetext", re.compile(r"^\d\d:\d\d:\d\d: p50 [\d.]+ µs, p99 [\d.]+ ms$"))
    first = slider.get_attribute("aria-valuetext")
    # It stays where it was put, while time goes on.
    mock.tick()
    slider.press("ArrowLeft")
    assert slider.get_attribute("aria-valuetext") < first
    slider.press("Escape")
    expect(slider).to_have_attribute("aria-valuetext", re.compile("^the newest"))


def test_live_points_go_on_from_the_history(mock, page):
    expect(page.locator("#chart-published .plot .line").first).to_be_attached()
    with mock.lock:
        mock.base_rate = 90_000.0
    expect(page.locator("#chart-published .legend")).to_contain_text(re.compile(r"\d+(\.\d)? k/s"))


def test_a_second_without_deliveries_leaves_a_gap(mock, open_page):
    with mock.lock:
        for point in mock.points[200:300]:
            point["delivery_delay_p50_seconds"] = None
            point["delivery_delay_p99_seconds"] = None
    page = open_page(mock.url)
    expect(page.locator("#chart-delay .plot .line:not(.second)")).to_have_count(2)


def test_a_server_that_has_just_begun_has_charts_without_lines(serve, open_page):
    page = open_page(serve(history=0, gateways=0, tick_seconds=60).url)
    expect(page.locator("#chart-delay .summary")).to_have_text("p50: nothing yet · p99: nothing yet")
    expect(page.locator("#gateways-none")).to_have_text("No gateway is subscribed.")
    expect(page.locator("#ends-none")).to_have_text("No stream has ended yet.")


def test_the_figures_are_also_a_table(page):
    page.get_by_text("The same as a table").click()
    rows = page.locator("#history-rows tr")
    expect(rows.nth(9)).to_be_visible()
    expect(rows.nth(4)).to_contain_text(re.compile(r"\d\d:\d\d.*MiB.*µs.*ms"))
