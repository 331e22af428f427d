"""The Debian package: what is in it, what lintian says, and what becomes of a machine."""

import os
import pathlib
import shutil
import subprocess

import pytest
from conftest import ENVIRONMENT, ROOT, needs, run

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
def test_lintian_finds_no_fault(package):
    # Of a static binary, it is said that it is one.
    known = "statically-linked-binary,initial-upload-closes-no-bugs"
    how = ["--allow-root"] if os.geteuid() == 0 else []
    run("lintian", *how, "--fail-on=error,warning", f"--suppress-tags={known}", package)
