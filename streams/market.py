"""Market: ticks of one partition of `prices` become steps in the journal. Ticks are the heavy load; they stop here."""

from collections.abc import Callable, Mapping

import orjson

from engines.limits import SYMBOLS_MAX
from schemas import wire
from schemas.errors import InvalidMessage, InvalidPriceException
from schemas.price import PlainTick
from streams import journal
from streams.dead_letters import dead_letter
from streams.ingest import AHEAD_NS
from streams.journal import Place
from streams.ports import Identity, Record, RecordKey, Send

SECOND_NS = 1_000_000_000
TABLE = "open-steps"
OPEN: RecordKey = (TABLE, b"open")

Prices = list[float]
"""[open, high, low, close, volume in coins, ticks]"""


class MarketFold:
    """One partition of `prices`: the open step of its symbols.

    A step covers (start, end]. It is journaled, all symbols in one message, when a tick of a later step arrives or
    when the clock is one second past its end; a tick of a step that is closed is late: counted, never reopened.
    """

    tables = (TABLE,)
    audited = None

    def __init__(
        self,
        partition: int,
        partitions: int,
        step_s: Callable[[], int],
        clock: Callable[[], int],
        note: Callable[[str, int], None] | None = None,
    ) -> None:
        """Fold `partition` of `prices` into journals of `partitions`.

        `step_s` gives the width in force, `clock` gives ns since 1970, `note` is told of late ticks and of
        the rules that refused messages broke.
        """
        self.partition = partition
        self.partitions = partitions
        self.width = step_s
        self.step_s = step_s()
        self.clock = clock
        self.note = note or (lambda _name, _count: None)
        self.touched: dict[RecordKey, int] = {}
        self.step = -1
        self.symbols: dict[str, Prices] = {}

    def fold(self, record: Record) -> list[Send]:
        """Fold one price message; return the steps that it closed, or the dead letter that it is."""
        try:
            ticks = wire.decode_prices(record.value, place="prices")
            _refuse_future(max(tick["timestamp_ns"] for tick in ticks), self.clock())
            self._refuse_flood(ticks)
        except InvalidMessage as error:
            self.note(error.code, 1)
            return [dead_letter(Place("prices", 0, self.partition, record.offset), record, error)]
        self.touched[OPEN] = record.offset
        if not self.symbols:
            self._follow_width()
        sends: list[Send] = []
        step_ns = self.step_s * SECOND_NS
        late = 0
        for tick in ticks:
            step = (tick["timestamp_ns"] - 1) // step_ns
            if step > self.step:
                sends += self._close()
                step_ns = self._follow_width()
                self.step = (tick["timestamp_ns"] - 1) // step_ns
            elif step < self.step:
                late += 1
                continue
            self._add(tick)
        if late:
            self.note("late_tick", late)
        return sends

    def _refuse_flood(self, ticks: list[PlainTick]) -> None:
        """Refuse a message after which the open step could hold more symbols than a journal partition takes.

        Raises:
            InvalidPriceException: place, rule and value.
        """
        if len(self.symbols) + len(ticks) <= SYMBOLS_MAX:
            return
        fresh = {tick["symbol"]: None for tick in ticks if tick["symbol"] not in self.symbols}
        if len(self.symbols) + len(fresh) > SYMBOLS_MAX:
            name = next(reversed(fresh))
            rule = f"must be one of at most {SYMBOLS_MAX} symbols in a step, was {name!r}, a new one"
            raise InvalidPriceException("out_of_range", "symbol", f"prices: symbol {rule}")

    def _add(self, tick: PlainTick) -> None:
        price, low, high, volume = tick["price"], tick.get("low"), tick.get("high"), tick.get("volume") or 0.0
        low = price if low is None else low
        high = price if high is None else high
        prices = self.symbols.get(tick["symbol"])
        if prices is None:
            self.symbols[tick["symbol"]] = [price, high, low, price, volume, 1]
            return
        prices[1] = max(prices[1], high)
        prices[2] = min(prices[2], low)
        prices[3] = price
        prices[4] += volume
        prices[5] += 1

    def elapse(self, now_ns: int) -> list[Send]:
        """Return the open step if the clock is one second past its end.

        The record is not marked as touched: it stays of the last tick's offset, and a repeated step does no harm.
        """
        if not self.symbols or now_ns < (self.step + 1) * self.step_s * SECOND_NS + SECOND_NS:
            return []
        closed = self._close()
        self.step += 1
        return closed

    def flush(self) -> list[Send]:
        """Return the open step, whatever the clock says: nothing follows."""
        return self._close()

    def _follow_width(self) -> int:
        """Take the width in force, as nothing is open; return it in ns. What is closed stays closed.

        An open step keeps its width: closed early, its end would lie ahead of the steps that follow, and sizing would
        drop those as older.
        """
        width = self.width()
        if width != self.step_s:
            self.step = self.step * self.step_s // width
            self.step_s = width
        return width * SECOND_NS

    def _close(self) -> list[Send]:
        if not self.symbols:
            return []
        body = {
            "source_partition": self.partition,
            "step": self.step,
            "step_s": self.step_s,
            "symbols": self.symbols,
        }
        end_ns = (self.step + 1) * self.step_s * SECOND_NS
        value = journal.internal("step", body, self.clock(), end_ns)
        self.symbols = {}
        return [Send(journal.TOPIC, partition, None, value) for partition in range(self.partitions)]

    # -- checkpoint ------------------------------------------------------------------------------------------------
    def encode(self, _key: RecordKey) -> bytes | None:
        """Return the open step."""
        return orjson.dumps([self.step_s, self.step, self.symbols])

    def meta(self) -> dict[str, object]:
        """Return nothing: the open step is all there is."""
        return {}

    def restore(self, _meta: Mapping[str, object] | None, records: Mapping[RecordKey, bytes]) -> None:
        """Take the open step back."""
        self.touched = {}
        fresh: tuple[int, int, dict[str, Prices]] = (self.width(), -1, {})
        self.step_s, self.step, self.symbols = orjson.loads(records[OPEN]) if OPEN in records else fresh

    def identify(self, value: bytes) -> tuple[Identity, int]:
        """Never called: steps carry their own identity and repeats of them are dropped."""
        raise ValueError(value)


def _refuse_future(timestamp_ns: int, now_ns: int) -> None:
    if timestamp_ns > now_ns + AHEAD_NS:
        ahead_s = (timestamp_ns - now_ns) / SECOND_NS
        text = f"prices: timestamp_ns must be at most 5 s ahead of the clock, was {ahead_s:.3f} s ahead"
        raise InvalidPriceException("in_future", "timestamp_ns", text)
