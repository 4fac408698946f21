"""Who may what: each role of `himari topics rights` tried, topic by topic, on Apache Kafka's own authorizer.

The table is the oracle: written by hand, not read from `streams/kafka/acls.py`. What is not allowed is said at once.
"""

import asyncio
import re
import time

import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition
from broker.cluster import Cluster
from broker.guarded import GROUP, READ, WRITE, Right, member, mutual, rights_of

from schemas.errors import NotAllowed, TopicsUnfit, Unheard
from streams.journal.topics import Names
from streams.kafka import admin, dead_letters, orders, read, sources
from streams.kafka.acls import ROLES
from streams.kafka.connection import allowed, reach
from streams.kafka.read import APPEAR_S
from streams.processing.ports import Send
from streams.stages.control import trading_order

pytestmark = [pytest.mark.broker, pytest.mark.kafka]

READS = {
    "worker": "signals prices outcomes control journal allocations alerts rl-requests progress-changelog",
    "publisher": "",
    "feed": "",
    "desk": "",
    "reader": "allocations alerts",
    "operator": "journal signals.dlq allocations alerts progress-changelog",
    "auditor": "signals prices outcomes control journal signals.dlq allocations alerts progress-changelog",
}
WRITES = {
    "worker": "control journal signals.dlq allocations alerts rl-requests progress-changelog",
    "publisher": "signals",
    "feed": "prices",
    "desk": "outcomes",
    "reader": "",
    "operator": "control",
    "auditor": "",
}
INPUTS = ("signals", "prices", "outcomes", "control")
TOPICS = (*INPUTS, "journal", "signals.dlq", "allocations", "alerts", "rl-requests", "progress-changelog")


def broker_name(names, topic):
    return names.changelog("progress") if topic == "progress-changelog" else names.topic(topic)


async def reads(cluster, names, topic):
    """Return what comes of reading a topic: yes, refused, or hidden."""
    try:
        places = await read.places(cluster.connection, broker_name(names, topic))
        async for _ in read.records(cluster.connection, places[0], 0, 1):
            pass
    except NotAllowed:
        return "refused"
    except TopicsUnfit:
        return "hidden"
    return "yes"


async def writes(cluster, topic):
    """Return what comes of writing to a topic: yes, or refused."""
    try:
        await dead_letters.send_back(cluster.connection, cluster.names, [Send(topic, 0, None, b"{}")])
    except NotAllowed:
        return "refused"
    return "yes"


async def takes_part(cluster):
    """Return whether a user may be a member of the workers' group: who may, can take their partitions away."""
    consumer = AIOKafkaConsumer(**cluster.connection.options(), group_id=cluster.names.application)
    try:
        await reach(consumer, cluster.connection)
        with allowed("take part"):
            await consumer.committed(TopicPartition(cluster.names.topic("signals"), 0))
    except NotAllowed:
        return False
    finally:
        await consumer.stop()
    return True


def rows_of(table):
    return {role: set(text.split()) for role, text in table.items()}


async def test_each_role_can_do_what_its_row_says_and_nothing_else(guarded_broker, names, tmp_path):
    await Cluster(guarded_broker.plain, names, tmp_path).lay()
    assert READS.keys() == WRITES.keys() == ROLES.keys()
    turns = asyncio.Semaphore(4)

    async def in_turn(work):
        async with turns:
            return await work

    may_read, may_write = rows_of(READS), rows_of(WRITES)
    for role in ROLES:
        await guarded_broker.allow(role, *rights_of(names, role))
        user = member(guarded_broker, mutual, role, names, tmp_path)
        found = await asyncio.gather(*(in_turn(reads(user, names, topic)) for topic in TOPICS))
        sees = may_read[role] | may_write[role]
        expected = ["yes" if t in may_read[role] else "refused" if t in sees else "hidden" for t in TOPICS]
        assert dict(zip(TOPICS, found, strict=True)) == dict(zip(TOPICS, expected, strict=True)), role
        topics = [topic for topic in TOPICS if topic != "progress-changelog"]
        found = await asyncio.gather(*(in_turn(writes(user, topic)) for topic in topics))
        wrote = {topic for topic, said in zip(topics, found, strict=True) if said == "yes"}
        assert wrote == may_write[role] & set(topics), role
        assert await takes_part(user) is (role == "worker")
        with pytest.raises(NotAllowed, match="create"):
            await admin.apply(user.connection, Names(f"{names.prefix}-own"), 1)
    for user, error in (("auditor", NotAllowed), ("stranger", TopicsUnfit)):
        folder = tmp_path / f"adopt-{user}"
        folder.mkdir()
        way = member(guarded_broker, mutual, user, names, folder).connection
        with pytest.raises(error, match=r"denies this user: join|its ACLs hide it"):
            await sources._commit_beginning(way, names, "signals")


async def test_an_order_that_may_not_be_given_is_not_given(guarded_broker, names, tmp_path):
    plain = Cluster(guarded_broker.plain, names, tmp_path)
    await plain.lay()
    for role in ("operator", "publisher"):
        await guarded_broker.allow(role, *rights_of(names, role))
    users = {
        name: member(guarded_broker, mutual, name, names, tmp_path) for name in ("operator", "publisher", "nobody")
    }
    order = trading_order("halt", "all", "a trial", "ops", time.time_ns())
    await guarded_broker.allow("publisher", Right(2, names.topic("control"), READ))
    for user, error in (("publisher", NotAllowed), ("nobody", TopicsUnfit)):
        with pytest.raises(error, match="control"):
            await orders.give(users[user].connection, names, order)
    with pytest.raises(TopicsUnfit, match=r"control\.v1: no such topic on .* \(or its ACLs hide it from this user\)"):
        await orders.give_and_wait(users["nobody"].connection, names, order, 1)
    assert await plain.records("control") == []
    answers, missing = await orders.give_and_wait(users["operator"].connection, names, order, 0.1)
    assert (answers, missing) == ({}, [0, 1]), "given; no worker runs that could answer"
    assert len(await plain.records("control")) == 1
    await guarded_broker.allow("nobody", Right(2, names.topic("control"), WRITE))
    with pytest.raises(Unheard, match=r"^ordered halt-\S+; whether it is in force is not known: "):
        await orders.give_and_wait(users["nobody"].connection, names, order, 1)
    assert len(await plain.records("control")) == 2, "who may halt and hears nothing has halted all the same"


async def test_nobody_waits_for_ever_for_a_partition_that_is_not_there(kafka_broker, names, tmp_path):
    await Cluster(kafka_broker, names, tmp_path).lay()
    begun = time.monotonic()
    for place in (TopicPartition(names.topic("journal"), 99), TopicPartition("nowhere", 0)):
        with pytest.raises(TopicsUnfit, match="no such partition on"):
            async for _ in read.records(kafka_broker, place, 0):
                pass
    assert time.monotonic() - begun < 4 * APPEAR_S


LACKING = {
    "the group": (lambda right: right.resource == GROUP, "group .*: the broker denies this user: join"),
    "reading the journal": (
        lambda right: right.operation == READ and ".journal." in right.name,
        r"\.journal\.v1: the broker denies this user: read",
    ),
    "writing the journal": (
        lambda right: right.operation == WRITE and ".journal." in right.name,
        r"\.journal\.v1: the broker denies this user: access",
    ),
}


@pytest.mark.parametrize(
    ("lacks", "text"),
    [
        pytest.param(*row, id=kind, marks=() if kind == "reading the journal" else pytest.mark.long)
        for kind, row in LACKING.items()
    ],
)
async def test_a_worker_that_lacks_a_right_ends_and_names_it(guarded_broker, names, tmp_path, lacks, text):
    await Cluster(guarded_broker.plain, names, tmp_path).lay()
    await guarded_broker.allow("worker", *(right for right in rights_of(names, "worker") if not lacks(right)))
    worker = member(guarded_broker, mutual, "worker", names, tmp_path)
    code, out, err = await worker.himari("worker")
    assert (code, out) == (1, "")
    assert re.search(text, err.splitlines()[-1]), err
    assert "Traceback" not in err
