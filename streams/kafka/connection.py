"""The connection to a broker: one value with the options of every client.

The two brokers differ in their features; `is_embedded` detects which one it is, so that no setting has to say it.
"""

import asyncio
import ssl
import struct
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol

from aiokafka.conn import create_conn
from aiokafka.errors import (
    AuthenticationFailedError,
    ClusterAuthorizationFailedError,
    GroupAuthorizationFailedError,
    KafkaConnectionError,
    KafkaError,
    SaslAuthenticationFailed,
    TopicAuthorizationFailedError,
    UnsupportedSaslMechanismError,
)

from schemas.errors import BrokerUnreachable, BrokerUntrusted, LoginRefused, NotAllowed, SizingError
from streams.kafka import aiokafka_patches

API_METADATA = 3
API_VERSIONS = 18
API_CREATE_PARTITIONS = 37
"""Supported by Apache Kafka since 1.0, not by the embedded broker."""

_METADATA = struct.pack(">hhihi", API_METADATA, 1, 0, -1, 0)
"""Request for no topic, version 1."""
_API_VERSIONS = struct.pack(">hhih", API_VERSIONS, 0, 0, -1)

REFUSALS = (TopicAuthorizationFailedError, GroupAuthorizationFailedError, ClusterAuthorizationFailedError)
READ_COMMITTED = "read_committed"
"""Isolation level of every consumer: no record of an aborted or open transaction is read."""
REACH_TIMEOUT_S = 10.0
PROBE_TIMEOUT_S = 3.0
_PLACE = "kafka.bootstrap_servers"
NO_SECURITY: Mapping[str, Any] = MappingProxyType({})

aiokafka_patches.tolerate()


class Connection(NamedTuple):
    """Address of the broker, and login."""

    bootstrap: str
    """HOST:PORT, several separated by commas."""
    security: Mapping[str, Any] = NO_SECURITY
    """By aiokafka's names: security_protocol, ssl_context, sasl_mechanism, sasl_plain_username, …"""

    def options(self) -> dict[str, Any]:
        """Return the arguments for any aiokafka client."""
        return {"bootstrap_servers": self.bootstrap.split(","), **self.security}

    def reading(self) -> dict[str, Any]:
        """Return the arguments for any aiokafka consumer: of transactions it sees what is committed, in order."""
        return {**self.options(), "isolation_level": READ_COMMITTED, "enable_auto_commit": False}

    def __repr__(self) -> str:
        """Return it without the login."""
        return f"Connection({self.bootstrap})"


class Startable(Protocol):
    """The common part of aiokafka's consumers, producers and admin client."""

    async def start(self) -> None:
        """Connect, or raise KafkaConnectionError."""


async def reach(client: Startable, connection: Connection, timeout_s: float = REACH_TIMEOUT_S) -> None:
    """Start an aiokafka client; retry until the broker answers.

    Raises:
        BrokerUnreachable: nothing answered within `timeout_s`.
        BrokerUntrusted, LoginRefused: the broker's certificate is not trusted, or authentication failed.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + timeout_s
    while True:
        try:
            return await client.start()
        except (KafkaConnectionError, OSError) as error:
            await refuse(connection)
            if loop.time() >= deadline:
                raise await _failure(connection, timeout_s) from error
            await asyncio.sleep(0.1)


async def _failure(connection: Connection, timeout_s: float) -> BrokerUnreachable:
    """Return why no broker answered: its host has no address, the port speaks another protocol, or nothing is there."""
    servers = connection.bootstrap.split(",")
    unknown = [server for server in servers if not await _resolves(server.rpartition(":")[0])]
    if len(unknown) == len(servers):
        return BrokerUnreachable(f"{_PLACE} {connection.bootstrap}: the host name cannot be resolved to an address")
    protocol = connection.security.get("security_protocol", "PLAINTEXT")
    hint = f"; the port is open: is {protocol} correct (kafka.security.protocol)?"
    return unreachable(connection.bootstrap, timeout_s, hint if await listens(connection) else "")


async def _resolves(host: str) -> bool:
    try:
        await asyncio.get_running_loop().getaddrinfo(host.strip("[]"), None)
    except OSError:
        return False
    return True


@contextmanager
def allowed(what: str, topic: str = "") -> Iterator[None]:
    """Report in one line that the broker's ACLs forbid the operation of the block; `what`: "read", "write".

    Raises:
        NotAllowed: the broker refused.
    """
    try:
        yield
    except REFUSALS as error:
        raise refusal(error, what, topic) or error from error


def refusal(error: BaseException, what: str = "access", topic: str = "") -> NotAllowed | None:
    """Return the one-line error if the broker's ACLs forbid something, else None."""
    if not isinstance(error, REFUSALS):
        return None
    name = topic or ", ".join(map(str, error.args)) or "a topic"
    return NotAllowed(f"{name}: the broker denies this user: {what} (ACLs: himari topics rights)")


def unreachable(bootstrap: str, timeout_s: float, hint: str = "") -> BrokerUnreachable:
    """Return the error that names the broker that did not answer."""
    return BrokerUnreachable(f"{_PLACE} {bootstrap}: no Kafka broker answered within {timeout_s:g} s{hint}")


async def is_embedded(client: Any) -> bool:
    """Return whether a started aiokafka client is connected to the embedded broker.

    It supports no idempotent producer, no topic settings, and no additional partitions.
    """
    node = client.get_random_node()
    connection = await client._get_conn(node)  # noqa: SLF001 aiokafka has no public table of API versions
    return API_CREATE_PARTITIONS not in connection._versions  # noqa: SLF001


async def listens(connection: Connection) -> bool:
    """Return whether any broker of a connection accepts TCP connections now."""
    for server in connection.bootstrap.split(","):
        host, _, port = server.rpartition(":")
        with suppress(OSError, TimeoutError):
            _, writer = await asyncio.wait_for(asyncio.open_connection(host, int(port)), 1.0)
            writer.close()
            return True
    return False


async def answers(host: str, port: int) -> bool:
    """Return whether a plain-text broker is ready there: its metadata lists at least one broker."""
    try:
        reply = await asyncio.wait_for(_asked(host, port, _METADATA), 1.0)
    except (OSError, asyncio.IncompleteReadError, TimeoutError):
        return False
    (brokers,) = struct.unpack_from(">i", reply, 4)
    return bool(brokers > 0)


# -- why a reachable broker cannot be used ---------------------------------------------------------------------------
async def refuse(connection: Connection) -> None:
    """Return if TLS and authentication do not fail: the broker is down, or accepts the login.

    aiokafka only logs why it could not connect, so this connects itself to find the reason.

    Raises:
        BrokerUntrusted: the broker's certificate is not trusted.
        LoginRefused: authentication failed.
    """
    context = connection.security.get("ssl_context")
    if context is None:
        return
    for server in connection.bootstrap.split(","):
        host, _, port = server.rpartition(":")
        try:
            await asyncio.wait_for(_asked(host, int(port), _API_VERSIONS, context), PROBE_TIMEOUT_S)
            await _log_in(connection, host, int(port))
        except ssl.SSLCertVerificationError as error:
            raise BrokerUntrusted(
                f"{_PLACE} {server}: broker certificate not trusted: {error.verify_message}"
            ) from error
        except ssl.SSLError as error:
            raise _alerted(server, error) from error
        except (SaslAuthenticationFailed, AuthenticationFailedError, UnsupportedSaslMechanismError) as error:
            user, mechanism = connection.security["sasl_plain_username"], connection.security["sasl_mechanism"]
            why = "wrong user or password, or no such mechanism"
            failure = f"{_PLACE} {server}: authentication of {user} with {mechanism} failed: {why}"
            raise LoginRefused(failure) from error
        except (OSError, KafkaError, asyncio.IncompleteReadError, TimeoutError):
            continue


def _alerted(server: str, error: ssl.SSLError) -> SizingError:
    """Return the error that a TLS alert means."""
    reason = (error.reason or str(error)).lower()
    if "wrong_version" in reason or "record_layer" in reason or "http" in reason:
        return BrokerUntrusted(f"{_PLACE} {server}: the port does not use TLS (kafka.security.protocol)")
    rule = "client certificate refused or missing (kafka.security.certificate_file)"
    return LoginRefused(f"{_PLACE} {server}: {rule}: {reason.replace('_', ' ')}")


async def _log_in(connection: Connection, host: str, port: int) -> None:
    """Log in with SASL as a client does, and disconnect."""
    if "sasl_mechanism" in connection.security:
        client = await create_conn(host, port, request_timeout_ms=int(PROBE_TIMEOUT_S * 1000), **connection.security)
        client.close()


async def _asked(host: str, port: int, body: bytes, context: ssl.SSLContext | None = None) -> bytes:
    """Send one request; return correlation id and body of the answer.

    A broker that refuses the certificate sends an alert instead of the first answer (TLS 1.3).
    """
    reader, writer = await asyncio.open_connection(host, port, ssl=context)
    try:
        writer.write(struct.pack(">i", len(body)) + body)
        (length,) = struct.unpack(">i", await reader.readexactly(4))
        return await reader.readexactly(length)
    finally:
        writer.close()
        with suppress(OSError, TimeoutError):
            await writer.wait_closed()
