"""Topics on the broker against topics as declared: `check` compares, `apply` creates what is missing.

Both ask for *all* topics and never for one by its name: the embedded broker creates a topic that is named.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import KafkaError, TopicAlreadyExistsError, for_code

from schemas.errors import BrokerUnreachable, TopicsUnfit
from streams.kafka.connection import REACH_TIMEOUT_S, Connection, is_embedded, reach
from streams.topics import ALL, Names, Topic

REPLICAS = 3
"""On as many brokers or more, unless the settings say otherwise; below it a topic has one replica."""
SAFE_REPLICAS = {"min.insync.replicas": "2", "unclean.leader.election.enable": "false"}
CONFIG_VALUE = 1
CONFIG_SOURCE = 3
SOURCE_TOPIC = 1
"""Where a setting's value comes from: set on the topic itself."""


class Difference(NamedTuple):
    """One thing on the broker that is not as declared."""

    topic: str
    """Name on the broker."""
    what: str
    """`topic`, `partitions` or the name of a setting."""
    wanted: str
    found: str

    @property
    def fatal(self) -> bool:
        """Whether a worker must not start on it: a topic that is missing or has a count that does not fit."""
        return self.what in {"topic", "partitions"}

    def __str__(self) -> str:
        """Return place, rule and value in one line."""
        return f"{self.topic}: {self.what} must be {self.wanted}, was {self.found}"


class Cluster(NamedTuple):
    """What a broker says of itself and of all its topics."""

    brokers: int
    embedded: bool
    partitions: Mapping[str, int]
    settings: Mapping[str, Mapping[str, str]]
    """Of our topics, settings with their values; empty on the embedded broker, which has none."""
    replication: int | None = None
    """Replicas that the settings ask for; None: as many as the brokers allow for."""

    @property
    def replicas(self) -> int:
        """Return how many replicas a new topic gets."""
        return self.replication or (REPLICAS if self.brokers >= REPLICAS else 1)


async def check(
    connection: Connection, names: Names, partitions: int, replication: int | None = None
) -> list[Difference]:
    """Return what differs between the broker's topics and the declared ones; nothing is changed.

    Raises:
        BrokerUnreachable: no broker answers.
    """
    async with _admin(connection) as admin:
        return compare(await _cluster(admin, names, replication), names, partitions)


async def embedded(connection: Connection) -> bool:
    """Return whether the broker is the embedded one, which takes no idempotent producer.

    Raises:
        BrokerUnreachable: no broker answers.
    """
    async with _admin(connection) as admin:
        return await is_embedded(admin._client)  # noqa: SLF001


async def require(connection: Connection, names: Names, partitions: int, replication: int | None = None) -> None:
    """Return if a worker can run on the broker's topics.

    Raises:
        TopicsUnfit: topics are missing or have counts that do not fit; the text says what to run.
        BrokerUnreachable: no broker answers.
    """
    unfit = [difference for difference in await check(connection, names, partitions, replication) if difference.fatal]
    if unfit:
        raise TopicsUnfit(_advice(unfit, connection.bootstrap))


async def apply(connection: Connection, names: Names, partitions: int, replication: int | None = None) -> list[str]:
    """Create the declared topics that are missing and set settings that differ; return the names that were created.

    Raises:
        TopicsUnfit: a topic is there with a count that does not fit; nothing is changed then.
        BrokerUnreachable: no broker answers.
    """
    async with _admin(connection) as admin:
        cluster = await _cluster(admin, names, replication)
        differences = compare(cluster, names, partitions)
        unfit = [difference for difference in differences if difference.what == "partitions"]
        if unfit:
            raise TopicsUnfit(_advice(unfit, connection.bootstrap))
        missing = {difference.topic for difference in differences if difference.what == "topic"}
        created = [topic for topic in ALL if names.of(topic) in missing]
        await _create(admin, cluster, names, created, partitions)
        await _set(admin, cluster, names, {d.topic for d in differences if not d.fatal})
        await _settle(admin, names, partitions, replication)
        return [names.of(topic) for topic in created]


def compare(cluster: Cluster, names: Names, partitions: int) -> list[Difference]:
    """Return what differs between a cluster and the declared topics, in the order of their declaration."""
    return [
        difference
        for topic in ALL
        for difference in _differences(cluster, names.of(topic), topic, _fitting(cluster, names, topic, partitions))
    ]


def _differences(cluster: Cluster, name: str, topic: Topic, wanted: int | None) -> Iterable[Difference]:
    found = cluster.partitions.get(name)
    if found is None:
        yield Difference(name, "topic", "there", "missing")
        return
    if wanted is not None and found != wanted:
        yield Difference(name, "partitions", str(wanted), str(found))
    settings = cluster.settings.get(name, {})
    for key, value in _settings(cluster, topic).items():
        if settings.get(key, value) != value:
            yield Difference(name, key, value, settings[key])


def _fitting(cluster: Cluster, names: Names, topic: Topic, partitions: int) -> int | None:
    """Return the only count that fits a topic, or None where any does."""
    counts = {"P": partitions, "input": None, "prices": cluster.partitions.get(names.topic("prices"), partitions)}
    return counts[topic.partitions]


def _settings(cluster: Cluster, topic: Topic) -> dict[str, str]:
    return topic.settings() | (SAFE_REPLICAS if cluster.replicas >= REPLICAS else {})


def _advice(unfit: Sequence[Difference], bootstrap: str) -> str:
    missing = [difference for difference in unfit if difference.what == "topic"]
    lines = [str(difference) for difference in unfit if difference.what != "topic"]
    if missing:
        lines.append(f"{len(missing)} topics are missing on {bootstrap}, {missing[0].topic} first")
        lines.append("run: himari topics apply")
    else:
        lines.append("set topics.partitions to what the journal has; a changed count would part portfolios from state")
    return "; ".join(lines)


@asynccontextmanager
async def _admin(connection: Connection) -> AsyncIterator[AIOKafkaAdminClient]:
    admin = AIOKafkaAdminClient(**connection.options())
    try:
        await reach(admin, connection.bootstrap)
        yield admin
    except KafkaError as error:
        msg = f"kafka.bootstrap_servers {connection.bootstrap}: {error!r}"
        raise BrokerUnreachable(msg) from error
    finally:
        await admin.close()


async def _cluster(admin: AIOKafkaAdminClient, names: Names, replication: int | None) -> Cluster:
    brokers = len((await admin.describe_cluster())["brokers"])
    partitions = {topic["topic"]: len(topic["partitions"]) for topic in await admin.describe_topics()}
    embedded = await is_embedded(admin._client)  # noqa: SLF001 the admin client shows its connection nowhere else
    ours = [name for name in map(names.of, ALL) if name in partitions]
    settings = {} if embedded or not ours else await _described(admin, ours)
    values = {name: {key: value for key, (value, _) in found.items()} for name, found in settings.items()}
    return Cluster(brokers, embedded, partitions, values, replication)


async def _described(admin: AIOKafkaAdminClient, topics: Iterable[str]) -> dict[str, dict[str, tuple[str, int]]]:
    """Return the settings of topics: key → (value, where it comes from)."""
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
            _fitting(cluster, names, topic, partitions) or partitions,
            cluster.replicas,
            topic_configs=_settings(cluster, topic),
        )
        for topic in topics
    ]
    response = await admin.create_topics(new, timeout_ms=int(REACH_TIMEOUT_S * 1000))
    for name, code, *message in response.topic_errors:
        if code != TopicAlreadyExistsError.errno:
            _raise_for(code, f"{name}: {' '.join(map(str, message))}")


async def _settle(admin: AIOKafkaAdminClient, names: Names, partitions: int, replication: int | None) -> None:
    """Wait until the broker shows what it has just acknowledged: on Apache Kafka that takes a moment.

    Raises:
        TopicsUnfit: something still differs after `REACH_TIMEOUT_S`.
    """
    deadline = time.monotonic() + REACH_TIMEOUT_S
    while differences := compare(await _cluster(admin, names, replication), names, partitions):
        if time.monotonic() > deadline:
            msg = f"the broker took the topics but still shows, of {len(differences)} differences: {differences[0]}"
            raise TopicsUnfit(msg)
        await asyncio.sleep(0.02)


async def _set(admin: AIOKafkaAdminClient, cluster: Cluster, names: Names, topics: set[str]) -> None:
    """Set the declared settings of `topics`; what an operator set beside them stays."""
    if not topics:
        return
    declared = {names.of(topic): _settings(cluster, topic) for topic in ALL if names.of(topic) in topics}
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


def describe(differences: Sequence[Difference]) -> list[dict[str, Any]]:
    """Return differences as plain JSON objects, for `himari topics check --json`."""
    return [{**difference._asdict(), "fatal": difference.fatal} for difference in differences]
