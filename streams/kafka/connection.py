"""How to reach a broker: one value, from which every client takes its options.

The two brokers differ in what they can do; `ask` finds out by asking, so that nobody has to say which one it is.
"""

import asyncio
import struct
from collections.abc import Mapping
from contextlib import suppress
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol

from aiokafka.errors import KafkaConnectionError

from schemas.errors import BrokerUnreachable

API_METADATA = 3
API_CREATE_PARTITIONS = 37
"""Every Apache Kafka since 1.0 has it, the embedded broker has not."""

REACH_TIMEOUT_S = 10.0
NO_SECURITY: Mapping[str, Any] = MappingProxyType({})


class Connection(NamedTuple):
    """Where the broker is and how to log in."""

    bootstrap: str
    """HOST:PORT, several separated by commas."""
    security: Mapping[str, Any] = NO_SECURITY
    """aiokafka's own words: security_protocol, ssl_context, sasl_mechanism, sasl_plain_username, …"""

    def options(self) -> dict[str, Any]:
        """Return the arguments that every aiokafka client takes."""
        return {"bootstrap_servers": self.bootstrap.split(","), **self.security}


class Startable(Protocol):
    """What consumers, producers and the admin client of aiokafka share."""

    async def start(self) -> None:
        """Connect, or raise KafkaConnectionError."""


async def reach(client: Startable, bootstrap: str, timeout_s: float = REACH_TIMEOUT_S) -> None:
    """Start an aiokafka client, again until the broker answers.

    Raises:
        BrokerUnreachable: nothing answered within `timeout_s`.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + timeout_s
    while True:
        try:
            return await client.start()
        except (KafkaConnectionError, OSError) as error:
            if loop.time() >= deadline:
                raise unreachable(bootstrap, timeout_s) from error
            await asyncio.sleep(0.1)


def unreachable(bootstrap: str, timeout_s: float) -> BrokerUnreachable:
    """Return the error that names the broker that did not answer."""
    return BrokerUnreachable(f"kafka.bootstrap_servers {bootstrap}: no Kafka broker answered within {timeout_s:g} s")


async def is_embedded(client: Any) -> bool:
    """Return whether a started aiokafka client talks to a broker that lacks what Apache Kafka has.

    Such a broker takes no idempotent producer, has no topic settings, and cannot add partitions.
    """
    node = client.get_random_node()
    connection = await client._get_conn(node)  # noqa: SLF001 aiokafka shows its table of API versions nowhere else
    return API_CREATE_PARTITIONS not in connection._versions  # noqa: SLF001


async def listens(connection: Connection) -> bool:
    """Return whether any broker of a connection takes a connection now, secured or not."""
    for server in connection.bootstrap.split(","):
        host, _, port = server.rpartition(":")
        with suppress(OSError, TimeoutError):
            _, writer = await asyncio.wait_for(asyncio.open_connection(host, int(port)), 1.0)
            writer.close()
            return True
    return False


async def answers(host: str, port: int) -> bool:
    """Return whether a plain-text broker there is ready: it names itself among the brokers of its cluster."""
    try:
        reply = await asyncio.wait_for(_metadata(host, port), 1.0)
    except (OSError, asyncio.IncompleteReadError, TimeoutError):
        return False
    (brokers,) = struct.unpack_from(">i", reply, 4)
    return bool(brokers > 0)


async def _metadata(host: str, port: int) -> bytes:
    """Ask for the metadata of no topic, Kafka protocol version 1; return correlation id and body."""
    reader, writer = await asyncio.open_connection(host, port)
    try:
        request = struct.pack(">hhihi", API_METADATA, 1, 0, -1, 0)
        writer.write(struct.pack(">i", len(request)) + request)
        (length,) = struct.unpack(">i", await reader.readexactly(4))
        return await reader.readexactly(length)
    finally:
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()
