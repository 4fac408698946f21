"""How to reach a broker: one value, from which every client takes its options.

The two brokers differ in what they can do; `ask` finds out by asking, so that nobody has to say which one it is.
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
"""Every Apache Kafka since 1.0 has it, the embedded broker has not."""

_METADATA = struct.pack(">hhihi", API_METADATA, 1, 0, -1, 0)
"""Asks for no topic, version 1."""
_API_VERSIONS = struct.pack(">hhih", API_VERSIONS, 0, 0, -1)

REFUSALS = (TopicAuthorizationFailedError, GroupAuthorizationFailedError, ClusterAuthorizationFailedError)
REACH_TIMEOUT_S = 10.0
KNOCK_TIMEOUT_S = 3.0
_PLACE = "kafka.bootstrap_servers"
NO_SECURITY: Mapping[str, Any] = MappingProxyType({})

aiokafka_patches.tolerate()


class Connection(NamedTuple):
    """Where the broker is and how to log in."""

    bootstrap: str
    """HOST:PORT, several separated by commas."""
    security: Mapping[str, Any] = NO_SECURITY
    """aiokafka's own words: security_protocol, ssl_context, sasl_mechanism, sasl_plain_username, …"""

    def options(self) -> dict[str, Any]:
        """Return the arguments that every aiokafka client takes."""
        return {"bootstrap_servers": self.bootstrap.split(","), **self.security}

    def __repr__(self) -> str:
        """Show where it leads, and nothing of the login."""
        return f"Connection({self.bootstrap})"


class Startable(Protocol):
    """What consumers, producers and the admin client of aiokafka share."""

    async def start(self) -> None:
        """Connect, or raise KafkaConnectionError."""


async def reach(client: Startable, connection: Connection, timeout_s: float = REACH_TIMEOUT_S) -> None:
    """Start an aiokafka client, again until the broker answers.

    Raises:
        BrokerUnreachable: nothing answered within `timeout_s`.
        BrokerUntrusted, LoginRefused: something answers, but it or we are not believed.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + timeout_s
    while True:
        try:
            return await client.start()
        except (KafkaConnectionError, OSError) as error:
            await refuse(connection)
            if loop.time() >= deadline:
                protocol = connection.security.get("security_protocol", "PLAINTEXT")
                hint = f"; somebody listens: is {protocol} right (kafka.security.protocol)?"
                told = unreachable(connection.bootstrap, timeout_s, hint if await listens(connection) else "")
                raise told from error
            await asyncio.sleep(0.1)


@contextmanager
def allowed(what: str, topic: str = "") -> Iterator[None]:
    """Say in a line that the broker's ACLs forbid what is done inside: to read, to write.

    Raises:
        NotAllowed: the broker refused.
    """
    try:
        yield
    except REFUSALS as error:
        raise refusal(error, what, topic) or error from error


def refusal(error: BaseException, what: str = "do that", topic: str = "") -> NotAllowed | None:
    """Return what an error says in a line, where it is that the broker's ACLs forbid something."""
    if not isinstance(error, REFUSALS):
        return None
    name = topic or ", ".join(map(str, error.args)) or "a topic"
    return NotAllowed(f"{name}: the broker does not let this user {what} (ACLs: himari topics rights)")


def unreachable(bootstrap: str, timeout_s: float, hint: str = "") -> BrokerUnreachable:
    """Return the error that names the broker that did not answer."""
    return BrokerUnreachable(f"{_PLACE} {bootstrap}: no Kafka broker answered within {timeout_s:g} s{hint}")


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
        reply = await asyncio.wait_for(_asked(host, port, _METADATA), 1.0)
    except (OSError, asyncio.IncompleteReadError, TimeoutError):
        return False
    (brokers,) = struct.unpack_from(">i", reply, 4)
    return bool(brokers > 0)


# -- why a broker that is there cannot be used -----------------------------------------------------------------------
async def refuse(connection: Connection) -> None:
    """Return if nothing speaks against the login: the broker is not there, or it will do.

    aiokafka only logs why it could not connect; so we knock ourselves and listen.

    Raises:
        BrokerUntrusted: it cannot show that it is the broker that was named.
        LoginRefused: it does not believe who we are.
    """
    context = connection.security.get("ssl_context")
    if context is None:
        return
    for server in connection.bootstrap.split(","):
        host, _, port = server.rpartition(":")
        try:
            await asyncio.wait_for(_asked(host, int(port), _API_VERSIONS, context), KNOCK_TIMEOUT_S)
            await _log_in(connection, host, int(port))
        except ssl.SSLCertVerificationError as error:
            raise BrokerUntrusted(f"{_PLACE} {server}: its certificate is refused: {error.verify_message}") from error
        except ssl.SSLError as error:
            raise _alerted(server, error) from error
        except (SaslAuthenticationFailed, AuthenticationFailedError, UnsupportedSaslMechanismError) as error:
            user, mechanism = connection.security["sasl_plain_username"], connection.security["sasl_mechanism"]
            told = (
                f"{_PLACE} {server}: the broker refuses {user} by {mechanism}: wrong user or password, or no such way"
            )
            raise LoginRefused(told) from error
        except (OSError, KafkaError, asyncio.IncompleteReadError, TimeoutError):
            continue


def _alerted(server: str, error: ssl.SSLError) -> SizingError:
    """Return what an alert of TLS means."""
    reason = (error.reason or str(error)).lower()
    if "wrong_version" in reason or "record_layer" in reason or "http" in reason:
        return BrokerUntrusted(f"{_PLACE} {server}: no TLS is spoken there (kafka.security.protocol)")
    told = "the broker refuses our certificate (kafka.security.certificate_file), or that there is none"
    return LoginRefused(f"{_PLACE} {server}: {told}: {reason.replace('_', ' ')}")


async def _log_in(connection: Connection, host: str, port: int) -> None:
    """Log in by SASL as every client does, and hang up."""
    if "sasl_mechanism" in connection.security:
        client = await create_conn(host, port, request_timeout_ms=int(KNOCK_TIMEOUT_S * 1000), **connection.security)
        client.close()


async def _asked(host: str, port: int, body: bytes, context: ssl.SSLContext | None = None) -> bytes:
    """Send one request; return correlation id and body of the answer.

    A broker that does not take a certificate says so in place of the first answer (TLS 1.3).
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
