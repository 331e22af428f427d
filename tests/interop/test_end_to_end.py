"""Half a minute of what `scripts/end-to-end` does for ten."""

import os
import sys

from child import ROOT, SECONDS, run


def test_no_revoked_session_is_served_whatever_fails():
    # Times are for a machine that has nothing else to do: none is asserted here.
    command = [sys.executable, ROOT / "tests/end_to_end/main.py", "--seconds=30"]
    if gateway := os.environ.get("EXAMPLE_GATEWAY_BINARY"):
        command.append(f"--gateway={gateway}")
    code, out, err = run(*command, seconds=3 * SECONDS)
    assert code == 0, out + err
