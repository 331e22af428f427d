"""What is shipped: alerts, dashboard, documents, and the expressions in them."""

import json
import pathlib
import re

import promql_parser
import yaml

ROOT = pathlib.Path(__file__).resolve().parents[2]
PROMETHEUS = ROOT / "deploy/prometheus"


def alerts():
    rules = yaml.safe_load((PROMETHEUS / "alerts.yml").read_text())
    return [rule for group in rules["groups"] for rule in group["rules"]]


def alert_tests():
    return yaml.safe_load((PROMETHEUS / "alerts_test.yml").read_text())["tests"]


def dashboard():
    return json.loads((ROOT / "deploy/grafana/dashboard.json").read_text())


def _dashboard_expressions():
    shown = dashboard()
    for panel in shown["panels"]:
        for target in panel.get("targets", []):
            yield f"panel {panel['title']!r}", target["expr"]
    for annotation in shown["annotations"]["list"]:
        yield f"annotation {annotation['name']!r}", annotation["expr"]


def _document_expressions():
    for line in (ROOT / "docs/metrics.md").read_text().splitlines():
        if line.startswith("| `"):
            cells = line.strip("|").split(" | ")
            yield f"docs/metrics.md: {cells[0].strip()}", cells[-1].strip().strip("`")
    for query in re.findall(r"`([^`]+)`", (ROOT / "docs/alerts.md").read_text()):
        if "galaxy_push_" in query:
            yield "docs/alerts.md", query


def expressions():
    """Where each is, and the expression with Grafana's variables filled in."""
    found = [(f"alert {rule['alert']}", rule["expr"]) for rule in alerts()]
    found.extend(_dashboard_expressions())
    found.extend(_document_expressions())
    filled = {"$__rate_interval": "1m", "$job": "galaxy-push", "$instance": ".*"}
    for where, expression in found:
        for variable, value in filled.items():
            expression = expression.replace(variable, value)
        assert "$" not in expression, f"{where}: a variable that nothing fills: {expression}"
        yield where, expression


def selectors(expression):
    """The series selectors of it, and the labels by which it groups or joins."""
    series, labels = [], set()

    def visit(node):
        for kind, inner in (
            (promql_parser.VectorSelector, ()),
            (promql_parser.MatrixSelector, ("vector_selector",)),
            (promql_parser.BinaryExpr, ("lhs", "rhs")),
            (promql_parser.AggregateExpr, ("expr", "param")),
            (promql_parser.Call, ("args",)),
            (promql_parser.ParenExpr, ("expr",)),
            (promql_parser.UnaryExpr, ("expr",)),
            (promql_parser.SubqueryExpr, ("expr",)),
            (promql_parser.NumberLiteral, ()),
            (promql_parser.StringLiteral, ()),
        ):
            if isinstance(node, kind):
                break
        else:
            raise AssertionError(f"{expression}: {type(node)} is not known here")
        if isinstance(node, promql_parser.VectorSelector):
            series.append(node)
        if isinstance(node, promql_parser.AggregateExpr) and node.modifier:
            labels.update(node.modifier.labels)
        for name in inner:
            value = getattr(node, name)
            for child in value if isinstance(value, list) else [value]:
                if child is not None:
                    visit(child)

    visit(promql_parser.parse(expression))
    return series, labels
