"""Follows topics for the page: the newest records first, then every new one; `allocations` also back to its beginning.

No consumer group, nothing is written. A feed that fails is tried again, and says why it fails.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import aclosing
from typing import Any, Final

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError

from schemas.errors import SizingError
from streams.journal.topics import DLQ, INPUTS, Names
from streams.kafka import read
from streams.kafka.connection import Connection, refusal
from streams.monitoring.rare_log import RareLog
from streams.page.model import PageModel
from streams.page.scene import NOT_READ_YET

logger = logging.getLogger(__name__)

WINDOW: Final = 500
"""Records of each partition that are read first, from its end."""
BACK_WINDOW: Final = 2_000
"""Records of one step back in `allocations`."""
BACK_MAX: Final = 100_000
"""Records of each partition of `allocations` that are searched for further portfolios."""
BACK_PAUSE_S: Final = 0.2
"""Between two steps back: the page must not load the broker."""
CHUNK: Final = 600
"""Records of one poll of which each is decoded. Of more, only the last of each partition and the newest of each
portfolio are: a page must not cost a busy worker its time."""
TAIL: Final = 50
"""Last records of a partition that are decoded in any case."""
POLL_MS: Final = 250
PACE_S, BUSY_PACE_S = 0.2, 1.0
"""Time between two polls, and after one of more than `CHUNK` records."""
RETRY_S: Final = 3.0

Take = Callable[[str, Sequence[Any], bool], None]
"""Takes records of one partition of a topic (logical name), in order; True: they are many."""


class PageFeeds:
    """The feeds of one page. They fill its model while `run` runs."""

    def __init__(self, connection: Connection, names: Names, model: PageModel) -> None:
        self._connection, self._names, self.model = connection, names, model
        self.problems: dict[str, str] = {}
        """What is wrong with each feed; "" if it is read."""
        self.complete = False
        """Whether `allocations` has been searched for every portfolio."""
        self.partitions = 0
        """Partitions of `allocations`; 0 before they are known."""
        self._log = RareLog(logger)
        self._read_to: dict[TopicPartition, int] = {}
        """Where each partition is read on, after a failure too: what is left out would look like a gap."""
        self._searched_to: dict[TopicPartition, int] = {}
        """Offsets of `allocations` before which older records are searched."""

    async def run(self) -> None:
        """Follow all topics until cancelled."""
        letters = [topic.name + DLQ for topic in INPUTS]
        await asyncio.gather(
            self._keep("allocations", ["allocations", "alerts"], self._take_output),
            self._keep("orders", ["control"], self._take_order),
            self._keep("dead letters", letters, self._take_letter),
            self._search_back(),
        )

    async def _keep(self, name: str, topics: Sequence[str], take: Take) -> None:
        """Follow topics; start again after a failure, with the reason told."""
        self.problems.setdefault(name, NOT_READ_YET)
        while True:
            try:
                await self._follow(name, topics, take)
            except (SizingError, KafkaError, OSError, TimeoutError) as error:
                self.problems[name] = str(refusal(error, "read") or error) or type(error).__name__
                self._log.tell("the page cannot read %s: %s", name, self.problems[name])
            await asyncio.sleep(RETRY_S)

    async def _follow(self, name: str, topics: Sequence[str], take: Take) -> None:
        logical = {self._names.topic(topic): topic for topic in topics}
        found = await read.places_of(self._connection, logical)
        places = [place for each in found.values() for place in each]
        async with read.reader(self._connection, places) as consumer:
            ends = await read.ends(consumer, places)
            begins = await consumer.beginning_offsets(places)
            firsts = {place: self._first_of(place, begins[place], ends[place]) for place in places}
            for place, first in firsts.items():
                consumer.seek(place, first)
            if name == "allocations":
                here = found[self._names.topic("allocations")]
                self.partitions = len(here)
                self._searched_to = self._searched_to or {place: firsts[place] for place in here}
            await self._poll(name, consumer, ends, logical, take)

    def _first_of(self, place: TopicPartition, begin: int, end: int) -> int:
        """Return where to read a partition from: where it was left, or else a window before its end."""
        known = self._read_to.get(place)
        return max(begin, end - WINDOW) if known is None else min(max(begin, known), end)

    async def _poll(
        self,
        name: str,
        consumer: AIOKafkaConsumer,
        ends: Mapping[TopicPartition, int],
        logical: Mapping[str, str],
        take: Take,
    ) -> None:
        """Take records as they come; the feed is told to be read once it has come to the ends that it began with."""
        behind = dict(ends)
        while True:
            chunk = await consumer.getmany(timeout_ms=POLL_MS)
            many = sum(map(len, chunk.values())) > CHUNK
            for place, records in chunk.items():
                take(logical[place.topic], records, many)
                self._read_to[place] = records[-1].offset + 1
            for place in list(behind):
                if await consumer.position(place) >= behind[place]:
                    del behind[place]
            if not behind:
                self.problems[name] = ""
            await asyncio.sleep(BUSY_PACE_S if many else PACE_S)

    # -- what is taken ---------------------------------------------------------------------------------------------
    def _take_output(self, topic: str, records: Sequence[Any], many: bool) -> None:  # noqa: FBT001 as `Take`
        if topic == "alerts":
            for record in records:
                self.model.take_alert(record.value or b"")
            return
        tail = len(records) - TAIL if many else 0
        for record in {record.key: record for record in records[: max(tail, 0)]}.values():
            self.model.take_allocation(record.value or b"", record.partition, record.offset, skipped=True)
        for record in records[max(tail, 0) :]:
            self.model.take_allocation(record.value or b"", record.partition, record.offset)

    def _take_order(self, _topic: str, records: Sequence[Any], _many: bool) -> None:  # noqa: FBT001 as `Take`
        for record in records:
            self.model.take_order(record.value or b"")

    def _take_letter(self, topic: str, records: Sequence[Any], _many: bool) -> None:  # noqa: FBT001 as `Take`
        source = topic.removesuffix(DLQ)
        for record in records:
            self.model.take_letter(source, record.partition, record.offset, record.timestamp, tuple(record.headers))

    # -- further back ----------------------------------------------------------------------------------------------
    async def _search_back(self) -> None:
        """Search `allocations` backwards for portfolios that have not decided lately."""
        while self.problems.get("allocations", NOT_READ_YET):
            await asyncio.sleep(POLL_MS / 1_000)
        whole = True
        for place, first in sorted(self._searched_to.items()):
            whole = await self._search(place, first) and whole
        self.complete = whole

    async def _search(self, place: TopicPartition, first: int) -> bool:
        """Search one partition from an offset backwards; return whether its beginning was reached."""
        stop = max(0, first - BACK_MAX)
        while first > stop:
            begin = max(stop, first - BACK_WINDOW)
            try:
                found = [record async for record in self._span(place, begin, first)]
            except (SizingError, KafkaError, OSError, TimeoutError) as error:
                self._log.tell("the page cannot search %s: %s", place.topic, error)
                await asyncio.sleep(RETRY_S)
                continue
            newest = {record.key: record for record in found}.values()
            self.model.take_older((record.value or b"", record.partition, record.offset) for record in newest)
            first = begin
            await asyncio.sleep(BACK_PAUSE_S)
        return first == 0

    async def _span(self, place: TopicPartition, begin: int, end: int) -> AsyncIterator[Any]:
        async with aclosing(read.records(self._connection, place, begin, end)) as records:
            async for record in records:
                yield record
