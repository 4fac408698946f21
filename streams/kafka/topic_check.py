"""Compares topics with their declaration: differences, which of them can be corrected, and what to run."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from streams.journal.topics import ALL, CHANGELOGS, TABLES, Names, Topic

REPLICAS = 3
"""Default with at least this many brokers; with fewer, a topic has one replica."""
SAFE_REPLICAS = {"min.insync.replicas": "2", "unclean.leader.election.enable": "false"}


class TopicDifference(NamedTuple):
    """One difference between the broker and the declaration."""

    topic: str
    """Name on the broker."""
    what: str
    """`topic`, `partitions` or the name of a setting."""
    wanted: str
    found: str

    @property
    def short(self) -> bool:
        """Whether partitions are missing."""
        return self.what == "partitions" and int(self.found) < int(self.wanted)

    @property
    def fatal(self) -> bool:
        """Whether it prevents a worker from starting: a missing topic, or a wrong partition count."""
        return self.what in {"topic", "partitions"}

    def __str__(self) -> str:
        """Return place, rule and value in one line."""
        return f"{self.topic}: {self.what} must be {self.wanted}, was {self.found}"


class Cluster(NamedTuple):
    """A broker and all its topics."""

    brokers: int
    embedded: bool
    partitions: Mapping[str, int]
    settings: Mapping[str, Mapping[str, str]]
    """Settings of our topics; empty on the embedded broker, which has none."""
    replication: int | None = None
    """Configured number of replicas; None: by the number of brokers."""

    @property
    def replicas(self) -> int:
        """Number of replicas of a new topic."""
        return self.replication or (REPLICAS if self.brokers >= REPLICAS else 1)


def compare(cluster: Cluster, names: Names, partitions: int) -> list[TopicDifference]:
    """Return the differences between a cluster and the declared topics, in the order of declaration."""
    return [
        difference
        for topic in ALL
        for difference in _differences(cluster, names.of(topic), topic, fitting(cluster, names, topic, partitions))
    ]


def _differences(cluster: Cluster, name: str, topic: Topic, wanted: int | None) -> Iterable[TopicDifference]:
    found = cluster.partitions.get(name)
    if found is None:
        yield TopicDifference(name, "topic", "there", "missing")
        return
    if wanted is not None and found != wanted:
        yield TopicDifference(name, "partitions", str(wanted), str(found))
    settings = cluster.settings.get(name, {})
    for key, value in settings_of(cluster, topic).items():
        if settings.get(key, value) != value:
            yield TopicDifference(name, key, value, settings[key])


def fitting(cluster: Cluster, names: Names, topic: Topic, partitions: int) -> int | None:
    """Return the required partition count of a topic, or None if any is valid."""
    counts = {"P": partitions, "input": None, "prices": cluster.partitions.get(names.topic("prices"), partitions)}
    return counts[topic.partitions]


def settings_of(cluster: Cluster, topic: Topic) -> dict[str, str]:
    """Return the settings that a topic should have on a cluster."""
    return topic.settings() | (SAFE_REPLICAS if cluster.replicas >= REPLICAS else {})


def growable(cluster: Cluster, names: Names, difference: TopicDifference) -> bool:
    """Return whether missing partitions can be added without invalidating the topic's contents.

    Partition p of such a topic belongs to partition p of another, the journal or `prices`: its contents stay valid.
    The journal never grows: its count determines the partition of a portfolio.
    """
    return difference.short and difference.topic != names.topic("journal") and not cluster.embedded


def advice(cluster: Cluster, names: Names, wrong: Sequence[TopicDifference]) -> str:
    """Return fatal differences in one line, with what to do about them."""
    missing = [difference.topic for difference in wrong if difference.what == "topic"]
    lines = [str(difference) for difference in wrong if difference.what != "topic"]
    if missing:
        lines.append(f"{len(missing)} topics are missing, {missing[0]} first")
    return "; ".join([*lines, *dict.fromkeys(_remedies(cluster, names, wrong))])


def _remedies(cluster: Cluster, names: Names, wrong: Sequence[TopicDifference]) -> Iterable[str]:
    """Yield what to do; if the journal differs, only that the settings are wrong."""
    counts = [each for each in wrong if each.what == "partitions"]
    journal = next((each for each in counts if each.topic == names.topic("journal")), None)
    if journal is not None:
        why = "any other number separates portfolios from state"
        yield f"set topics.partitions to {journal.found}, as the journal has it: {why}"
        return
    fixed = [each for each in counts if not growable(cluster, names, each)]
    for difference in fixed:
        yield f"{_why_fixed(difference)}; with the workers stopped {_remedy(names, difference.topic)}"
    if len(fixed) < len(wrong):
        yield "run: himari topics apply"


def _why_fixed(difference: TopicDifference) -> str:
    if difference.short:
        return "the embedded broker cannot add partitions"
    return "partitions cannot be removed"


def _remedy(names: Names, topic: str) -> str:
    """Return how to change a topic's partitions: only what can be rebuilt may be deleted."""
    market = [names.changelog(table.name) for table in TABLES if table.source == "prices"]
    if topic in market:
        return f"delete {' and '.join(market)}, then run: himari topics apply (steps already journaled stay)"
    if topic in {names.of(each) for each in CHANGELOGS}:
        return f"delete {topic}, then run: himari topics apply (the state is rebuilt from the journal)"
    return f"delete {topic} if it is empty, then run: himari topics apply"


def describe(differences: Sequence[TopicDifference]) -> list[dict[str, Any]]:
    """Return differences as plain JSON objects, for `himari topics check --json`."""
    return [{**difference._asdict(), "fatal": difference.fatal} for difference in differences]
