"""The Debian package: what is in it, what lintian says, and what becomes of a machine."""

import os
import pathlib
import shutil

import pytest
from conftest import ROOT, needs, run

pytestmark = needs("dpkg-deb")


@pytest.fixture(scope="module")
def package(binary, tmp_path_factory):
    folder = tmp_path_factory.mktemp("package")
    return pathlib.Path(run(ROOT / "scripts/build-deb", binary, folder).strip())


def test_it_has_the_binary_the_units_and_the_settings(package, tmp_path):
    run("dpkg-deb", "--extract", package, tmp_path)
    for name in [
        "usr/lib/systemd/system/galaxy-push.service",
        "usr/lib/systemd/system/galaxy-push-gateways.socket",
        "usr/lib/sysusers.d/galaxy-push.conf",
        "usr/lib/tmpfiles.d/galaxy-push.conf",
        "etc/galaxy-push/galaxy-push.env",
    ]:
        assert (tmp_path / name).is_file(), name
    said = run(tmp_path / "usr/bin/galaxy-push", "--version")
    assert said.startswith("galaxy-push ")


def test_the_same_source_is_the_same_package(binary, package, tmp_path):
    again = run(ROOT / "scripts/build-deb", binary, tmp_path).strip()
    assert package.read_bytes() == pathlib.Path(again).read_bytes()


@needs("lintian")
def test_lintian_finds_no_fault(binary, package):
    """What is meant is in deploy/debian/lintian-overrides."""
    how = ["--allow-root"] if os.geteuid() == 0 else []
    run("lintian", *how, "--fail-on=error,warning", package)


@pytest.fixture(scope="session")
def debian(tmp_path_factory):
    """A small Debian, with systemd's tools and nothing that runs."""
    root = tmp_path_factory.mktemp("debian") / "root"
    packages = "--include=init-system-helpers,systemd"
    suite = run("sh", "-c", ". /etc/os-release && echo $VERSION_CODENAME").strip()
    run("mmdebstrap", "--mode=root", "--variant=essential", packages, suite, root)
    yield root
    shutil.rmtree(root)


@needs("mmdebstrap")
@pytest.mark.skipif(os.geteuid() != 0, reason="only root installs packages")
def test_a_machine_takes_it_in_and_lets_it_go(package, debian):
    shutil.copy(package, debian / "galaxy-push.deb")

    def dpkg(*words):
        run("chroot", debian, "dpkg", *words)

    def is_enabled(unit):
        folder = "sockets" if unit.endswith(".socket") else "multi-user"
        return (debian / f"etc/systemd/system/{folder}.target.wants/{unit}").is_symlink()

    units = ["galaxy-push.service", "galaxy-push-gateways.socket"]
    settings = debian / "etc/galaxy-push/galaxy-push.env"
    dpkg("--install", "/galaxy-push.deb")
    said = run("chroot", debian, "/usr/bin/galaxy-push", "--version")
    assert said.startswith("galaxy-push ")
    assert "galaxy-push:" in (debian / "etc/passwd").read_text()
    assert all(is_enabled(unit) for unit in units)
    made = settings.stat()
    assert (made.st_mode & 0o777, made.st_uid) == (0o640, 0)
    group = run("chroot", debian, "stat", "--format=%G", "/etc/galaxy-push/galaxy-push.env")
    assert group.strip() == "galaxy-push"

    # An upgrade keeps what somebody has set.
    settings.write_text("GALAXY_PUSH_WINDOW=1h\n")
    dpkg("--install", "--force-confold", "/galaxy-push.deb")
    assert settings.read_text() == "GALAXY_PUSH_WINDOW=1h\n"

    dpkg("--remove", "galaxy-push")
    assert settings.exists()
    dpkg("--purge", "galaxy-push")
    assert not settings.exists()
    assert not any(is_enabled(unit) for unit in units)
