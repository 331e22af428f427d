"""A real Prometheus scrapes a real server."""

from prometheus_client.parser import text_string_to_metric_families

from conftest import PROMETHEUS, wait_until


def test_the_server_is_up(prometheus, server):
    def is_up():
        result = prometheus.query('up{job="galaxy-push"} == 1')
        return result and result[0]["metric"]["instance"] == server.admin

    wait_until(is_up, "up == 1")
    [target] = prometheus.ask("targets")["activeTargets"]
    assert target["lastError"] == ""


def moves(name, labels):
    """Whether it changes while nothing happens: time passes, and each scraper is connected."""
    return name == "galaxy_push_ring_oldest_age_seconds" or (
        name == "galaxy_push_connections" and labels["listener"] == "admin"
    )


def key(name, labels):
    """Bounds as numbers: Prometheus asks for OpenMetrics, which writes them differently. And
    without empty labels: to Prometheus these do not exist."""
    labels = {label: value for label, value in labels.items() if value}
    if "le" in labels:
        labels["le"] = float(labels["le"])
    return name, tuple(sorted(labels.items()))


def test_its_figures_are_the_servers_own(prometheus, server, traffic):
    """All that stays as it is while nothing happens, to the last series."""

    def own():
        families = text_string_to_metric_families(server.metrics(PROMETHEUS)[1])
        samples = [sample for family in families for sample in family.samples]
        return {
            key(sample.name, sample.labels): sample.value
            for sample in samples
            if sample.name.startswith("galaxy_push_") and not moves(sample.name, sample.labels)
        }

    def scraped():
        found = {}
        for result in prometheus.query('{__name__=~"galaxy_push_.+"}'):
            labels = result["metric"]
            name = labels.pop("__name__")
            assert labels.pop("job") == "galaxy-push"
            assert labels.pop("instance") == server.admin
            if not moves(name, labels):
                found[key(name, labels)] = float(result["value"][1])
        return found

    differences = []

    def agree():
        wanted, found = own(), scraped()
        assert len(wanted) > 80
        differences[:] = wanted.items() ^ found.items()
        return not differences

    wait_until(agree, differences)


def test_every_alert_is_evaluated_and_none_fires(prometheus):
    def rules():
        groups = prometheus.ask("rules")["groups"]
        found = [rule for group in groups for rule in group["rules"]]
        return found and all(rule["health"] != "unknown" for rule in found) and found

    found = wait_until(rules, "every rule was evaluated")
    assert [rule["lastError"] for rule in found if rule["health"] != "ok"] == []
    firing = [rule["name"] for rule in found if rule["state"] != "inactive"]
    assert firing == []
