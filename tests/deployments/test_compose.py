"""docker/compose.yaml hangs together; test_postgres.py runs its server, without containers."""

import re
from typing import Any

import pytest
import yaml

from deployments.local.state import WORKERS
from tests.conftest import REPOSITORY


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((REPOSITORY / "docker/compose.yaml").read_text(encoding="utf-8"))
    return loaded


def test_services_wait_for_what_they_need(compose: dict[str, Any]) -> None:
    services = compose["services"]
    assert set(services) == {
        *("postgres", "redis", "migrate", "server", "services", "setup"),
        *WORKERS,
    }
    for name, service in services.items():
        for other, condition in service.get("depends_on", {}).items():
            needed = "healthcheck" if condition["condition"] == "service_healthy" else "command"
            assert needed in services[other], f"{name} waits for {other}, which has no {needed}"


def test_server_keeps_nothing_in_memory_and_asks_for_credentials(compose: dict[str, Any]) -> None:
    for name in ("server", "services"):
        environment = compose["services"][name]["environment"]
        assert environment["PREFECT_SERVER_DATABASE_CONNECTION_URL"].startswith("postgresql+asyncpg://")
        assert "SPACEPORT_AUTH" in environment["PREFECT_SERVER_API_AUTH_STRING"]
        assert not [value for value in environment.values() if "memory" in value]
    assert "--no-services" in compose["services"]["server"]["command"]
    assert [port.split(":")[0] for port in compose["services"]["server"]["ports"]] == ["127.0.0.1"]


def test_images_have_versions_and_volumes_are_declared(compose: dict[str, Any]) -> None:
    for name, service in compose["services"].items():
        assert re.search(r":\d+\.\d+", service["image"]), f"{name}: {service['image']}"
        for volume in service.get("volumes", []):
            assert volume.split(":")[0] in compose["volumes"]


def test_nothing_can_be_written_to_but_volumes_and_nobody_gets_more_rights(compose: dict[str, Any]) -> None:
    for name, service in compose["services"].items():
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert not {"privileged", "cap_add", "network_mode", "pid"} & set(service), name
    for name in ("postgres", "redis"):  # their images begin as root, and then could not change to their user
        assert compose["services"][name]["user"] == name
    for name, service in compose["services"].items():
        if service["image"].startswith("spaceport:"):
            writable = {*service["tmpfs"], *(volume.split(":")[1] for volume in service.get("volumes", []))}
            assert writable == {"/tmp", "/var/lib/spaceport"}, name


def test_the_images_declare_what_is_written_to() -> None:
    """A volume of ECS belongs to root where the image does not declare it."""
    for kind in ("cpu", "gpu"):
        text = (REPOSITORY / f"docker/{kind}.Dockerfile").read_text(encoding="utf-8")
        [declared] = re.findall(r"^VOLUME (.*)$", text, re.MULTILINE)
        assert yaml.safe_load(declared) == ["/tmp", "/scratch", "/var/lib/spaceport"]


def test_the_example_names_every_variable(compose: dict[str, Any]) -> None:
    asked = set(re.findall(r"\$\{(\w+)", (REPOSITORY / "docker/compose.yaml").read_text(encoding="utf-8")))
    example = (REPOSITORY / "docker/env.example").read_text(encoding="utf-8")
    assert asked == set(re.findall(r"^(\w+)=", example, re.MULTILINE))
