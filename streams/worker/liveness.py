# ruff: noqa: SLF001 - Faust has no public access to the state of its agents, recovery and consumer
"""Observes the parts of a worker: the lag of each partition, and the vitals that the watchdog checks."""

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any, Final

import faust
from aiokafka import TopicPartition
from aiokafka.errors import KafkaError
from faust.exceptions import ConsumerNotStarted
from faust.types import TP

from schemas.errors import BrokerUnreachable
from streams.journal.topics import Names
from streams.kafka import read
from streams.kafka.connection import Connection
from streams.worker.partition_owners import StageOwner
from streams.worker.stall_detector import PartitionWork, Vital, Waits, late, partition_vital

DEATH_S: Final = 10.0
"""Faust restarts a cancelled agent within 5 s, but not one whose stream has ended."""
REBALANCE_S: Final = 60.0
"""How long a group may wait for a slow member to rejoin: Faust's `broker_rebalance_timeout`."""
LOOKS: Final = 4
"""How often the log ends are read within the patience."""
LOOK_TIMEOUT_S: Final = 10.0


class Vitals:
    """The parts of one running worker.

    `sources`: logical names of the topics it reads. `patience_s` and `lag_records` return the current settings.
    """

    def __init__(
        self,
        app: faust.App,
        connection: Connection,
        names: Names,
        sources: Sequence[str],
        owners: Sequence[StageOwner],
        *,
        patience_s: Callable[[], float],
        lag_records: Callable[[], int],
    ) -> None:
        self._app, self._connection = app, connection
        self._sources = {names.topic(source): source for source in sources}
        self._names, self._known = names, owners
        self._patience_s, self._lag_records = patience_s, lag_records
        self._ends: dict[TP, int] = {}
        self.waits = Waits()

    @property
    def _owners(self) -> Mapping[str, StageOwner]:
        """The current owners by topic: they are created after this object."""
        return {self._names.topic(owner.stage.source): owner for owner in self._known}

    # -- questions -----------------------------------------------------------------------------------------------------
    def not_ready(self, records: int = 0) -> dict[str, str]:
        """Return, by partition or topic, why decisions here are not made or not up to date.

        `records`: how many a partition may be behind, if that is more than the setting.
        """
        assigned = self._assigned()
        if assigned is None:
            return {"consumer": "not started"}
        here = {tp.topic for tp in assigned}
        missing = {topic: "no partition assigned" for topic in self._owners if topic not in here}
        found = {work.place: late(work, max(self._lag_records(), records)) for work in self._partitions(assigned)}
        return missing | {place: why for place, why in found.items() if why}

    def all(self) -> tuple[Vital, ...]:
        """Return the vitals of all parts."""
        patience_s, assigned = self._patience_s(), self._assigned()
        member = assigned is not None and self._app.consumer.is_member()
        away = Vital("consumer", None if member else "away", "is not a member of its group", patience_s + REBALANCE_S)
        sending = self.waits.vital("publisher", "has waited for the acknowledgement of", patience_s)
        partitions = self._partitions(assigned) if member and assigned is not None else ()
        return (*self._agents(), sending, away, *(partition_vital(work, patience_s) for work in partitions))

    def lag(self, tp: TP, position: int) -> int | None:
        """Return how many records a partition has from a position on, None if that is not known."""
        end = self._end(tp)
        return None if end is None else max(0, end - position)

    async def follow_ends(self) -> None:
        """Read the log ends with a separate client: a stuck consumer does not know them."""
        while True:
            await asyncio.sleep(self._patience_s() / LOOKS)
            places = [TopicPartition(tp.topic, tp.partition) for tp in self._assigned() or ()]
            with suppress(BrokerUnreachable, KafkaError, OSError, TimeoutError):
                async with asyncio.timeout(LOOK_TIMEOUT_S):
                    found = await read.high_watermarks(self._connection, places)
                self._ends = {TP(place.topic, place.partition): end for place, end in found.items()}

    # -- observations -------------------------------------------------------------------------------------------------
    def _assigned(self) -> list[TP] | None:
        """Return the assigned partitions without changelogs; None before the consumer has started."""
        try:
            return sorted(tp for tp in self._app.consumer.assignment() if tp.topic in self._sources)
        except ConsumerNotStarted:
            return None

    def _agents(self) -> Iterator[Vital]:
        for name, agent in self._app.agents.items():
            if agent.started:
                tasks = [actor.actor_task for actor in agent._actors]
                alive = any(task is not None and not task.done() for task in tasks)
                yield Vital(f"agent {name}", None if alive else "dead", "has been stopped", DEATH_S)

    def _partitions(self, assigned: Sequence[TP]) -> Iterator[PartitionWork]:
        recovered = _total(self._app.tables.recovery.active_offsets)
        for tp in assigned:
            owner = self._owners.get(tp.topic)
            position, moves = self._app.consumer.acknowledged(tp), (recovered, 0, 0)
            if owner is not None:
                kept = owner.kept.get(tp.partition)
                position = self._folded(owner, tp)
                moves = (recovered, kept.ports.records_read, kept.processor.offset) if kept else moves
            ticks = owner is not None and owner.stage.idle_tick
            yield PartitionWork(f"{tp.topic}[{tp.partition}]", position, self._end(tp), moves, ticks)

    def _folded(self, owner: StageOwner, tp: TP) -> int | None:
        """Return the offset before which a partition is folded, including transaction markers at its end."""
        processor = owner.processors.get(tp.partition)
        if processor is None:
            return None
        position = processor.offset + 1
        if owner.stage.contiguous or position != self._app.consumer.delivered(tp):
            return position
        return max(position, int(self._app.consumer.fetched(tp)))

    def _end(self, tp: TP) -> int | None:
        """Return the end of a log, by the consumer or by `follow_ends`, whichever is higher."""
        known = [end for end in (self._app.consumer.highwater(tp), self._ends.get(tp)) if end is not None]
        return max(known, default=None)


def _total(offsets: Mapping[Any, int | None]) -> int:
    """Return the progress of Faust's recovery of the local stores, summed over all changelogs."""
    return sum(offset or 0 for offset in offsets.values())
