#!/usr/bin/env python3
"""The tables of figures in the documents.

`scripts/compare-engine --write` and `scripts/compare-edge --write` put theirs into
docs/benchmarks.md, and renew the summary of both in README.md. Run by itself, this
renews the summary.
"""

import datetime
import os
import pathlib
import platform
import re
import subprocess

ROOT = pathlib.Path(__file__).resolve().parent.parent
README = ROOT / "README.md"
BENCHMARKS = ROOT / "docs/benchmarks.md"

OURS = "galaxy-push"
# The columns of the summary after ours, and the columns of the tables that each is made
# of: the first one with a figure counts. A name in brackets is shown with the figure.
COLUMNS = {
    "tonic": {"tonic": ""},
    "Redis": {"redis-pubsub": "", "redis-streams": " (streams)"},
    "NATS": {"nats": "", "jetstream": " (JetStream)"},
    "tokio broadcast": {"tokio-broadcast": ""},
}
# The rows of the summary: their text, the table that each is from, and its first cells.
ROWS = [
    (
        "**replay**: CPU per delivery while a gateway catches up",
        "edge",
        ("replay", "16 KiB", "CPU/delivery"),
    ),
    (
        "**live**: p99.9 latency, 10,000 events/s to 100 gateways",
        "edge",
        ("live", "10000/s to 100", "p99.9"),
    ),
    (
        "**idle**: memory per gateway, 5,000 gateways",
        "edge",
        ("idle", "5000", "memory/gateway"),
    ),
    (
        "**storm**: time until 5,000 gateways have every event again",
        "edge",
        ("storm", "5000", "time to whole"),
    ),
    (
        "**publish**: events accepted per second, in batches of 100",
        "edge",
        ("publish", "100", "events/s"),
    ),
    (
        "**drain**: in process, time to read one event, 64 readers",
        "engine",
        ("drain", "64"),
    ),
]
# Of these, more is better.
RATES = {"events/s"}
SCALES = {
    "": 1, "ns": 1, "µs": 1e3, "ms": 1e6, "s": 1e9,
    "KiB": 1024, "MiB": 1024**2,
}  # fmt: skip


def duration(nanos):
    for unit in ("ns", "µs", "ms", "s"):
        if abs(nanos) < 1000 or unit == "s":
            return f"{nanos:.3g} {unit}"
        nanos /= 1000


def times(factor):
    return f"× {factor:.3g}" if factor < 1000 else f"× {factor:.0f}"


def line(*cells):
    return "| " + " | ".join(cells) + " |"


def yes_or_no(reached):
    return "yes" if reached else "no"


def processor():
    for entry in pathlib.Path("/proc/cpuinfo").read_text().splitlines():
        if entry.startswith("model name"):
            return entry.split(":")[1].strip()
    return platform.machine()


def origin(command):
    """When, where and how a table was made."""
    rustc = subprocess.run(["rustc", "--version"], check=True, stdout=subprocess.PIPE, text=True)
    return (
        f"{datetime.date.today()}, {processor()}, {os.cpu_count()} cores, "
        f"{rustc.stdout.strip()}, `{command}`"
    )


def marks(name):
    return f"<!-- the {name} -->", f"<!-- end of the {name} -->"


def between(document, name):
    """The text between the marks of this name."""
    text = document.read_text()
    begin, end = marks(name)
    return text[text.index(begin) + len(begin) : text.index(end)].strip()


def replace(document, name, block):
    """Puts a block of lines between the marks of this name."""
    text = document.read_text()
    begin, end = marks(name)
    before, after = text[: text.index(begin)], text[text.index(end) :]
    document.write_text(f"{before}{begin}\n\n{block}\n\n{after}")


def write(name, block):
    """Puts a table into docs/benchmarks.md, and renews the summary."""
    replace(BENCHMARKS, f"{name}'s table", block)
    replace(README, "summary", summary())


def summary_is_current():
    return between(README, "summary") == summary()


def summary():
    """The summary's lines, from the tables of docs/benchmarks.md."""
    found = {name: rows(name) for name in ("edge", "engine")}
    lines = [line("", OURS, *COLUMNS), line("---", *["---"] * (len(COLUMNS) + 1))]
    for text, table, key in ROWS:
        row = found[table][key]
        cells = [figure(row[OURS])]
        for sources in COLUMNS.values():
            shown = ((figure(row.get(source, "")), note) for source, note in sources.items())
            cells.append(next((value + note for value, note in shown if value), ""))
        better = max if key[-1] in RATES else min
        best = better((cell for cell in cells if cell), key=size)
        lines.append(line(text, *(f"**{cell}**" if cell == best else cell for cell in cells)))
    return "\n".join(lines)


def rows(name):
    """The rows of a table: by the cells before ours, each cell by its column's name."""
    cells = [
        [cell.strip() for cell in entry.strip("|").split("|")]
        for entry in between(BENCHMARKS, f"{name}'s table").splitlines()
        if entry.startswith("|")
    ]
    columns = cells[0]
    before = columns.index(OURS)
    return {tuple(row[:before]): dict(zip(columns, row, strict=True)) for row in cells[2:]}


def figure(cell):
    """A cell without the factor in its brackets."""
    return cell.split(" (")[0]


def size(cell):
    number, unit = re.match(r"([\d.,]+) ?([µA-Za-z]*)", cell).groups()
    return float(number.replace(",", "")) * SCALES[unit]


if __name__ == "__main__":
    replace(README, "summary", summary())
