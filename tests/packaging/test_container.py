"""The image: its text, and its last stage, built and run."""

import json
import os
import shutil
import subprocess

import pytest
from conftest import ROOT, needs, run

DOCKERFILE = ROOT / "Dockerfile"


def test_the_linter_has_nothing_to_say():
    run("hadolint", "--failure-threshold=info", DOCKERFILE)


def last_stage():
    text = DOCKERFILE.read_text()
    stage = text[text.rindex("FROM scratch") :]
    # The binary is built by scripts/build-static there as here.
    return stage.replace("COPY --from=build /out/", "COPY ")


@needs("buildah")
@pytest.mark.skipif(os.geteuid() != 0, reason="buildah is run as root")
def test_the_image_has_one_file_and_a_user_that_is_nobody(binary, tmp_path):
    shutil.copy(binary, tmp_path / "galaxy-push")
    (tmp_path / "Dockerfile").write_text(last_stage())
    store = ["--root", tmp_path / "store", "--runroot", tmp_path / "run"]
    buildah = ["buildah", *store, "--storage-driver", "vfs"]
    build = ["build", "--isolation", "chroot", "--format", "docker", "--tag", "push"]
    run(*buildah, *build, tmp_path)
    inspected = run(*buildah, "inspect", "--type", "image", "push")
    image = json.loads(inspected)["Docker"]["config"]
    assert image["User"] == "65532:65532"
    assert image["Entrypoint"] == ["/galaxy-push"]
    assert image["Cmd"] == ["serve"]
    assert image["StopSignal"] == "SIGTERM"
    assert image["Healthcheck"]["Test"] == ["CMD", "/galaxy-push", "health"]
    container = run(*buildah, "from", "--pull-never", "push").strip()
    mounted = run(*buildah, "mount", container).strip()
    try:
        files = [name for name in os.listdir(mounted)]
        assert files == ["galaxy-push"]
    finally:
        run(*buildah, "umount", container)


@needs("unshare")
@pytest.mark.skipif(os.geteuid() != 0, reason="only root changes the root directory")
def test_it_serves_with_nothing_around_it_and_nothing_to_write_to(binary, start, tmp_path):
    root = tmp_path / "root"
    root.mkdir()
    shutil.copy(binary, root / "galaxy-push")
    script = (
        "mount --bind -o ro \"$0\" \"$0\" && cd \"$0\" && "
        "exec chroot --userspec=65532:65532 . /galaxy-push \"$@\""
    )
    inside = ["unshare", "--mount", "sh", "-c", script, root]
    ports = ["--listen", "127.0.0.1:0", "--publish-listen", "127.0.0.1:0"]
    server = start([*inside, "serve", *ports, "--admin-listen", "none"])
    publishers = server.find(r"for producers on (\S+)")[1]
    event = ["--user-id", "u", "--kind", "k"]
    run(*inside, "publish", "--connect", publishers, *event)
    # What the image's health check runs; nobody listens there.
    health = ["health", "--connect", "127.0.0.1:1"]
    asked = subprocess.run([*map(str, inside), *health], capture_output=True, text=True)
    assert asked.returncode == 1
    assert "cannot connect to 127.0.0.1:1" in asked.stderr
    assert server.stop() == 0


def test_the_build_gets_every_file_that_it_reads(tmp_path):
    """What .dockerignore lets through is a package that cargo can read."""
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    for name in (line[1:] for line in lines if line.startswith("!")):
        source, target = ROOT / name, tmp_path / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target)
        else:
            shutil.copy(source, target)
    metadata = ["cargo", "metadata", "--offline", "--locked", "--no-deps", "--format-version=1"]
    package = json.loads(run(*metadata, cwd=tmp_path))["packages"][0]
    binaries = [t["src_path"] for t in package["targets"] if "bin" in t["kind"]]
    assert any(path.endswith("src/main.rs") for path in binaries)
