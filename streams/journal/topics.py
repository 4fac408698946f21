"""Every topic as data: its purpose, key, partitions and settings.

`himari topics apply` creates them; `himari topics check` and the worker compare them with the broker. Code uses logical
names ("journal"); `Names` converts them to the broker's names and back, with the configured prefix.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, Literal, NamedTuple

from schemas.base import RECORD_BYTES_MAX

Partitions = Literal["P", "input", "prices"]
"""P: exactly the configured count, for life. input: created with that count, may grow. prices: as many as `prices`."""

KIB: Final = 1024
MIB: Final = 1024 * KIB
HOUR_MS: Final = 3_600_000
DAY_MS: Final = 24 * HOUR_MS

JOURNAL_BYTES_MAX: Final = 9 * MIB
"""Largest journal entry or checkpoint record; also the producer's limit."""
ROOM: Final = 64 * KIB
"""Allowance for the frame, key and headers of a record batch."""

DLQ: Final = ".dlq"
FOR_EVER: Final = MappingProxyType({"retention.ms": "-1", "retention.bytes": "-1"})


class Topic(NamedTuple):
    """One topic, by its logical name."""

    name: str
    partitions: Partitions
    key: str
    description: str
    bytes_max: int = RECORD_BYTES_MAX + ROOM
    config: Mapping[str, str] = MappingProxyType({"retention.ms": str(7 * DAY_MS)})

    def settings(self) -> dict[str, str]:
        """Return the topic's settings on Apache Kafka."""
        return {"max.message.bytes": str(self.bytes_max), **self.config}


class Table(NamedTuple):
    """One table of a processor; its changelog topic holds the checkpoint."""

    name: str
    source: str
    """Logical name of the topic whose partitions the processor owns."""
    key: str
    description: str
    stored: bool = True
    """False: in the changelog only, not in the local store."""


INPUTS: Final = (
    Topic("signals", "input", "any", "trading signals of the strategies"),
    Topic("cascade-indicators", "input", "any", "indicators of liquidation cascades"),
    Topic("prices", "input", "symbol", "price ticks, one or more per message"),
    Topic("outcomes", "input", "any", "results of trades, from which the posteriors learn"),
    Topic("positions", "input", "any", "reported holdings of a portfolio; optional"),
    Topic("control", "input", "any", "settings, trading states and portfolio values"),
)

DEAD_LETTERS: Final = tuple(
    Topic(
        topic.name + DLQ,
        "input",
        "as received",
        f"refused records of {topic.name}, unchanged, with the reason in the headers",
        2 * RECORD_BYTES_MAX,
        MappingProxyType({"retention.ms": str(30 * DAY_MS)}),
    )
    for topic in INPUTS
)

JOURNAL: Final = Topic(
    "journal",
    "P",
    "portfolio_id",
    "all inputs that can change a decision, in one order",
    JOURNAL_BYTES_MAX + ROOM,
    FOR_EVER,
)

OUTPUTS: Final = (
    Topic("allocations", "P", "portfolio_id", "the decisions", 4 * RECORD_BYTES_MAX, FOR_EVER),
    Topic("rl-requests", "P", "portfolio_id", "questions to the policy; answers go to the journal"),
    Topic(
        "alerts",
        "input",
        "subject",
        "alerts for operators",
        config=MappingProxyType({"retention.ms": str(30 * DAY_MS)}),
    ),
)

TOPICS: Final = (*INPUTS, *DEAD_LETTERS, JOURNAL, *OUTPUTS)

CELL: Final = "portfolio · strategy · symbol"
TABLES: Final = (
    Table("kelly-posteriors", "journal", CELL, "posterior of each strategy's edge on a symbol"),
    Table("pools", "journal", "portfolio · strategy", "what the symbols of a strategy have taught together"),
    Table("conformal-scores", "journal", CELL, "conformal scores of past predictions"),
    Table("predictions", "journal", CELL, "forecasts, and predictions that await their outcome"),
    Table("correlations", "journal", "part", "EWMA moments of returns, and returns of open bars, in parts"),
    Table("markets", "journal", "symbol", "last bars, cascade latch, volatility"),
    Table("regimes", "journal", "portfolio · symbol", "votes, confirmed regime, candidate"),
    Table("strategies", "journal", "portfolio", "strategy weights and slow references, forecast correlation, drift"),
    Table("books", "journal", "portfolio", "value, drawdown, sequence, last hash"),
    Table("targets", "journal", CELL, "target of each strategy"),
    Table("states", "journal", "scope", "trading states and the policy's modes in force"),
    Table("questions", "journal", "portfolio", "open questions to the policy, and the book that an answer revises"),
    Table("gates", "journal", "portfolio", "evidence for the policy gate"),
    Table("progress", "journal", "–", "offset, settings in force, digest", stored=False),
    Table("open-steps", "prices", "symbol", "the open step, lateness windows and last prices"),
    Table("market-progress", "prices", "–", "offset and digest of the market", stored=False),
)
PROGRESS: Final = MappingProxyType({table.source: table.name for table in TABLES if not table.stored})
"""Source topic → the table that holds its processor's `progress`."""

COMPACTED: Final = MappingProxyType(
    {
        "cleanup.policy": "compact",
        "min.cleanable.dirty.ratio": "0.1",
        "segment.ms": str(HOUR_MS),
        "delete.retention.ms": str(7 * DAY_MS),
    }
)
"""Tombstones stay a week, longer than a local store should be offline; segments roll hourly so that compaction runs."""


def changelog(table: Table) -> Topic:
    """Return the changelog topic of a table; its logical name is the table's with `-changelog`."""
    return Topic(
        f"{table.name}-changelog",
        "P" if table.source == "journal" else "prices",
        f"partition · {table.key}",
        f"checkpoint: {table.description}",
        JOURNAL_BYTES_MAX + ROOM,
        COMPACTED,
    )


CHANGELOGS: Final = tuple(changelog(table) for table in TABLES)
ALL: Final = (*TOPICS, *CHANGELOGS)


class Names(NamedTuple):
    """Converts logical names to names on the broker, and back."""

    prefix: str = "himari"

    @property
    def application(self) -> str:
        """Faust's application id: the consumer group, and the prefix of every changelog's name."""
        return self.prefix

    def topic(self, name: str) -> str:
        """Return the broker's name of a topic: `himari.signals.v1`, `himari.signals.v1.dlq`."""
        if name.endswith(DLQ):
            return self.topic(name.removesuffix(DLQ)) + DLQ
        return f"{self.prefix}.{name}.v1"

    def changelog(self, table: str) -> str:
        """Return the broker's name of a table's changelog, as Faust builds it."""
        return f"{self.application}-{table}-changelog"

    def of(self, topic: Topic) -> str:
        """Return the broker's name of a declared topic, changelog or not."""
        return f"{self.application}-{topic.name}" if topic in CHANGELOGS else self.topic(topic.name)

    def logical(self, name: str) -> str:
        """Return the logical name of a topic on the broker.

        Raises:
            KeyError: no declared topic has this name.
        """
        return next((topic.name for topic in ALL if self.of(topic) == name), None) or _unknown(name)


def _unknown(name: str) -> str:
    raise KeyError(name)
