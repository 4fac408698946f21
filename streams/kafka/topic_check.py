"""Topics as they are against topics as declared: what differs, what of it can be mended, and what to run."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from streams.journal.topics import ALL, CHANGELOGS, TABLES, Names, Topic

REPLICAS = 3
"""On as many brokers or more, unless the settings say otherwise; below it a topic has one replica."""
SAFE_REPLICAS = {"min.insync.replicas": "2", "unclean.leader.election.enable": "false"}


class TopicDifference(NamedTuple):
    """One thing on the broker that is not as declared."""

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


def compare(cluster: Cluster, names: Names, partitions: int) -> list[TopicDifference]:
    """Return what differs between a cluster and the declared topics, in the order of their declaration."""
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
    """Return the only count that fits a topic, or None where any does."""
    counts = {"P": partitions, "input": None, "prices": cluster.partitions.get(names.topic("prices"), partitions)}
    return counts[topic.partitions]


def settings_of(cluster: Cluster, topic: Topic) -> dict[str, str]:
    """Return the settings that a topic should have on a cluster."""
    return topic.settings() | (SAFE_REPLICAS if cluster.replicas >= REPLICAS else {})


def growable(cluster: Cluster, names: Names, difference: TopicDifference) -> bool:
    """Return whether partitions that are missing can be added with no harm to what the topic holds.

    Partition p of such a topic belongs to partition p of another, the journal or `prices`: what is there stays right.
    The journal itself never grows: its count says which partition a portfolio is in.
    """
    return difference.short and difference.topic != names.topic("journal") and not cluster.embedded


def advice(cluster: Cluster, names: Names, unfit: Sequence[TopicDifference]) -> str:
    """Return fatal differences in one line, with what to do about them."""
    missing = [difference.topic for difference in unfit if difference.what == "topic"]
    lines = [str(difference) for difference in unfit if difference.what != "topic"]
    if missing:
        lines.append(f"{len(missing)} topics are missing, {missing[0]} first")
    return "; ".join([*lines, *dict.fromkeys(_remedies(cluster, names, unfit))])


def _remedies(cluster: Cluster, names: Names, unfit: Sequence[TopicDifference]) -> Iterable[str]:
    """Yield what to do; where the journal differs, it is the settings that are wrong, and only that is said."""
    counts = [each for each in unfit if each.what == "partitions"]
    journal = next((each for each in counts if each.topic == names.topic("journal")), None)
    if journal is not None:
        yield f"set topics.partitions to {journal.found}, as the journal has it: another parts portfolios from state"
        return
    stuck = [each for each in counts if not growable(cluster, names, each)]
    for difference in stuck:
        yield f"{_why_stuck(difference)}; with the workers stopped {_way_out(names, difference.topic)}"
    if len(stuck) < len(unfit):
        yield "run: himari topics apply"


def _why_stuck(difference: TopicDifference) -> str:
    if difference.short:
        return "the embedded broker cannot add partitions"
    return "partitions cannot be taken away"


def _way_out(names: Names, topic: str) -> str:
    """Return how a topic gets other partitions: only what can be folded again may be deleted."""
    market = [names.changelog(table.name) for table in TABLES if table.source == "prices"]
    if topic in market:
        return f"delete {' and '.join(market)}, then run: himari topics apply (steps already journaled stay)"
    if topic in {names.of(each) for each in CHANGELOGS}:
        return f"delete {topic}, then run: himari topics apply (the state is folded anew from the journal)"
    return f"delete {topic} if it is empty, then run: himari topics apply"


def describe(differences: Sequence[TopicDifference]) -> list[dict[str, Any]]:
    """Return differences as plain JSON objects, for `himari topics check --json`."""
    return [{**difference._asdict(), "fatal": difference.fatal} for difference in differences]
