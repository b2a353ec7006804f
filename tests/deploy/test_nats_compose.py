"""deploy/compose.nats.yaml: rules for its services, and its configurations under a real server."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from discorder.errors import ConfigError
from discorder.publishers.nats.publisher import NatsPublisher
from discorder.testing.publisher_contract import event
from tests.publishers.nats_server import NatsServer

FILE = Path(__file__).parents[2] / "deploy" / "compose.nats.yaml"
DOCUMENT: dict[str, Any] = yaml.safe_load(FILE.read_text(encoding="utf-8"))
SERVICES: dict[str, dict[str, Any]] = DOCUMENT["services"]
AUTH = 'authorization { user: discorder, password: "hunter2" }\n'


@pytest.mark.parametrize("name", SERVICES)
def test_a_server_has_no_rights_that_it_does_not_need_and_listens_on_loopback(name: str) -> None:
    service = SERVICES[name]
    assert (service["read_only"], service["cap_drop"]) == (True, ["ALL"])
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert "environment" not in service, "the login is a secret"
    (port,) = service["ports"]
    assert port.startswith("127.0.0.1:")
    assert service["healthcheck"]["test"][-1].endswith(":8222/healthz")


@pytest.mark.parametrize("name", SERVICES)
def test_whatever_a_server_names_is_there(name: str) -> None:
    service = SERVICES[name]
    mounted = [one["target"] for one in (*service["configs"], *service["secrets"])]
    assert service["command"][service["command"].index("--config") + 1] in mounted
    assert {one["source"] for one in service["configs"]} <= set(DOCUMENT["configs"])
    assert {one["source"] for one in service["secrets"]} <= set(DOCUMENT["secrets"])
    assert [volume.split(":")[0] in DOCUMENT["volumes"] for volume in service["volumes"]] == [True]


def test_the_profiles_start_one_server_or_three_with_a_disk_each() -> None:
    by_profile = {
        profile: [name for name, service in SERVICES.items() if service["profiles"] == [profile]]
        for profile in ("one", "three")
    }
    assert by_profile == {"one": ["nats"], "three": ["nats-1", "nats-2", "nats-3"]}
    for key in ("ports", "volumes"):
        assert len({str(SERVICES[name][key]) for name in by_profile["three"]}) == 3
    routes = DOCUMENT["configs"]["cluster"]["content"]
    assert all(f"nats-route://{name}:6222" in routes for name in by_profile["three"])
    assert {service["command"][-1] for service in SERVICES.values()} == set(SERVICES), "names differ in a cluster"


@pytest.mark.system
@pytest.mark.parametrize("name", ["nats", "nats-1"])
def test_the_server_accepts_the_configuration(tmp_path: Path, name: str) -> None:
    write_configuration(tmp_path, SERVICES[name])
    config = tmp_path / Path(SERVICES[name]["command"][1]).name
    program = Path(sys.executable).with_name("nats-server")
    run = subprocess.run([program, "-t", "-c", config], capture_output=True, text=True, check=False, timeout=60)
    assert "is valid" in run.stderr, run.stderr


@pytest.mark.system
async def test_the_publisher_logs_in_and_needs_no_larger_messages(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_configuration(tmp_path, SERVICES["nats"])
    lines = (tmp_path / "common.conf").read_text().splitlines()
    settings = [line for line in lines if line.startswith(("max_payload", "include"))]
    server = NatsServer(tmp_path, *settings)
    server.start()
    address = server.url.replace("nats://", "nats://discorder:hunter2@")
    publisher = NatsPublisher(address, prefix="discord.7", stream_bytes=1_000_000)
    stranger = NatsPublisher(server.url, prefix="discord.7", stream_bytes=1_000_000)
    try:
        await publisher.open()
        await publisher.publish([event(1)])
        with pytest.raises(ConfigError, match="refused the login"):
            await stranger.open()
        assert "takes messages of at most" not in caplog.text
    finally:
        await publisher.close()
        server.kill()


def write_configuration(folder: Path, service: dict[str, Any]) -> None:
    """Write what the service mounts, with the store in ``folder``."""
    for config in service["configs"]:
        content = DOCUMENT["configs"][config["source"]]["content"].replace("/data", str(folder / "store"))
        (folder / Path(config["target"]).name).write_text(content)
    (folder / "auth.conf").write_text(AUTH)
