"""Latency by rate: the table and the picture of `scripts/compare-edge --curves`.

Run by itself, with the picture's path and the points on standard input, it draws. It is run by a
Python of its own then, which has what that needs from PyPI.
"""

import json
import re
import subprocess
import sys
import venv
from statistics import median

from tables import OURS, ROOT, duration, line, times, yes_or_no

NEEDS = ["matplotlib==3.10.7"]
HOME = ROOT / "target/plots"
PERCENTILES = ("p50", "p99")
# The knee is the highest rate up to which one delivery in a hundred takes no longer.
KNEE_NS = 10e6
# How many times the rate of every peer's knee ours is to be.
KNEE_FACTOR = 2
COLOURS = {
    OURS: "#c2410c",
    "tonic": "#2563eb",
    "tonic-bytes": "#0891b2",
    "redis-pubsub": "#7c3aed",
    "nats": "#15803d",
}


def points(figures, system, measure):
    """Rate and time, by rate, for as far as the system was measured in every round."""
    found = []
    for row, systems in figures.rows.items():
        if row[0] == "curve" and row[-1] == measure:
            times_of_it = systems.get(system, {})
            if len(times_of_it) < max(map(len, systems.values()), default=0) or not times_of_it:
                continue
            found.append((rate_of(row), median(times_of_it.values())))
    return sorted(found)


def rate_of(row):
    return int(re.match(r"\d+", row[1])[0])


def systems(figures):
    return [OURS, *figures.columns()]


def knee(figures, system):
    """The highest measured rate at which, and below which, it keeps its pace."""
    last = None
    for rate, nanos in points(figures, system, "p99"):
        if nanos > KNEE_NS:
            break
        last = rate
    return last


def table(figures):
    columns = systems(figures)
    yield line("events/s", "measure", *columns, "target", "reached")
    yield line(*["---"] * (len(columns) + 4))
    rates = sorted({rate_of(row) for row in figures.rows if row[0] == "curve"})
    found = {
        (system, measure): dict(points(figures, system, measure))
        for system in columns
        for measure in PERCENTILES
    }
    for rate in rates:
        for measure in PERCENTILES:
            cells = (found[system, measure].get(rate) for system in columns)
            cells = ("" if nanos is None else duration(nanos) for nanos in cells)
            yield line(f"{rate:,}", measure, *cells, "", "")
    knees = [knee(figures, system) for system in columns]
    cells = ["" if rate is None else f"{rate:,}" for rate in knees]
    ours, theirs = knees[0], [rate for rate in knees[1:] if rate]
    known = ours is not None and theirs
    reached = yes_or_no(ours >= KNEE_FACTOR * max(theirs)) if known else ""
    target = f"{times(KNEE_FACTOR)} of each"
    yield line("knee", f"p99 up to {duration(KNEE_NS)}", *cells, target, reached)


def picture(figures, path):
    """Draws it, after installing what that needs, if it is not there."""
    python, made = HOME / "bin/python", HOME / "made"
    if not made.exists() or made.read_text().split() != NEEDS:
        venv.create(HOME, with_pip=True, clear=True)
        pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, *NEEDS], check=True)
        made.write_text("\n".join(NEEDS))
    curves = {
        measure: [(system, points(figures, system, measure)) for system in systems(figures)]
        for measure in PERCENTILES
    }
    command = [python, __file__, str(path)]
    subprocess.run(command, input=json.dumps(curves), text=True, check=True)


def draw(curves, path):
    # Only the Python that draws has it.
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot

    pyplot.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": OURS, "font.size": 10})
    plot, sides = pyplot.subplots(1, len(PERCENTILES), figsize=(10, 4.2), sharey=True)
    for side, (measure, of_systems) in zip(sides, curves.items(), strict=True):
        for system, curve in of_systems:
            if curve:
                rates, nanos = zip(*curve, strict=True)
                side.plot(
                    rates,
                    [each / 1e6 for each in nanos],
                    marker="o",
                    markersize=3.5,
                    linewidth=2.4 if system == OURS else 1.3,
                    color=COLOURS.get(system),
                    label=system,
                )
        side.set(xscale="log", yscale="log", ylim=(0.1, 200), title=measure)
        side.set_xlabel("events a second, to 100 gateways")
        side.axhline(KNEE_NS / 1e6, color="#9ca3af", linewidth=0.8, linestyle="--")
        side.grid(color="#e5e7eb", linewidth=0.6)
        side.set_axisbelow(True)
    sides[0].set_ylabel("latency, ms")
    sides[0].legend(frameon=False)
    plot.patch.set_facecolor("white")
    plot.tight_layout()
    plot.savefig(path, metadata={"Date": None, "Creator": None})


if __name__ == "__main__":
    draw(json.load(sys.stdin), sys.argv[1])
