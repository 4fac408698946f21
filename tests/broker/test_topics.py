"""Topics on the broker: one contract on every broker."""

import pytest
from aiokafka.admin import AIOKafkaAdminClient, NewPartitions, NewTopic

from schemas.errors import BrokerUnreachable, TopicsUnfit
from streams.journal import topics
from streams.journal.topics import Names
from streams.kafka import admin, broker
from streams.kafka.connection import Connection, is_embedded
from streams.kafka.topic_check import Cluster, TopicDifference, advice, compare, growable, settings_of

pytestmark = [pytest.mark.broker, pytest.mark.everyday]


async def create(connection: Connection, name: str, partitions: int, **config: str) -> None:
    client = AIOKafkaAdminClient(**connection.options())
    await client.start()
    try:
        await client.create_topics([NewTopic(name, partitions, 1, topic_configs=config)])
        while name not in await client.list_topics():
            pass
    finally:
        await client.close()


async def listed(connection: Connection, prefix: str) -> dict[str, int]:
    client = AIOKafkaAdminClient(**connection.options())
    await client.start()
    try:
        found = await client.describe_topics()
    finally:
        await client.close()
    return {topic["topic"]: len(topic["partitions"]) for topic in found if topic["topic"].startswith(prefix)}


async def test_apply_creates_every_declared_topic_and_a_second_time_nothing(broker, names):
    created = await admin.apply(broker, names, 3)
    assert created == ([names.of(topic) for topic in topics.ALL], [])
    assert await admin.check(broker, names, 3) == ([], "")
    await admin.require(broker, names, 3)
    assert await admin.apply(broker, names, 3) == ([], [])
    assert await listed(broker, names.prefix) == {names.of(topic): 3 for topic in topics.ALL}


async def test_check_names_no_topic_so_that_nothing_is_created(broker, names):
    missing = await admin.check(broker, names, 2)
    assert missing.differences == [
        TopicDifference(names.of(topic), "topic", "there", "missing") for topic in topics.ALL
    ]
    assert await listed(broker, names.prefix) == {}


async def test_a_worker_without_topics_is_told_what_to_run(broker, names):
    with pytest.raises(TopicsUnfit, match="run: himari topics apply") as refused:
        await admin.require(broker, names, 2)
    assert refused.value.exit_code == 6


async def test_a_journal_with_another_count_is_refused_and_nothing_is_created(broker, names):
    await create(broker, names.topic("journal"), 4)
    with pytest.raises(TopicsUnfit, match=r"journal.v1: partitions must be 2, was 4; set topics.partitions to 4"):
        await admin.apply(broker, names, 2)
    with pytest.raises(TopicsUnfit, match=r"set topics.partitions to 4"):
        await admin.apply(broker, names, 8)
    assert await listed(broker, names.prefix) == {names.topic("journal"): 4}


async def test_inputs_may_have_grown_and_the_markets_tables_follow_prices(broker, names):
    await create(broker, names.topic("signals"), 5)
    await create(broker, names.topic("prices"), 4)
    await admin.apply(broker, names, 2)
    found = await listed(broker, names.prefix)
    assert found[names.topic("signals")] == 5
    assert found[names.changelog("open-steps")] == found[names.changelog("market-progress")] == 4
    assert found[names.changelog("books")] == found[names.topic("journal")] == 2
    assert await admin.check(broker, names, 2) == ([], "")


async def grow(connection: Connection, name: str, partitions: int) -> None:
    client = AIOKafkaAdminClient(**connection.options())
    await client.start()
    try:
        await client.create_partitions({name: NewPartitions(partitions)})
        while len((await client.describe_topics([name]))[0]["partitions"]) < partitions:
            pass
    finally:
        await client.close()


async def test_when_prices_have_grown_apply_lets_the_markets_tables_follow_and_nothing_else(kafka_broker, names):
    await admin.apply(kafka_broker, names, 2)
    await grow(kafka_broker, names.topic("prices"), 5)
    market = [names.changelog("open-steps"), names.changelog("market-progress")]
    found = await admin.check(kafka_broker, names, 2)
    assert found.differences == [TopicDifference(name, "partitions", "5", "2") for name in market]
    with pytest.raises(TopicsUnfit, match=r"partitions must be 5, was 2; run: himari topics apply$"):
        await admin.require(kafka_broker, names, 2)
    before = await listed(kafka_broker, names.prefix)
    assert await admin.apply(kafka_broker, names, 2) == ([], market)
    assert await listed(kafka_broker, names.prefix) == before | dict.fromkeys(market, 5)
    await admin.require(kafka_broker, names, 2)


async def test_where_the_broker_adds_no_partitions_apply_says_what_to_delete(embedded_broker, names):
    market = [names.changelog("open-steps"), names.changelog("market-progress")]
    await create(embedded_broker, names.topic("prices"), 4)
    await create(embedded_broker, market[0], 2)
    with pytest.raises(TopicsUnfit, match=f"cannot add partitions; .* delete {' and '.join(market)}, then run: himari"):
        await admin.apply(embedded_broker, names, 2)
    assert await listed(embedded_broker, names.prefix) == {names.topic("prices"): 4, market[0]: 2}


def test_the_advice_fits_what_differs():
    names = Names("himari")
    declared = {names.of(topic): 12 for topic in topics.ALL}

    def said(partitions=12, *, embedded=False, **counts):
        there = declared | {name.replace("__", "."): count for name, count in counts.items()}
        cluster = Cluster(1, embedded, {name: count for name, count in there.items() if count}, {})
        return advice(cluster, names, compare(cluster, names, partitions))

    journal, books, steps = names.topic("journal"), names.changelog("books"), names.changelog("open-steps")
    assert said(24).endswith(
        "; set topics.partitions to 12, as the journal has it: any other number separates portfolios from state"
    )
    assert "himari topics apply" not in said(24)
    assert said(**{journal: 0}) == f"1 topics are missing, {journal} first; run: himari topics apply"
    assert said(**{books: 4}) == f"{books}: partitions must be 12, was 4; run: himari topics apply"
    assert said(**{books: 16}).endswith(
        f"delete {books}, then run: himari topics apply (the state is rebuilt from the journal)"
    )
    assert "partitions cannot be removed" in said(**{steps: 16})
    assert said(**{steps: 4}, embedded=True).count("the embedded broker cannot add partitions") == 1
    assert said(**{names.topic("allocations"): 16}).endswith("if it is empty, then run: himari topics apply")
    short = TopicDifference(journal, "partitions", "24", "12")
    assert not growable(Cluster(1, embedded=False, partitions=declared, settings={}), names, short)
    assert "rebuilt" not in said(**{names.topic("allocations"): 16})


async def test_settings_that_differ_are_set_and_an_operators_own_are_kept(kafka_broker, names):
    await create(kafka_broker, names.topic("journal"), 2, **{"retention.ms": "1000", "compression.type": "lz4"})
    differing = await admin.check(kafka_broker, names, 2)
    assert TopicDifference(names.topic("journal"), "retention.ms", "-1", "1000") in differing.differences
    assert differing.advice.endswith("run: himari topics apply")
    await admin.apply(kafka_broker, names, 2)
    assert await admin.check(kafka_broker, names, 2) == ([], "")
    client = AIOKafkaAdminClient(**kafka_broker.options())
    await client.start()
    described = await admin._described(client, [names.topic("journal")])
    await client.close()
    settings = described[names.topic("journal")]
    assert settings["compression.type"][0] == "lz4"
    assert settings["max.message.bytes"][0] == str(topics.JOURNAL_BYTES_MAX + topics.ROOM)


async def test_the_embedded_broker_is_told_from_apache_kafka(embedded_broker, kafka_broker):
    for connection, embedded in ((embedded_broker, True), (kafka_broker, False)):
        client = AIOKafkaAdminClient(**connection.options())
        await client.start()
        assert await is_embedded(client._client) is embedded
        await client.close()


async def test_a_broker_that_does_not_answer_is_named(monkeypatch, names):
    monkeypatch.setattr("streams.kafka.connection.reach.__defaults__", (0.3,))
    port = broker.free_port()
    with pytest.raises(BrokerUnreachable, match=f"kafka.bootstrap_servers 127.0.0.1:{port}") as gone:
        await admin.check(Connection(f"127.0.0.1:{port}"), names, 2)
    assert gone.value.exit_code == 6


def test_three_brokers_get_three_replicas_and_no_unclean_leader():
    alone = Cluster(1, embedded=False, partitions={}, settings={})
    three = Cluster(3, embedded=False, partitions={}, settings={})
    assert "min.insync.replicas" not in settings_of(alone, topics.JOURNAL)
    assert settings_of(three, topics.JOURNAL) == {
        "max.message.bytes": "9502720",
        "retention.ms": "-1",
        "retention.bytes": "-1",
        "min.insync.replicas": "2",
        "unclean.leader.election.enable": "false",
    }


def test_names_go_to_the_broker_and_back():
    names = Names("himari")
    assert names.topic("signals") == "himari.signals.v1"
    assert names.topic("signals.dlq") == "himari.signals.v1.dlq"
    assert names.changelog("books") == "himari-books-changelog"
    assert [names.logical(names.of(topic)) for topic in topics.ALL] == [topic.name for topic in topics.ALL]
    assert len({names.of(topic) for topic in topics.ALL}) == len(topics.ALL)
    with pytest.raises(KeyError, match="stranger"):
        names.logical("stranger")
