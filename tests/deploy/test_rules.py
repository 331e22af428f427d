"""The alert rules: valid, tested, and each with a page that says what to do."""

import re

import pytest

import shipped

ALERTS = shipped.alerts()


def test_rules_and_configuration_are_valid(promtool):
    assert "21 rules found" in promtool("check", "rules", shipped.PROMETHEUS / "alerts.yml")
    assert len(ALERTS) == 21
    promtool("check", "config", shipped.PROMETHEUS / "prometheus.yml")


def test_each_alert_fires_and_is_quiet_as_its_test_says(promtool):
    promtool("test", "rules", shipped.PROMETHEUS / "alerts_test.yml")


@pytest.mark.parametrize("alert", ALERTS, ids=lambda rule: rule["alert"])
def test_each_alert_has_a_test_where_it_fires_and_one_where_it_is_quiet(alert):
    expected = [
        bool(case["exp_alerts"])
        for test in shipped.alert_tests()
        for case in test["alert_rule_test"]
        if case["alertname"] == alert["alert"]
    ]
    assert True in expected and False in expected


@pytest.mark.parametrize("alert", ALERTS, ids=lambda rule: rule["alert"])
def test_each_alert_says_what_it_is_and_where_to_read_on(alert):
    assert alert["labels"]["severity"] in ("critical", "warning")
    annotations = alert["annotations"]
    assert "{{ $labels.instance }}" in annotations["summary"]
    assert annotations["description"]
    document, anchor = annotations["runbook"].split("#")
    headings = re.findall(r"^## (.+)$", (shipped.ROOT / document).read_text(), re.MULTILINE)
    assert alert["alert"] in headings and anchor == alert["alert"].lower()


def test_the_document_has_no_other_alerts():
    text = (shipped.ROOT / "docs/alerts.md").read_text()
    headings = re.findall(r"^## (.+)$", text, re.MULTILINE)
    assert headings == [rule["alert"] for rule in ALERTS]
