"""An Apache Kafka that lets nobody do what no ACL allows, on listeners of every kind, good ones and bad ones."""

from collections.abc import Iterable
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import NamedTuple

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.protocol.admin import CreateAclsRequest
from broker.cluster import Cluster
from certificates import Authority, Pair

from config.settings import Settings
from streams.journal.topics import Names
from streams.kafka import broker as brokers
from streams.kafka.acls import ROLES, lines
from streams.kafka.apache_kafka import apache_kafka
from streams.kafka.connection import Connection
from streams.kafka.login import connect

TOPIC, GROUP = 2, 3
LITERAL, PREFIXED = 3, 4
READ, WRITE = 3, 4
OPERATIONS = {"Read": READ, "Write": WRITE, "DescribeConfigs": 10}
ALLOW = 3

PASSWORDS = {name: f"{name}-Xyzzy-1984" for name in ROLES}
KEY_PASSWORD = "Plugh-1977"
LISTENERS = ("SCRAM", "MUTUAL", "EXPIRED", "ELSEWHERE")
PROPERTIES = """
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,SCRAM:SASL_SSL,MUTUAL:SSL,EXPIRED:SSL,ELSEWHERE:SSL
inter.broker.listener.name=PLAINTEXT
sasl.enabled.mechanisms=SCRAM-SHA-256,SCRAM-SHA-512
authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer
super.users=User:ANONYMOUS
listener.name.scram.scram-sha-256.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;
listener.name.scram.scram-sha-512.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;
listener.name.mutual.ssl.client.auth=required
listener.name.mutual.ssl.principal.mapping.rules=RULE:^CN=([^,]+)$/$1/,DEFAULT
"""
"""Whoever comes by the plain listener is the operator of the cluster."""


class Guarded(NamedTuple):
    """A running node."""

    plain: Connection
    servers: dict[str, str]
    """Listener → HOST:PORT."""
    authority: Authority
    folder: Path

    def client(self, name: str, **given: object) -> Pair:
        return self.authority.vouch(name, **given)

    async def allow(self, user: str, *rights: "Right") -> None:
        await allow(self.plain, user, rights)


class Right(NamedTuple):
    """What `kafka-acls --add` is told."""

    resource: int
    name: str
    operation: int
    pattern: int = LITERAL


async def allow(connection: Connection, user: str, rights: Iterable[Right]) -> None:
    """Do what `kafka-acls --add --allow-principal` does."""
    admin = AIOKafkaAdminClient(**connection.options())
    await admin.start()
    try:
        for right in rights:
            fields = (right.resource, right.name, right.pattern, f"User:{user}", "*", right.operation, ALLOW)
            answer = await admin._send_to_controller(CreateAclsRequest(*fields))
            assert [code for code, _ in answer.creation_responses] == [0]
    finally:
        await admin.close()


@contextmanager
def guarded(folder: Path, passwords: dict[str, str]):
    """Run a node whose users have these passwords; each listener shows a certificate of its own."""
    authority = Authority(folder)
    shown = {
        "SCRAM": authority.vouch("scram"),
        "MUTUAL": authority.vouch("mutual"),
        "EXPIRED": authority.vouch("expired", ends=timedelta(hours=-1)),
        "ELSEWHERE": authority.vouch("elsewhere", host="192.0.2.1"),
    }
    servers = {name: f"{brokers.HOST}:{brokers.free_port()}" for name in LISTENERS}
    node = apache_kafka(
        folder,
        listeners="".join(f",{name}://{server}" for name, server in servers.items()),
        more=PROPERTIES + "".join(_keystore(folder, name, pair, authority) for name, pair in shown.items()),
        passwords=passwords,
    )
    with brokers.running(node):
        yield Guarded(Connection(node.bootstrap), servers, authority, folder)


def _keystore(folder: Path, listener: str, pair: Pair, authority: Authority) -> str:
    store = folder / f"{listener.lower()}-store.pem"
    store.write_bytes(pair.key.read_bytes() + pair.certificate.read_bytes())
    head = f"listener.name.{listener.lower()}.ssl"
    return (
        f"{head}.keystore.type=PEM\n{head}.keystore.location={store}\n"
        f"{head}.truststore.type=PEM\n{head}.truststore.location={authority.file}\n"
    )


def rights_of(names: Names, role: str) -> list[Right]:
    """Return what `himari topics rights` gives to a role, read from the commands that it prints."""
    rights = []
    for line in lines(names, role, "User:x", "b:1"):
        words = line.split()
        operation = OPERATIONS[words[words.index("--operation") + 1]]
        for flag, resource in (("--topic", TOPIC), ("--group", GROUP)):
            rights += [Right(resource, words[at + 1], operation) for at, word in enumerate(words) if word == flag]
    return rights


def scram(node: Guarded, user: str, _folder: Path, mechanism: str = "SCRAM-SHA-512"):
    """Return the listener, kafka.security and environment of a user who has a password."""
    security = {"protocol": "SASL_SSL", "ca_file": str(node.authority.file), "username": user, "mechanism": mechanism}
    return "SCRAM", {**security, "password_env": "KAFKA_PASSWORD"}, {"KAFKA_PASSWORD": PASSWORDS[user]}


def mutual(node: Guarded, user: str, folder: Path):
    """Return the same of one who has a certificate; its key is encrypted, its password in a file."""
    pair = node.authority.vouch(user, password=KEY_PASSWORD)
    (folder / "key-password").write_text(f"{KEY_PASSWORD}\n")
    files = {"certificate_file": str(pair.certificate), "key_file": str(pair.key)}
    secret = {"key_password_file": str(folder / "key-password")}
    return "MUTUAL", {"protocol": "SSL", "ca_file": str(node.authority.file), **files, **secret}, {}


def member(node: Guarded, way, user: str, names: Names, folder: Path) -> Cluster:
    """Return the product as one user sees it."""
    home = folder / user
    home.mkdir()
    listener, security, environment = way(node, user, home)
    kafka = {"bootstrap_servers": node.servers[listener], "security": security}
    connection = connect(Settings.model_validate({"kafka": kafka}), environment)
    return Cluster(connection, names, home, security, environment)
