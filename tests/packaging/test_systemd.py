"""The units, as systemd reads them; and the server under the unit's system call filter."""

import os
import re
import subprocess

import pytest
from conftest import DEPLOY, ENVIRONMENT, needs, run

UNITS = DEPLOY / "systemd"
# Debian's packages are for this one.
DEBIAN_PYTHON = "/usr/bin/python3"
SERVICE = UNITS / "galaxy-push.service"


@needs("systemd-analyze")
def test_systemd_has_nothing_to_say_about_the_units(binary, tmp_path):
    units = []
    for unit in sorted([*UNITS.glob("*.service"), *UNITS.glob("*.socket")]):
        copy = tmp_path / unit.name
        copy.write_text(unit.read_text().replace("/usr/bin/galaxy-push", str(binary)))
        units.append(copy)
    said = run("systemd-analyze", "verify", "--man=no", *units)
    # Of the machine's own units it may have something to say.
    assert "galaxy-push" not in said, said


@needs("systemd-analyze")
def test_the_service_is_exposed_to_little():
    # In tenths: "OK" ends at 4.9.
    run("systemd-analyze", "security", "--offline=true", "--threshold=15", SERVICE)


@needs("systemd-sysusers")
@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files to others")
def test_the_user_and_the_folder_are_made(tmp_path):
    (tmp_path / "etc").mkdir()
    run("systemd-sysusers", f"--root={tmp_path}", UNITS / "sysusers.conf")
    assert "galaxy-push:" in (tmp_path / "etc/passwd").read_text()
    run("systemd-tmpfiles", f"--root={tmp_path}", "--create", UNITS / "tmpfiles.conf")
    made = (tmp_path / "etc/galaxy-push").stat()
    assert (made.st_mode & 0o777, made.st_uid) == (0o750, 0)
    assert made.st_gid != 0


def test_every_setting_of_the_environment_file_is_one(binary, start, secrets):
    """As if somebody had taken all of them in."""
    text = (UNITS / "galaxy-push.env").read_text()
    env = dict(re.findall(r"^#(GALAXY_PUSH_\w+)=(.*)$", text, re.MULTILINE))
    assert len(env) > 5
    for name, file in {"CERT": "certificate", "KEY": "key", "CLIENT_CA": "ca"}.items():
        env[f"GALAXY_PUSH_TLS_{name}"] = str(secrets[file])
    env["GALAXY_PUSH_ACCESS"] = str(secrets["access"])
    flags = run(binary, "help", "serve")
    for name in env:
        assert f"[env: {name}]" in flags or f"[env: {name}=" in flags, name
    ports = ["--listen", "127.0.0.1:0", "--publish-listen", "127.0.0.1:0"]
    server = start([binary, "serve", *ports, "--admin-listen", "none"], env)
    server.find("listening for producers on ")
    env["GALAXY_PUSH_SHUTDOWN_DELAY"] = "0s"
    assert server.stop() == 0


def system_calls():
    """The system calls that the unit's filter lets through."""

    def expand(name):
        if not name.startswith("@"):
            return {name}
        text = subprocess.run(
            ["systemd-analyze", "syscall-filter", name],
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        words = [line.strip() for line in text.splitlines()[1:]]
        return set().union(*(expand(word) for word in words if word and word[0] != "#"))

    allowed = set()
    for line in re.findall(r"^SystemCallFilter=(.*)$", SERVICE.read_text(), re.MULTILINE):
        is_deny = line.startswith("~")
        named = set().union(*(expand(word) for word in line.lstrip("~").split()))
        allowed = allowed - named if is_deny else allowed | named
    # systemd always lets through what it needs itself.
    return allowed | {"execve", "exit", "exit_group", "rt_sigreturn"}


UNDER_FILTER = """
import errno, os, sys
import seccomp
names, command = sys.argv[1].split(","), sys.argv[2:]
filter = seccomp.SyscallFilter(seccomp.ERRNO(errno.EPERM))
for name in names:
    try:
        filter.add_rule(seccomp.ALLOW, name)
    except (RuntimeError, OSError, ValueError):
        pass  # this machine has no such call
filter.load()
os.execv(command[0], command)
"""


def has_seccomp():
    try:
        asked = subprocess.run([DEBIAN_PYTHON, "-c", "import seccomp"], capture_output=True)
    except OSError:
        return False
    return asked.returncode == 0


@needs("systemd-analyze")
@pytest.mark.skipif(not has_seccomp(), reason="Debian's python3-seccomp is not installed")
def test_it_works_under_the_units_system_call_filter(binary, start):
    names = ",".join(sorted(system_calls()))
    confined = [DEBIAN_PYTHON, "-c", UNDER_FILTER, names, binary]
    ports = ["--listen", "127.0.0.1:0", "--publish-listen", "127.0.0.1:0"]
    serve = ["serve", *ports, "--admin-listen", "none"]

    def deliver(server):
        """One event, published and received."""
        gateways = server.find(r"for gateways on (\S+)")[1]
        publishers = server.find(r"for producers on (\S+)")[1]
        tail = start([binary, "tail", "--connect", gateways, "--count", "1"])
        tail.find("subscribed as ")
        event = ["--user-id", "u", "--kind", "k"]
        run(binary, "publish", "--connect", publishers, *event, env=ENVIRONMENT)
        assert tail.process.wait(60) == 0
        assert server.stop() == 0
        return "no io_uring" in server.text()

    # Where the machine has no io_uring, the filter need not have it either.
    assert deliver(start([*confined, *serve])) == deliver(start([binary, *serve]))
