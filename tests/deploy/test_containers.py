"""deploy/docker and deploy/kubernetes: rules that every file must keep. None of them runs here."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import tomli
import typer.main
import yaml

from discorder.cli.app import app
from discorder.cli.facade import DEFAULT_BIND
from discorder.config import load_config

ROOT = Path(__file__).parents[2]
DOCKER = ROOT / "deploy" / "docker"
MANIFESTS = ROOT / "deploy" / "kubernetes" / "discorder.yaml"
DOCKERFILE = (DOCKER / "Dockerfile").read_text(encoding="utf-8")
USER = "10001"


def compose() -> dict[str, Any]:
    document: dict[str, Any] = yaml.safe_load((DOCKER / "compose.yaml").read_text(encoding="utf-8"))
    return document


def manifest(kind: str) -> dict[str, Any]:
    documents = yaml.safe_load_all(MANIFESTS.read_text(encoding="utf-8"))
    return next(document for document in documents if document["kind"] == kind)


def containers() -> list[dict[str, Any]]:
    return manifest("StatefulSet")["spec"]["template"]["spec"]["containers"]  # type: ignore[no-any-return]


def verbs() -> Iterator[tuple[str, list[str]]]:
    """Yield where a command of `discorder` is called, and its arguments."""
    for line in re.findall(r"^(?:CMD|    CMD) \[(.*)\]$", DOCKERFILE, re.MULTILINE):
        yield "Dockerfile", [word.strip(' "') for word in line.split(",")]
    for name, service in compose()["services"].items():
        if "command" in service:
            yield f"compose, {name}", service["command"]
    for container in containers():
        yield f"StatefulSet, {container['name']}", container["args"]
        for probe in ("livenessProbe", "readinessProbe"):
            if probe in container:
                yield f"StatefulSet, {probe}", container[probe]["exec"]["command"]


@pytest.mark.parametrize(("where", "arguments"), list(verbs()))
def test_every_command_exists_with_its_options(where: str, arguments: list[str]) -> None:
    words = arguments[1:] if arguments[0] == "discorder" else arguments
    root: Any = typer.main.get_command(app)
    command = root.commands[words[0]]
    known = {option for parameter in command.params for option in parameter.opts}
    assert {word for word in words[1:] if word.startswith("--")} <= known, where


def test_the_image_runs_as_nobody_of_importance() -> None:
    """Numeric, so that Kubernetes can check it; nothing is installed after the switch."""
    assert re.findall(r"^USER (.*)$", DOCKERFILE, re.MULTILINE) == [f"{USER}:{USER}"]
    assert "RUN" not in DOCKERFILE[DOCKERFILE.index("USER ") :]
    assert "HEALTHCHECK" in DOCKERFILE
    assert "DISCORD_BOT_TOKEN" not in DOCKERFILE


def test_the_image_gets_every_source_folder() -> None:
    let_through = {
        line[1:] for line in (DOCKER / "Dockerfile.dockerignore").read_text().splitlines() if line.startswith("!")
    }
    assert all((ROOT / name).exists() for name in let_through)
    mapped = re.findall(r'^"discorder[\w.]*" = "(\w+)"$', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert set(mapped) <= let_through


def test_compose_builds_this_tree() -> None:
    build = compose()["services"]["discorder"]["build"]
    assert (DOCKER / build["context"]).resolve() == ROOT
    assert (ROOT / build["dockerfile"]).is_file()


@pytest.mark.parametrize("name", ["discorder", "bot", "facade"])
def test_a_service_has_no_rights_that_it_does_not_need(name: str) -> None:
    service = compose()["services"][name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert "ports" not in service
    assert "environment" not in service, "the token is a secret"


def test_the_bot_reads_the_socket_that_the_control_plane_binds() -> None:
    services = compose()["services"]
    config = load_config(DOCKER / "discorder.toml")
    bind = str(config.publishers["zmq"]["bind"])
    assert services["bot"]["command"][-1] == bind
    assert "bus:/run/discorder" in services["bot"]["volumes"]
    assert "bus:/run/discorder" in services["discorder"]["volumes"]
    assert services["bot"]["user"].endswith(f":{USER}"), "the group of the sockets"
    assert services["bot"]["user"] != f"{USER}:{USER}"


def test_the_facade_reads_the_bus_and_keeps_its_journal_in_the_volume_of_the_sessions() -> None:
    """The commented table of the configuration is valid, and makes the control plane keep the journal that feeds it."""
    services, text = compose()["services"], (DOCKER / "discorder.toml").read_text(encoding="utf-8")
    command = services["facade"]["command"]
    assert command[command.index("--bus") + 1] == load_config(DOCKER / "discorder.toml").publishers["zmq"]["bind"]
    assert services["facade"]["volumes"] == services["discorder"]["volumes"]
    assert services["facade"]["secrets"] == services["discorder"]["secrets"]
    table = tomli.loads(re.sub(r"^# (?=\[facade|token_file)", "", text, flags=re.MULTILINE))["facade"]["clients"]
    assert mounted(table["main"]["token_file"], [volume.split(":")[1] for volume in services["facade"]["volumes"]])
    assert f"127.0.0.1:{DEFAULT_BIND.rpartition(':')[2]}/api/gateway" in str(services["facade"]["healthcheck"])


def mounted(path: str, mounts: list[str]) -> bool:
    return any(path.startswith(f"{mount}/") for mount in mounts)


def test_what_the_container_writes_is_in_a_volume() -> None:
    config = load_config(DOCKER / "discorder.toml")
    volumes = [volume.split(":")[1] for volume in compose()["services"]["discorder"]["volumes"]]
    assert mounted(config.session.store, volumes)
    assert config.gateway.token_file == "/run/secrets/token"
    grace = int(compose()["services"]["discorder"]["stop_grace_period"].removesuffix("s"))
    assert grace > config.session.drain_timeout


@pytest.mark.parametrize("container", containers(), ids=lambda container: container["name"])
def test_a_pod_is_restricted(container: dict[str, Any]) -> None:
    """As the Pod Security Standard "restricted" wants it, with a read-only root."""
    pod = manifest("StatefulSet")["spec"]["template"]["spec"]
    assert pod["automountServiceAccountToken"] is False
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert str(pod["securityContext"]["runAsUser"]) == USER
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert "limits" in container["resources"]
    assert "env" not in container, "the token is a file"


def test_the_pod_keeps_its_sessions_and_has_time_to_stop(tmp_path: Path) -> None:
    path = tmp_path / "discorder.toml"
    path.write_text(manifest("ConfigMap")["data"]["discorder.toml"])
    config = load_config(path)
    stateful = manifest("StatefulSet")["spec"]
    (plane, bot) = containers()
    mounts = {mount["name"]: mount["mountPath"] for mount in plane["volumeMounts"]}
    assert mounted(config.session.store, [mounts["sessions"]])
    assert mounted(config.gateway.token_file, [mounts["token"]])
    names = {volume["name"] for volume in stateful["template"]["spec"]["volumes"]}
    names |= {claim["metadata"]["name"] for claim in stateful["volumeClaimTemplates"]}
    assert names == mounts.keys()
    assert stateful["template"]["spec"]["terminationGracePeriodSeconds"] > config.session.drain_timeout
    assert bot["args"][-1] == config.publishers["zmq"]["bind"]
    assert stateful["replicas"] == 1
    labels = stateful["template"]["metadata"]["labels"]
    assert stateful["selector"]["matchLabels"] == labels == manifest("Service")["spec"]["selector"]
