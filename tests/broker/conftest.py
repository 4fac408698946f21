"""Brokers for the wire tests: one contract on the embedded broker, on Apache Kafka, and on a container where one runs.

A broker lives as long as the pytest process that started it, and serves all processes of a run (`shared_brokers.py`);
topics are kept apart by a prefix of each test's own.
"""

import asyncio
import inspect
import os
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from shared_brokers import unavailable

from schemas.errors import BrokerUnreachable
from streams.journal.topics import Names
from streams.kafka.connection import Connection


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Run a test that is a coroutine in an event loop of its own."""
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    arguments = {name: pyfuncitem.funcargs[name] for name in inspect.signature(pyfuncitem.obj).parameters}
    asyncio.run(pyfuncitem.obj(**arguments))
    return True


@pytest.fixture(scope="session")
def guarded_broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Apache Kafka with an authorizer, and listeners with SCRAM and mutual TLS (see `broker.guarded`)."""
    from broker.guarded import PASSWORDS, guarded  # noqa: PLC0415 it wants `cryptography`, the other brokers do not

    try:
        with guarded(tmp_path_factory.mktemp("guarded"), PASSWORDS) as node:
            yield node
    except BrokerUnreachable as reason:
        unavailable(f"Apache Kafka from its jars: {reason}")


@pytest.fixture(scope="session")
def container_broker() -> Iterator[Connection]:
    """Apache Kafka in a container; a machine without a Docker daemon skips it, CI included."""
    socket = Path("/var/run/docker.sock")
    if not os.environ.get("DOCKER_HOST") and not socket.exists():
        pytest.skip("Docker daemon unreachable: no socket and no DOCKER_HOST")
    from testcontainers.kafka import KafkaContainer  # noqa: PLC0415 it talks to the daemon when it is made

    try:
        container = KafkaContainer("apache/kafka:4.1.0").start()
    except Exception as reason:  # noqa: BLE001 the client raises whatever its socket does
        pytest.skip(f"Docker daemon unreachable: {reason}")
    try:
        yield Connection(container.get_bootstrap_server())
    finally:
        container.stop()


KINDS = [
    pytest.param("embedded_broker", id="embedded"),
    pytest.param("kafka_broker", id="kafka", marks=pytest.mark.kafka),
    pytest.param("container_broker", id="container", marks=pytest.mark.kafka),
]


@pytest.fixture(params=KINDS)
def broker(request: pytest.FixtureRequest) -> Connection:
    connection: Connection = request.getfixturevalue(request.param)
    return connection


@pytest.fixture
def names() -> Names:
    return Names(f"t{uuid.uuid4().hex[:8]}")
