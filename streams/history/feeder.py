"""The feeder: runs history through ingest and market in process, in event-time order, directly into the journal.

Its clock is the event time. Its records belong to epoch 0 of the sources; `close` opens epoch 1, in which the live
topics start at offset 0.
"""

from collections.abc import Iterable, Iterator

from engines.parameters import DecisionParams
from streams.history.feed import FeedEvent
from streams.journal import entries as journal
from streams.journal.entries import SourcePlace
from streams.processing.clock import ManualClock
from streams.processing.memory_cluster import Stored
from streams.processing.partitioner import partition_of
from streams.processing.ports import Send
from streams.stages.ingest import INTAKES, ingest
from streams.stages.market import MarketFold

LIVE_EPOCH = 1


class Feeder:
    """Turns events into records to publish: journal entries and dead letters."""

    def __init__(self, partitions: int, price_partitions: int, params: DecisionParams, start_ns: int) -> None:
        """Feed a journal of `partitions` partitions; symbols map to `price_partitions` as in the topic `prices`.

        `params`: the decision settings in force. `start_ns`: initial time of the clock.
        """
        self.partitions = partitions
        self.clock = ManualClock(start_ns)
        self._offsets: dict[str, int] = {}
        self._markets = [
            MarketFold(partition, partitions, lambda: params, self.clock.now_ns)
            for partition in range(price_partitions)
        ]

    def feed(self, events: Iterable[FeedEvent]) -> Iterator[list[Send]]:
        """Yield the records of each event; steps are closed when the clock has passed them."""
        for event in events:
            self.clock.move_to(max(self.clock.now_ns(), event.time_ns))
            sends = self._elapsed()
            yield sends + self._take(event)

    def elapse(self, now_ns: int) -> list[Send]:
        """Move the clock to `now_ns`, unless it is later already; return the steps that this closes."""
        self.clock.move_to(max(self.clock.now_ns(), now_ns))
        return self._elapsed()

    def close(self) -> list[Send]:
        """Close the open steps, and open the live epoch of every source."""
        sends = [send for market in self._markets for send in market.flush()]
        for topic in INTAKES:
            value = journal.internal("adopt", {"epoch": LIVE_EPOCH, "topic": topic}, self.clock.now_ns())
            sends += [Send(journal.TOPIC, partition, None, value) for partition in range(self.partitions)]
        return sends

    def _elapsed(self) -> list[Send]:
        now_ns = self.clock.now_ns()
        return [send for market in self._markets for send in market.elapse(now_ns)]

    def _take(self, event: FeedEvent) -> list[Send]:
        offset = self._offsets[event.topic] = self._offsets.get(event.topic, -1) + 1
        record = Stored(offset, event.key, event.value)
        if event.topic == "prices":
            return self._markets[partition_of(event.key, len(self._markets))].fold(record)
        return ingest(SourcePlace(event.topic, 0, 0, offset), record, self.clock.now_ns(), self.partitions)
