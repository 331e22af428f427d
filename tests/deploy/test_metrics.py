"""`/metrics` of a real server, as other people's parsers read it."""

import math

from prometheus_client.openmetrics.parser import text_string_to_metric_families as read_openmetrics
from prometheus_client.parser import text_string_to_metric_families as read_prometheus

from conftest import OPENMETRICS, PROMETHEUS


def samples(families):
    """By name and labels. Bounds of buckets as numbers: the formats write them differently."""
    found = {}
    for family in families:
        for sample in family.samples:
            labels = dict(sample.labels)
            if "le" in labels:
                labels["le"] = float(labels["le"])
            key = (sample.name, tuple(sorted(labels.items())))
            assert key not in found, key
            found[key] = sample.value
    return found


def test_each_format_has_its_content_type(openmetrics, prometheus_text):
    assert openmetrics[0] == OPENMETRICS
    assert prometheus_text[0] == PROMETHEUS


def test_promtool_has_nothing_to_say(promtool, prometheus_text):
    assert promtool("check", "metrics", text=prometheus_text[1]) == ""


def test_both_formats_parse_and_say_the_same(server, traffic):
    open_families = list(read_openmetrics(server.metrics(OPENMETRICS)[1]))
    families = list(read_prometheus(server.metrics(PROMETHEUS)[1]))
    assert {f.documentation for f in open_families} == {f.documentation for f in families}
    ours = [samples(of) for of in (open_families, families)]
    assert ours[0].keys() == ours[1].keys()
    # What does not move while nothing happens.
    for key, value in ours[0].items():
        name = key[0]
        if name.startswith("galaxy_push_") and not name.startswith("galaxy_push_ring_oldest"):
            assert ours[1][key] == value, key


def test_what_went_through_is_counted(openmetrics):
    figures = samples(read_openmetrics(openmetrics[1]))
    for name, labels, value in (
        ("galaxy_push_events_published_total", {"kind": "client_event"}, 100),
        ("galaxy_push_deliveries_total", {}, 100),
        ("galaxy_push_ring_events", {}, 100),
        ("galaxy_push_ring_newest_sequence", {}, 100),
        ("galaxy_push_subscriptions_total", {"resume": "fresh", "reason": "no-cursor"}, 1),
        ("galaxy_push_missed_events_total", {}, 0),
    ):
        assert figures[(name, tuple(sorted(labels.items())))] == value, name


def test_histograms_end_with_their_count(openmetrics):
    figures = samples(read_openmetrics(openmetrics[1]))
    for name in ("galaxy_push_delivery_delay_seconds", "galaxy_push_publish_duration_seconds"):
        count = figures[(f"{name}_count", ())]
        assert count > 0
        assert figures[(f"{name}_bucket", (("le", math.inf),))] == count
