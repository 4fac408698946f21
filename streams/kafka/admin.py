"""Topics on the broker: `check` compares them with the declared ones, `apply` creates and extends them.

Both request *all* topics and never one by name: the embedded broker creates a topic that is named.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import NamedTuple

from aiokafka.admin import AIOKafkaAdminClient, NewPartitions, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import KafkaError, TopicAlreadyExistsError, for_code

from schemas.errors import BrokerUnreachable, TopicsUnfit
from streams.journal.topics import ALL, Names, Topic
from streams.kafka.connection import REACH_TIMEOUT_S, Connection, allowed, is_embedded, reach
from streams.kafka.topic_check import Cluster, TopicDifference, advice, compare, fitting, growable, settings_of

CONFIG_VALUE = 1
CONFIG_SOURCE = 3
SOURCE_TOPIC = 1
"""Source of a setting's value: set on the topic itself."""


class Applied(NamedTuple):
    """The changes made by `apply`, by the topics' names on the broker."""

    created: list[str]
    grown: list[str]
    """Topics with added partitions."""


class TopicCheck(NamedTuple):
    """The result of `check`."""

    differences: list[TopicDifference]
    advice: str
    """What to do; "" if nothing differs."""


async def check(connection: Connection, names: Names, partitions: int, replication: int | None = None) -> TopicCheck:
    """Return the differences between the broker's topics and the declared ones; nothing is changed.

    Raises:
        BrokerUnreachable: no broker answers.
    """
    async with _admin(connection) as admin:
        cluster = await _cluster(admin, names, replication)
        differences = compare(cluster, names, partitions)
        wrong = [difference for difference in differences if difference.fatal]
        settings = "run: himari topics apply" if differences else ""
        return TopicCheck(differences, advice(cluster, names, wrong) if wrong else settings)


async def embedded(connection: Connection) -> bool:
    """Return whether the broker is the embedded one, which supports no idempotent producer.

    Raises:
        BrokerUnreachable: no broker answers.
    """
    async with _admin(connection) as admin:
        return await is_embedded(admin._client)  # noqa: SLF001


async def require(connection: Connection, names: Names, partitions: int, replication: int | None = None) -> None:
    """Return if a worker can run on the broker's topics.

    Raises:
        TopicsUnfit: topics are missing or have wrong partition counts; the text says what to run.
        BrokerUnreachable: no broker answers.
    """
    found = await check(connection, names, partitions, replication)
    if any(difference.fatal for difference in found.differences):
        raise TopicsUnfit(f"{connection.bootstrap}: {found.advice}")


async def apply(connection: Connection, names: Names, partitions: int, replication: int | None = None) -> Applied:
    """Create missing topics, add partitions where possible, correct settings; return the changes.

    Raises:
        TopicsUnfit: a topic has a wrong partition count that cannot be corrected; nothing is changed.
        BrokerUnreachable: no broker answers.
    """
    async with _admin(connection) as admin:
        cluster = await _cluster(admin, names, replication)
        differences = compare(cluster, names, partitions)
        counts = [difference for difference in differences if difference.what == "partitions"]
        wrong = [difference for difference in counts if not growable(cluster, names, difference)]
        if wrong:
            raise TopicsUnfit(f"{connection.bootstrap}: {advice(cluster, names, wrong)}")
        missing = {difference.topic for difference in differences if difference.what == "topic"}
        created = [topic for topic in ALL if names.of(topic) in missing]
        await _create(admin, cluster, names, created, partitions)
        await _grow(admin, counts)
        await _set(admin, cluster, names, {d.topic for d in differences if not d.fatal})
        await _settle(admin, names, partitions, replication)
        return Applied([names.of(topic) for topic in created], [difference.topic for difference in counts])


@asynccontextmanager
async def _admin(connection: Connection) -> AsyncIterator[AIOKafkaAdminClient]:
    admin = AIOKafkaAdminClient(**connection.options())
    try:
        await reach(admin, connection)
        with allowed("see, create or change topics"):
            yield admin
    except KafkaError as error:
        msg = f"kafka.bootstrap_servers {connection.bootstrap}: {error!r}"
        raise BrokerUnreachable(msg) from error
    finally:
        await admin.close()


async def _cluster(admin: AIOKafkaAdminClient, names: Names, replication: int | None) -> Cluster:
    brokers = len((await admin.describe_cluster())["brokers"])
    partitions = {topic["topic"]: len(topic["partitions"]) for topic in await admin.describe_topics()}
    embedded = await is_embedded(admin._client)  # noqa: SLF001 the admin client has no public connection
    ours = [name for name in map(names.of, ALL) if name in partitions]
    settings = {} if embedded or not ours else await _described(admin, ours)
    values = {name: {key: value for key, (value, _) in found.items()} for name, found in settings.items()}
    return Cluster(brokers, embedded, partitions, values, replication)


async def _described(admin: AIOKafkaAdminClient, topics: Iterable[str]) -> dict[str, dict[str, tuple[str, int]]]:
    """Return the settings of topics: key → (value, source of the value)."""
    wanted = [ConfigResource(ConfigResourceType.TOPIC, name) for name in topics]
    found: dict[str, dict[str, tuple[str, int]]] = {}
    for response in await admin.describe_configs(wanted):
        for code, message, _, name, entries in response.resources:
            _raise_for(code, f"{name}: {message}")
            found[name] = {entry[0]: (entry[CONFIG_VALUE], entry[CONFIG_SOURCE]) for entry in entries}
    return found


async def _create(
    admin: AIOKafkaAdminClient, cluster: Cluster, names: Names, topics: Sequence[Topic], partitions: int
) -> None:
    if not topics:
        return
    new = [
        NewTopic(
            names.of(topic),
            fitting(cluster, names, topic, partitions) or partitions,
            cluster.replicas,
            topic_configs=settings_of(cluster, topic),
        )
        for topic in topics
    ]
    response = await admin.create_topics(new, timeout_ms=int(REACH_TIMEOUT_S * 1000))
    for name, code, *message in response.topic_errors:
        if code != TopicAlreadyExistsError.errno:
            _raise_for(code, f"{name}: {' '.join(map(str, message))}")


async def _grow(admin: AIOKafkaAdminClient, short: Sequence[TopicDifference]) -> None:
    if short:
        await admin.create_partitions({each.topic: NewPartitions(int(each.wanted)) for each in short})


async def _settle(admin: AIOKafkaAdminClient, names: Names, partitions: int, replication: int | None) -> None:
    """Wait until the broker reports what it has acknowledged: on Apache Kafka that takes a moment.

    Raises:
        TopicsUnfit: something still differs after `REACH_TIMEOUT_S`.
    """
    deadline = time.monotonic() + REACH_TIMEOUT_S
    while differences := compare(await _cluster(admin, names, replication), names, partitions):
        if time.monotonic() > deadline:
            count, first = len(differences), differences[0]
            msg = f"the broker accepted the topics but still reports {count} differences, first: {first}"
            raise TopicsUnfit(msg)
        await asyncio.sleep(0.02)


async def _set(admin: AIOKafkaAdminClient, cluster: Cluster, names: Names, topics: set[str]) -> None:
    """Set the declared settings of `topics`; an operator's other settings stay."""
    if not topics:
        return
    declared = {names.of(topic): settings_of(cluster, topic) for topic in ALL if names.of(topic) in topics}
    described = await _described(admin, sorted(topics))
    resources = [
        ConfigResource(ConfigResourceType.TOPIC, name, {k: v for k, (v, at) in own.items() if at == SOURCE_TOPIC} | new)
        for name, new in declared.items()
        for own in (described[name],)
    ]
    for response in await admin.alter_configs(resources):
        for code, message, _, name in response.resources:
            _raise_for(code, f"{name}: {message}")


def _raise_for(code: int, text: str) -> None:
    if code:
        raise for_code(code)(text)
