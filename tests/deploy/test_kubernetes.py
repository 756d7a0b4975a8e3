"""The Kubernetes manifests: they are valid, they fit the settings, and they keep to the rules of the house."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import typer.main
import yaml

from deploy.container import one, stages, variables
from everturn.cli.app import app
from everturn.settings import Settings

FOLDER = Path(__file__).parents[2] / "deploy" / "kubernetes"
KUSTOMIZATION = "kustomization.yaml"
RELEASES = ["1.30", "1.37"]  # the first that has all that is used here, and a late one
MARGIN_S = 5.0  # what a process may take beyond the grace period of its runs
GRACE_S = Settings.model_fields["shutdown_grace_s"].default
PODS = ["statefulset.yaml", "worker.example.yaml"]
FILES = sorted(path.name for path in FOLDER.glob("*.yaml") if path.name != KUSTOMIZATION)


def manifest(name: str) -> dict[str, Any]:
    (found,) = yaml.safe_load_all((FOLDER / name).read_text(encoding="utf-8"))
    return dict(found)


def pod(name: str) -> dict[str, Any]:
    found: dict[str, Any] = manifest(name)["spec"]["template"]["spec"]
    return found


def container(name: str) -> dict[str, Any]:
    (found,) = pod(name)["containers"]
    return dict(found)


@pytest.mark.parametrize("release", RELEASES)
@pytest.mark.parametrize("name", FILES)
def test_it_is_what_kubernetes_knows(name: str, release: str) -> None:
    kubernetes_validate.validate(manifest(name), release, strict=True)


def test_a_field_that_kubernetes_does_not_know_is_found() -> None:
    wrong = manifest("service.yaml")
    wrong["spec"]["ports"][0]["prot"] = 80
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, RELEASES[0], strict=True)


def test_all_but_examples_is_applied() -> None:
    listed = manifest(KUSTOMIZATION)["resources"]
    assert listed == [name for name in FILES if not name.endswith(".example.yaml")]


@pytest.mark.parametrize("name", PODS)
def test_there_is_time_to_let_go_of_everything(name: str) -> None:
    before = container(name).get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds", 0)
    grace_s = float(manifest("configmap.yaml")["data"]["EVERTURN_SHUTDOWN_GRACE_S"])
    assert grace_s == GRACE_S
    assert pod(name)["terminationGracePeriodSeconds"] >= before + grace_s + MARGIN_S


def test_service_and_workers_have_the_same_time() -> None:
    service, worker = (pod(name)["terminationGracePeriodSeconds"] for name in PODS)
    assert service == worker


@pytest.mark.parametrize("name", PODS)
def test_it_runs_with_no_rights(name: str) -> None:
    whole, inner = pod(name)["securityContext"], container(name)["securityContext"]
    user, group = map(int, one(stages()[1], "USER").text.split(":"))
    assert (whole["runAsNonRoot"], whole["runAsUser"], whole["runAsGroup"], whole["fsGroup"]) == (
        True,
        user,
        group,
        group,
    )
    assert whole["seccompProfile"] == {"type": "RuntimeDefault"}
    assert inner == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert pod(name)["automountServiceAccountToken"] is False
    assert not {"hostNetwork", "hostPID", "hostIPC"} & set(pod(name))


@pytest.mark.parametrize("name", PODS)
def test_what_it_writes_to_is_a_volume(name: str) -> None:
    there = variables(stages()[1])
    mounted = {mount["mountPath"]: mount["name"] for mount in container(name)["volumeMounts"]}
    assert set(mounted) == {there["EVERTURN_STATE"], there["HOME"], "/tmp"}
    claims = manifest(name)["spec"].get("volumeClaimTemplates", [])
    volumes = {each["name"] for each in pod(name)["volumes"]} | {each["metadata"]["name"] for each in claims}
    assert set(mounted.values()) == volumes
    assert all("sizeLimit" in each["emptyDir"] for each in pod(name)["volumes"])


@pytest.mark.parametrize("name", PODS)
def test_it_says_what_it_needs(name: str) -> None:
    needs = container(name)["resources"]
    assert set(needs["requests"]) == {"cpu", "memory", "ephemeral-storage"}
    assert set(needs["limits"]) == {"memory", "ephemeral-storage"}  # a limit on CPU slows down what nobody waits for


def test_two_services_never_share_a_volume() -> None:
    spec = manifest("statefulset.yaml")["spec"]
    assert spec["replicas"] == 1
    assert [claim["spec"]["accessModes"] for claim in spec["volumeClaimTemplates"]] == [["ReadWriteOncePod"]]


def test_its_state_is_looked_at_where_it_is_shown() -> None:
    found = container("statefulset.yaml")
    paths = {kind: found[f"{kind}Probe"]["httpGet"]["path"] for kind in ("startup", "liveness", "readiness")}
    assert paths == {"startup": "/healthz", "liveness": "/healthz", "readiness": "/readyz"}
    assert {found[f"{kind}Probe"]["httpGet"]["port"] for kind in paths} == {"http"}
    (port,) = found["ports"]
    assert str(port["containerPort"]) == one(stages()[1], "EXPOSE").text
    annotations = manifest("statefulset.yaml")["spec"]["template"]["metadata"]["annotations"]
    assert annotations["prometheus.io/port"] == str(port["containerPort"])
    assert annotations["prometheus.io/path"] == "/metrics"


def test_everything_that_chooses_pods_finds_those_of_the_service_alone() -> None:
    labels = manifest("statefulset.yaml")["spec"]["template"]["metadata"]["labels"]
    chosen = [
        manifest("statefulset.yaml")["spec"]["selector"]["matchLabels"],
        manifest("service.yaml")["spec"]["selector"],
        manifest("poddisruptionbudget.yaml")["spec"]["selector"]["matchLabels"],
        manifest("networkpolicy.yaml")["spec"]["podSelector"]["matchLabels"],
    ]
    assert chosen == [labels] * 4
    assert manifest("worker.example.yaml")["spec"]["template"]["metadata"]["labels"] != labels
    assert manifest("statefulset.yaml")["spec"]["serviceName"] == manifest("service.yaml")["metadata"]["name"]


def test_a_node_can_be_drained() -> None:
    assert manifest("poddisruptionbudget.yaml")["spec"]["maxUnavailable"] == 1


def test_settings_are_settings_and_secrets_have_no_values() -> None:
    secrets = manifest("secret.example.yaml")["stringData"]
    assert set(secrets.values()) == {""}
    plain = [*manifest("configmap.yaml")["data"], *(each["name"] for each in container("worker.example.yaml")["env"])]
    names = {name.removeprefix("EVERTURN_").lower() for name in [*secrets, *plain] if name.startswith("EVERTURN_")}
    assert names <= set(Settings.model_fields)
    assert not {"webhook_secrets", "read_token", "admin_token"} & {
        name.removeprefix("EVERTURN_").lower() for name in plain
    }


@pytest.mark.parametrize("name", PODS)
def test_the_command_has_what_it_is_given(name: str) -> None:
    command, *options = container(name)["args"]
    root: Any = typer.main.get_command(app)
    known = {word for parameter in root.commands[command].params for word in parameter.opts}
    assert {option.split("=")[0] for option in options} <= known


def test_there_is_one_release_of_it() -> None:
    (image,) = manifest(KUSTOMIZATION)["images"]
    assert image["newTag"] == version("everturn")
    assert {container(name)["image"] for name in PODS} == {f"{image['name']}:{image['newTag']}"}
