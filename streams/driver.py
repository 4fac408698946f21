"""The whole topology in memory: bytes in, bytes out, time moved by the caller. No broker, clock or threads."""

from collections.abc import Mapping
from functools import partial
from typing import Any

import orjson

from engines.models.circuit_breaker import BreakerParams
from engines.parameters import DecisionParams
from schemas import wire
from schemas.rl import RlRequest
from streams.journal import entries as journal
from streams.journal.entries import SourcePlace
from streams.journal.genesis import genesis
from streams.journal.handover import MIGRATIONS, Migration
from streams.journal.topics import TOPICS
from streams.monitoring.metrics import Metrics
from streams.policy.adapters import Adapter
from streams.policy.agent import entry_of
from streams.policy.client import PolicyClient
from streams.processing.immediate import result_of
from streams.processing.memory_cluster import LocalStore, MemoryCluster, MemoryPorts, Pause, Stored
from streams.processing.ports import Send
from streams.processing.processor import Processor
from streams.stages.drain import drain
from streams.stages.ingest import INTAKES, ingest
from streams.stages.sizing import SizingFold
from streams.stages.topology import POLICY, TOPOLOGY, Context, Stage, Timed

START_NS = 1_700_000_000_000_000_000
SECOND_NS = 1_000_000_000
DEADLINE_S = 5.0
"""Deadline of a policy in process, which answers at once."""


class Driver:
    """A cluster in memory with one worker on it.

    >>> driver = Driver()
    >>> driver.publish("prices", {"symbol": "BTC-USD", "price": 43_500.0, "timestamp_ns": driver.now_ns})
    0
    >>> driver.advance(2.0)
    >>> driver.read("allocations")
    []
    """

    def __init__(
        self,
        params: DecisionParams | None = None,
        *,
        partitions: int = 2,
        journal_id: str = "DRIVER22",
        now_ns: int = START_NS,
        metrics: Metrics | None = None,
        checkpoint_entries: int = 5_000,
        pause: Pause | None = None,
        version: int = 0,
        migrations: Mapping[tuple[int, int], Migration] = MIGRATIONS,
        policy: Adapter | None = None,
    ) -> None:
        """Create the topics, write Genesis, start the worker; `pause` is called at each step and may crash it there.

        `version`: decision version (0: this code's); `migrations`: from other versions to it. `policy`: answers
        questions in process, at once; None: questions stay on their topic.
        """
        self.params = params or DecisionParams()
        self.partitions = partitions
        self.now_ns = now_ns
        self.checkpoint_entries = checkpoint_entries
        self.pause = pause
        self.cluster = MemoryCluster()
        self.policy = policy
        self.context = Context(
            partitions, self._in_force, lambda: self.now_ns, metrics, version=version, migrations=migrations
        )
        self.stores: dict[tuple[str, int], LocalStore] = {}
        self.committed: dict[tuple[str, int], int] = {}
        for topic in TOPICS:
            self.cluster.create(topic.name, partitions)
        for partition in range(partitions):
            self.cluster.log(journal.TOPIC, partition).append(
                None, genesis(journal_id, partitions, self.params, now_ns, version)
            )
        self.start()

    def _in_force(self) -> DecisionParams:
        """Return the settings in force: the journal's, once it is folded."""
        kept = self.processors.get((journal.TOPIC, 0))
        if kept is not None and isinstance(kept[0], SizingFold) and kept[0].state.progress is not None:
            return kept[0].state.params
        return self.params

    # -- topics ---------------------------------------------------------------------------------------------------
    def publish(self, topic: str, value: bytes | Mapping[str, Any], key: bytes | None = None) -> int:
        """Append a record to an input topic; return its offset."""
        raw = value if isinstance(value, bytes) else orjson.dumps(value)
        return self.cluster.publish(Send(topic, None, key, raw))

    def read(self, topic: str) -> list[Stored]:
        """Return all records of a topic, partition by partition."""
        return [record for p in range(self.cluster.partitions(topic)) for record in self.cluster.log(topic, p).read(0)]

    def allocations(self, portfolio: str | None = None) -> list[dict[str, Any]]:
        """Return the fields of all allocations, or of one portfolio's."""
        found = [orjson.loads(record.value or b"") for record in self.read("allocations")]
        return [fields for fields in found if portfolio in {None, fields["portfolio_id"]}]

    def advance(self, seconds: float) -> None:
        """Process everything, advance the clock, let every fold act on it, process everything again."""
        self.run()
        self.now_ns += int(seconds * SECOND_NS)
        for fold, processor in self.processors.values():
            result_of(processor.act(partial(fold.elapse, self.now_ns)))
        self.run()

    # -- the worker ------------------------------------------------------------------------------------------------
    def start(self) -> None:
        """Start a worker: every processor recovers from the state its predecessor left."""
        self.processors: dict[tuple[str, int], tuple[Timed, Processor]] = {}
        self.ports: dict[tuple[str, int], MemoryPorts] = {}
        self.cursors = dict(self.committed)
        self.desk = None if self.policy is None else self._policy_client(self.policy)
        for stage in TOPOLOGY:
            if isinstance(stage, Stage):
                for partition in range(self.cluster.partitions(stage.source)):
                    self._own(stage, partition)

    def _own(self, stage: Stage, partition: int) -> None:
        source = stage.source
        store = self.stores.setdefault((source, partition), LocalStore())
        ports = MemoryPorts(
            self.cluster,
            processor=stage.name,
            source=source,
            partition=partition,
            tables=stage.tables,
            store=store,
            pause=self.pause,
        )
        fold = stage.fold(self.context, partition)
        processor = Processor(
            fold,
            ports,
            partition=partition,
            clock=lambda: self.now_ns,
            checkpoint_entries=self.checkpoint_entries,
            contiguous=stage.contiguous,
        )
        self.ports[source, partition] = ports
        self.processors[source, partition] = (fold, processor)
        self.cursors[source, partition] = result_of(processor.recover())

    def run(self) -> None:
        """Process records until none is left."""
        moved = 1
        while moved:
            moved = sum(self._ingest(topic) for topic in INTAKES) + sum(self._take(*place) for place in self.processors)
            moved += self._ask()

    def checkpoint(self) -> None:
        """Write every processor's checkpoint now."""
        for _, processor in self.processors.values():
            result_of(processor.checkpoint())

    def crash(self) -> None:
        """Drop everything in memory and start again; ingest reads from its committed offsets."""
        self.start()

    def drain(self, to_version: int) -> list[int]:
        """Hand every journal partition over to another version, as `himari worker --drain`; return the offsets."""
        places = []
        for (source, partition), (fold, processor) in self.processors.items():
            if isinstance(fold, SizingFold):
                ports = self.ports[source, partition]
                places.append(result_of(drain(fold, processor, ports, to_version, lambda: self.now_ns)))
        return places

    def upgrade(self, version: int, migrations: Mapping[tuple[int, int], Migration]) -> None:
        """Start a worker of another version on the existing topics and stores."""
        self.context = self.context._replace(version=version, migrations=migrations)
        self.start()

    def _ingest(self, topic: str) -> bool:
        moved = False
        for partition in range(self.cluster.partitions(topic)):
            for record in self.cluster.log(topic, partition).read(self.cursors.get((topic, partition), 0)):
                place = SourcePlace(topic, 0, partition, record.offset)
                for send in ingest(place, record, self.now_ns, self.partitions):
                    self.cluster.publish(send)
                self.cursors[topic, partition] = self.committed[topic, partition] = record.offset + 1
                moved = True
        return moved

    def _policy_client(self, policy: Adapter) -> PolicyClient:
        """Return a new policy client: the state of its circuit breaker is lost with its worker."""
        return PolicyClient(
            policy,
            timeout_s=DEADLINE_S,
            params=BreakerParams(),
            clock=lambda: self.now_ns,
            breaker_clock=lambda: self.now_ns,
        )

    def _ask(self) -> bool:
        """Let the policy answer its questions, as the side agent does."""
        moved = False
        if self.desk is None:
            return moved
        for partition in range(self.partitions):
            place = (POLICY.source, partition)
            for record in self.cluster.log(*place).read(self.cursors.get(place, 0)):
                request = wire.decode_ours(RlRequest, record.value or b"", place=POLICY.source)
                outcome = result_of(self.desk.answer(request))
                self.cluster.publish(entry_of(outcome.result, self.now_ns, self.partitions))
                self.cursors[place] = self.committed[place] = record.offset + 1
                moved = True
        return moved

    def _take(self, source: str, partition: int) -> bool:
        _, processor = self.processors[source, partition]
        records = self.cluster.log(source, partition).read(self.cursors[source, partition])
        if not records:
            return False
        result_of(processor.take(records, lambda: None))
        self.cursors[source, partition] = records[-1].offset + 1
        return True
