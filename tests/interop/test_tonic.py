"""tonic as the client: the binary's own `tail` and `publish`, on every route."""

import json
import subprocess

from child import BINARY


def test_what_is_published_is_tailed_and_goes_on_by_cursor(route, tmp_path):
    cursor_file = tmp_path / "cursor"

    def tail(count):
        return subprocess.Popen(
            [
                BINARY,
                "tail",
                f"--connect={route.gateways}",
                "--id=tonic",
                f"--count={count}",
                f"--cursor-file={cursor_file}",
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def publish(turn):
        subprocess.run(
            [
                BINARY,
                "publish",
                f"--connect={route.publishers}",
                "--user-id=user",
                "--kind=turn.ready",
                f"--payload={json.dumps({'turn': turn})}",
            ],
            check=True,
            capture_output=True,
            timeout=60,
        )

    def turns(gateway):
        output, log = gateway.communicate(timeout=60)
        assert gateway.returncode == 0, log
        lines = [json.loads(line) for line in output.splitlines()]
        return [line["client_event"]["payload"]["turn"] for line in lines]

    gateway = tail(2)
    line = gateway.stderr.readline()
    assert "subscribed" in line, line
    publish(1)
    publish(2)
    assert turns(gateway) == [1, 2]
    publish(3)
    gateway = tail(1)
    assert turns(gateway) == [3]
