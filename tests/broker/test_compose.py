"""docker-compose.yml, as far as it can be judged without a daemon."""

import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
COMPOSE = ROOT / "docker-compose.yml"


@pytest.fixture
def services():
    return yaml.safe_load(COMPOSE.read_text())["services"]


def test_kafka_is_a_kraft_node_of_version_4_that_creates_no_topics_by_itself(services):
    kafka = services["kafka"]
    assert kafka["image"].startswith("apache/kafka:4.")
    assert kafka["environment"]["KAFKA_PROCESS_ROLES"] == "broker,controller"
    assert kafka["environment"]["KAFKA_AUTO_CREATE_TOPICS_ENABLE"] == "false"
    assert all(port.startswith("127.0.0.1:") for port in kafka["ports"])


def test_every_listener_that_is_advertised_is_listened_on_and_has_a_protocol(services):
    environment = services["kafka"]["environment"]
    listeners = {entry.split("://")[0] for entry in environment["KAFKA_LISTENERS"].split(",")}
    advertised = dict(entry.split("://") for entry in environment["KAFKA_ADVERTISED_LISTENERS"].split(","))
    protocols = dict(entry.split(":") for entry in environment["KAFKA_LISTENER_SECURITY_PROTOCOL_MAP"].split(","))
    assert set(advertised) < listeners == set(protocols)
    assert services["worker"]["environment"]["HIMARI__KAFKA__BOOTSTRAP_SERVERS"] == advertised["INSIDE"]


def test_the_worker_starts_after_topics_were_laid_on_a_broker_that_answers(services):
    assert services["topics"]["depends_on"] == {"kafka": {"condition": "service_healthy"}}
    assert services["worker"]["depends_on"] == {"topics": {"condition": "service_completed_successfully"}}
    assert "healthcheck" in services["kafka"]


def test_the_image_copies_only_what_is_there():
    lines = (ROOT / "Dockerfile").read_text().splitlines()
    copied = [word for line in lines if line.startswith("COPY ") for word in line.split()[1:-1]]
    assert copied
    assert [name for name in copied if not (ROOT / name).exists()] == []
    ignored = (ROOT / ".dockerignore").read_text().split()
    assert [name for name in copied if f"!{name}" not in ignored] == []


def test_docker_itself_accepts_the_file():
    docker = shutil.which("docker")
    if docker is None or subprocess.run([docker, "compose", "version"], capture_output=True, check=False).returncode:
        pytest.skip("docker compose is not installed: the file was read as YAML only")
    done = subprocess.run(
        [docker, "compose", "-f", str(COMPOSE), "config", "-q"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
