"""Every expression that is shipped or documented, against a real server's metrics and in a real
Prometheus."""

import re

import pytest
from promql_parser import MatchOp
from prometheus_client.parser import text_string_to_metric_families

import shipped

EXPRESSIONS = list(shipped.expressions())
# What Prometheus adds.
OWN_LABELS = {"job", "instance"}
OWN_SERIES = {"up"}
# What only a server with TLS has, or one with a gateway that is behind: nothing to compare with.
SELDOM = {
    "galaxy_push_tls_certificate_not_after_timestamp_seconds": {"listener"},
    "galaxy_push_gateway_lag_events": {"gateway"},
    "galaxy_push_gateway_lag_seconds": {"gateway"},
}


@pytest.fixture(scope="session")
def series(prometheus_text):
    """The labels of each series, by name; none for what has a type, but no sample yet."""
    found = {}
    for name, kind in re.findall(r"^# TYPE (\S+) (\S+)$", prometheus_text[1], re.MULTILINE):
        for suffix in ("_bucket", "_sum", "_count") if kind == "histogram" else ("",):
            found[name + suffix] = []
    for family in text_string_to_metric_families(prometheus_text[1]):
        for sample in family.samples:
            found[sample.name].append(sample.labels)
    return found


@pytest.mark.parametrize("where, expression", EXPRESSIONS, ids=[where for where, _ in EXPRESSIONS])
def test_it_uses_series_and_labels_that_exist(where, expression, series):
    selectors, grouped = shipped.selectors(expression)
    assert selectors, "it selects nothing"
    labels_of_all = set(OWN_LABELS)
    for selector in selectors:
        name = selector.name
        if name in OWN_SERIES:
            continue
        assert name in series, f"no such metric: {name}"
        if name in SELDOM:
            known = SELDOM[name]
            assert all(labels.keys() == known for labels in series[name])
        else:
            assert series[name], f"no series of {name}"
            known = set(series[name][0])
        labels_of_all |= known
        for matcher in selector.matchers.matchers:
            assert matcher.name in known | OWN_LABELS, f"{name} has no label {matcher.name}"
            if matcher.name in OWN_LABELS or name in SELDOM:
                continue
            values = {labels[matcher.name] for labels in series[name]}
            if matcher.op == MatchOp.Equal:
                wanted = {matcher.value}
            elif matcher.op == MatchOp.Re:
                wanted = set(matcher.value.split("|"))
            else:
                wanted = {matcher.value} & values
                assert wanted, f"{name} has no {matcher.name}={matcher.value} to leave out"
            assert wanted <= values, f"{name} has no {matcher.name} of {wanted - values}"
    assert set(grouped) <= labels_of_all, f"grouped by {set(grouped) - labels_of_all}"


def test_prometheus_reads_each(prometheus):
    for where, expression in EXPRESSIONS:
        try:
            prometheus.query(expression)
        except AssertionError as error:
            raise AssertionError(f"{where}: {expression}") from error


def test_the_dashboard_is_whole():
    shown = shipped.dashboard()
    panels = shown["panels"]
    assert shown["schemaVersion"] >= 41
    assert len({panel["id"] for panel in panels}) == len(panels)
    rows = [panel["title"] for panel in panels if panel["type"] == "row"]
    assert rows == [
        "Overview",
        "Delivery",
        "Ring",
        "Revocations",
        "Receipts",
        "Gateways",
        "Ends of streams",
        "Publishing",
        "TLS and access",
        "Process",
    ]
    cells = set()
    for panel in panels:
        at = panel["gridPos"]
        own = {
            (x, y)
            for x in range(at["x"], at["x"] + at["w"])
            for y in range(at["y"], at["y"] + at["h"])
        }
        assert not own & cells, f"{panel['title']} is over another panel"
        assert at["x"] + at["w"] <= 24, panel["title"]
        cells |= own
        if panel["type"] != "row":
            assert panel["title"] and panel["description"] and panel["targets"]
            assert panel["datasource"]["uid"] == "${datasource}"


def test_every_metric_is_on_the_dashboard(series):
    used = set()
    for where, expression in EXPRESSIONS:
        if where.startswith("panel"):
            used |= {selector.name for selector in shipped.selectors(expression)[0]}
    histograms = {name.removesuffix("_bucket") for name in used if name.endswith("_bucket")}
    unused = [
        name
        for name in series
        if name not in used and re.sub("_(sum|count)$", "", name) not in histograms
    ]
    assert unused == []
