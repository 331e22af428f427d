"""What the tables of `scripts/compare-engine` and `scripts/compare-edge` share."""

import datetime
import os
import pathlib
import platform
import subprocess


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
