"""The manifests: Kubernetes' schemas, and the settings in them."""

import pytest
import yaml
from conftest import DEPLOY, run

MANIFESTS = DEPLOY / "kubernetes"


def documents(name):
    return list(yaml.safe_load_all((MANIFESTS / name).read_text()))


def one(kind):
    [found] = [it for it in documents("galaxy-push.yaml") if it["kind"] == kind]
    return found


@pytest.mark.parametrize("version", ["1.30", "1.36"])
def test_the_schemas_take_them(version):
    said = run(
        "kubernetes-validate", "--strict", "-k", version, MANIFESTS / "galaxy-push.yaml"
    )
    kinds = [it["kind"].lower() for it in documents("galaxy-push.yaml")]
    assert len(kinds) == said.count(" passed for resource ")


def test_the_settings_start_a_server(binary, start, secrets):
    env = dict(one("ConfigMap")["data"])
    files = {"TLS_CERT": "certificate", "TLS_KEY": "key", "ACCESS": "access"}
    for name, file in files.items():
        assert env[f"GALAXY_PUSH_{name}"].startswith("/etc/galaxy-push/")
        env[f"GALAXY_PUSH_{name}"] = str(secrets[file])
    flags = run(binary, "help", "serve")
    for name in env:
        assert f"[env: {name}]" in flags or f"[env: {name}=" in flags, name
    for name in ["LISTEN", "PUBLISH_LISTEN", "ADMIN_LISTEN"]:
        host, _, _ = env[f"GALAXY_PUSH_{name}"].rpartition(":")
        env[f"GALAXY_PUSH_{name}"] = f"{host}:0"
    start([binary, "serve"], env).find("listening for producers on ")


def seconds(text):
    assert text.endswith("s")
    return int(text[:-1])


def test_the_pod_has_as_long_as_a_stop_may_take():
    env = one("ConfigMap")["data"]
    stop = seconds(env["GALAXY_PUSH_SHUTDOWN_DELAY"]) + seconds(env["GALAXY_PUSH_SHUTDOWN_GRACE"])
    pod = one("StatefulSet")["spec"]["template"]["spec"]
    assert pod["terminationGracePeriodSeconds"] >= stop + 5


def test_ports_and_labels_lead_to_the_pod():
    template = one("StatefulSet")["spec"]["template"]
    [container] = template["spec"]["containers"]
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    env = one("ConfigMap")["data"]
    for name, setting in [
        ("gateways", "LISTEN"),
        ("publishers", "PUBLISH_LISTEN"),
        ("admin", "ADMIN_LISTEN"),
    ]:
        assert env[f"GALAXY_PUSH_{setting}"].endswith(f":{ports[name]}")
    labels = template["metadata"]["labels"].items()
    for service in (it for it in documents("galaxy-push.yaml") if it["kind"] == "Service"):
        assert service["spec"]["selector"].items() <= labels
        for port in service["spec"]["ports"]:
            assert ports[port["targetPort"]] == port["port"]
    [monitor] = documents("servicemonitor.yaml")
    [admin] = [
        it for it in documents("galaxy-push.yaml") if it["metadata"]["name"].endswith("-admin")
    ]
    wanted = monitor["spec"]["selector"]["matchLabels"].items()
    assert wanted <= admin["metadata"]["labels"].items()
    [endpoint] = monitor["spec"]["endpoints"]
    assert endpoint["port"] in [port["name"] for port in admin["spec"]["ports"]]
