"""Who may order: ACLs of Apache Kafka's own authorizer, as docs/operating.md gives them."""

import time
from pathlib import Path

import pytest
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.protocol.admin import CreateAclsRequest
from broker.cluster import Cluster
from broker.conftest import unavailable

from schemas.errors import BrokerUnreachable, NotAllowed, TopicsUnfit
from streams.control import trading_order
from streams.kafka import broker as brokers
from streams.kafka import dead_letters, orders
from streams.kafka.connection import Connection
from streams.kafka.jars import apache_kafka
from streams.ports import Send
from streams.topics import Names

pytestmark = [pytest.mark.broker, pytest.mark.kafka]

USERS = ("ops", "desk", "stranger")
SECURED = """
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,USERS:SASL_PLAINTEXT
inter.broker.listener.name=PLAINTEXT
sasl.enabled.mechanisms=PLAIN
listener.name.users.plain.sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule required {users};
authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer
super.users=User:ANONYMOUS
"""
"""Users log in on a listener of their own; whoever comes by the other one is the operator of the cluster."""

TOPIC, LITERAL, PREFIXED, READ, WRITE, ALLOW = 2, 3, 4, 3, 4, 3


@pytest.fixture(scope="module")
def guarded(tmp_path_factory):
    """Give an Apache Kafka with an authorizer: the plain connection, and one by user."""
    folder: Path = tmp_path_factory.mktemp("guarded")
    try:
        node = apache_kafka(folder)
    except BrokerUnreachable as reason:
        unavailable(f"Apache Kafka from its jars: {reason}")
    port = brokers.free_port()
    properties = folder / "server.properties"
    plain = f"listeners=PLAINTEXT://{node.bootstrap}"
    text = properties.read_text().replace(plain, f"{plain},USERS://{brokers.HOST}:{port}")
    users = " ".join(f'user_{name}="{name}-secret"' for name in USERS)
    properties.write_text(text + SECURED.format(users=users))
    with brokers.running(node):
        yield Connection(node.bootstrap), {name: login(name, f"{brokers.HOST}:{port}") for name in USERS}


def login(name: str, bootstrap: str) -> Connection:
    security = {"security_protocol": "SASL_PLAINTEXT", "sasl_mechanism": "PLAIN"}
    return Connection(bootstrap, {**security, "sasl_plain_username": name, "sasl_plain_password": f"{name}-secret"})


async def allow(connection: Connection, user: str, operation: int, topic: str, pattern: int = LITERAL) -> None:
    """Do what kafka-acls --add --allow-principal does."""
    admin = AIOKafkaAdminClient(**connection.options())
    await admin.start()
    try:
        request = CreateAclsRequest(TOPIC, topic, pattern, f"User:{user}", "*", operation, ALLOW)
        answer = await admin._send_to_controller(request)
        assert [code for code, _ in answer.creation_responses] == [0]
    finally:
        await admin.close()


async def test_only_who_may_write_control_may_halt_and_that_lets_nobody_write_the_journal(guarded, tmp_path):
    plain, by_user = guarded
    names = Names("himari")
    cluster = Cluster(plain, names, tmp_path)
    await cluster.lay()
    await allow(plain, "ops", WRITE, names.topic("control"))
    await allow(plain, "ops", READ, "himari", PREFIXED)
    await allow(plain, "desk", WRITE, names.topic("signals"))
    await allow(plain, "desk", READ, "himari", PREFIXED)

    def order():
        return trading_order("halt", "all", "a trial", "ops", time.time_ns())

    for user, error in (("desk", NotAllowed), ("stranger", TopicsUnfit)):
        with pytest.raises(error, match="control"):
            await orders.give(by_user[user], names, order())
    with pytest.raises(TopicsUnfit, match=r"journal\.v1: no such topic on .* \(or its ACLs hide it from this user\)"):
        await orders.give_and_wait(by_user["stranger"], names, order(), 1)
    assert await cluster.records("control") == []
    async with cluster.worker():
        answers, missing = await orders.give_and_wait(by_user["ops"], names, order(), 60)
    assert (answers, missing) == ({0: "applied", 1: "applied"}, [])
    assert len(await cluster.records("control")) == 1
    forged = Send("journal", 0, None, b"{}")
    for user in USERS:
        with pytest.raises(NotAllowed, match=r"journal\.v1: the broker does not let this user write; 0 of 1 were sent"):
            await dead_letters.send_back(by_user[user], names, [forged])
    with pytest.raises(NotAllowed, match="signals"):
        await dead_letters.send_back(by_user["ops"], names, [Send("signals", 0, None, b"{}")])
    await dead_letters.send_back(by_user["desk"], names, [Send("signals", 0, None, b"{}")])
    assert (await cluster.verify()).ok
