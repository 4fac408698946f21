"""Market: aggregates the ticks of one partition of `prices` into steps of the journal, which sees no ticks."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import orjson

from engines.models import collar
from engines.models.collar import Collar, Ohlc, Suspect
from engines.numerics.exact import exp
from engines.parameters import DecisionParams, MarketParams
from engines.state.capacity import SYMBOLS_MAX
from schemas import wire
from schemas.errors import InvalidMessage
from schemas.price import PlainTick
from schemas.rules import Fault
from schemas.wire import RefusedTick, Ticks
from streams.journal import entries as journal
from streams.journal.dead_letters import dead_letter, tick_letters
from streams.journal.entries import SourcePlace
from streams.processing.ports import FoldRecord, Identity, Record, RecordKey, Send
from streams.stages.ingest import AHEAD_NS
from streams.stages.lateness import LastingLateness, Lateness

SECOND_NS = 1_000_000_000
TABLE = "open-steps"
OPEN: RecordKey = (TABLE, b"open")
LATENESS: RecordKey = (TABLE, b"lateness")
QUOTE = b"quote:"
"""Prefix of the key of a symbol's last price."""

StepPrices = list[float]
"""[open, high, low, close, volume in coins, ticks]"""


class MarketFold:
    """One partition of `prices`: the open step of its symbols, and the last price of each.

    A step covers (start, end]. It is journaled, all symbols in one message, when a tick of a later step arrives or
    when the clock is one second past its end; it is never reopened. A tick of an older step counts in the open one
    if it is newer than the last tick of its own symbol, so that a fast clock of another symbol does not drop it.
    Otherwise it is late and ignored, as is one so far behind the open step that its price is too old to size with
    (`max_price_age_s`).

    A tick far from its symbol's last price is suspect, and ignored until another agrees (`engines/models/collar.py`).
    """

    tables = (TABLE,)
    audited = None

    def __init__(
        self,
        partition: int,
        partitions: int,
        params: Callable[[], DecisionParams],
        clock: Callable[[], int],
        note: Callable[[str, int], None] | None = None,
    ) -> None:
        """Fold `partition` of `prices` into journals of `partitions`.

        `params` returns the settings in force, `clock` returns ns since 1970. `note` is called with a name and a count:
        ticks that are late, suspect, clipped or refused, alerts by kind, and dead letters by error code.
        """
        self.partition = partition
        self.partitions = partitions
        self.params = params
        self.step_s = params().market.step_s
        self.clock = clock
        self.note = note or (lambda _name, _count: None)
        self.touched: dict[RecordKey, int] = {}
        self.step = -1
        self.symbols: dict[str, StepPrices] = {}
        self.quotes: dict[str, Collar] = {}
        self.lateness = Lateness()

    def fold(self, record: Record) -> list[Send]:
        """Fold one price message; return the steps it closed, alerts, and a dead letter for each refused tick."""
        place = SourcePlace("prices", 0, self.partition, record.offset)
        try:
            found = wire.decode_ticks(record.value, place="prices")
            ticks, refused = self._admitted(found)
        except InvalidMessage as error:
            self.note(error.code, 1)
            return [dead_letter(place, record, error)]
        sends = self._take(ticks, record.offset) if ticks else []
        if refused:
            self.note("refused_tick", len(refused))
            letters = tick_letters(place, record, refused)
            for each in refused[: len(letters)]:
                self.note(each.error.code, 1)
            sends += letters
        return sends

    # -- validation -----------------------------------------------------------------------------------------------
    def _admitted(self, found: Ticks) -> tuple[list[PlainTick], list[RefusedTick]]:
        """Return the accepted ticks, and those refused for their form, their time or their symbol.

        Raises:
            InvalidMessage: the only tick of a message without a list is refused.
        """
        ticks, now_ns = found.ticks, self.clock()
        latest_ns = max([tick["timestamp_ns"] for tick in ticks], default=0)
        if latest_ns <= now_ns + AHEAD_NS and len(self.quotes) + len(ticks) <= SYMBOLS_MAX:
            return ticks, found.refused
        good, bad, symbols = [], list(found.refused), dict.fromkeys(self.quotes)
        for number, tick in zip(found.numbers, ticks, strict=True):
            fault = _in_future(tick, now_ns) or _one_too_many(tick, symbols)
            if fault is None:
                symbols[tick["symbol"]] = None
                good.append(tick)
                continue
            error = wire.refused_tick(number if found.many else None, fault, place="prices")
            if not found.many:
                raise error
            bad.append(RefusedTick(number, error))
        return good, sorted(bad, key=lambda each: each.number)

    # -- aggregation ----------------------------------------------------------------------------------------------
    def _take(self, ticks: Sequence[PlainTick], offset: int) -> list[Send]:
        """Aggregate ticks; return the steps they closed, and alerts."""
        params, counted = self.params(), self.lateness.counted
        oldest_ns = int(params.validation_criteria.max_price_age_s * SECOND_NS)
        step_ns = self.step_s * SECOND_NS if self.symbols else self._follow_width()
        sends: list[Send] = []
        alerts: list[dict[str, Any]] = []
        late = 0
        for tick in ticks:
            symbol, at_ns = tick["symbol"], tick["timestamp_ns"]
            step = (at_ns - 1) // step_ns
            if step < self.step and self._is_late(symbol, at_ns, (self.step + 1) * step_ns - oldest_ns):
                late += 1
                self.lateness.late(symbol)
                continue
            candle = self._believed(tick, params.market, alerts)
            if candle is None:
                continue
            if step > self.step:
                sends += self._close()
                step_ns = self._follow_width()
                self.step = (at_ns - 1) // step_ns
            self._add(symbol, candle, tick.get("volume") or 0.0)
            if lasting := counted(symbol, at_ns):
                alerts += map(self._of_finding, lasting)
        if late:
            self.note("late_tick", late)
        self._touch(ticks, offset)
        return sends + [self._alert(fields, offset, number) for number, fields in enumerate(alerts)]

    def _touch(self, ticks: Sequence[PlainTick], offset: int) -> None:
        self.touched[OPEN] = self.touched[LATENESS] = offset
        for symbol in dict.fromkeys([tick["symbol"] for tick in ticks]):
            self.touched[TABLE, QUOTE + symbol.encode()] = offset

    def _is_late(self, symbol: str, at_ns: int, oldest_ns: int) -> bool:
        """Return whether a tick of a step before the open one is ignored."""
        quote = self.quotes.get(symbol)
        return at_ns < oldest_ns or (quote is not None and at_ns <= quote.at_ns)

    def _believed(
        self, tick: PlainTick, params: MarketParams, alerts: list[dict[str, Any]]
    ) -> tuple[float, float, float, float] | None:
        """Return a tick's (open, high, low, close) within the collar, or None if its price is suspect.

        Only the first suspect tick in a row raises an alert.
        """
        symbol, price, at_ns = tick["symbol"], tick["price"], tick["timestamp_ns"]
        low, high = tick.get("low"), tick.get("high")
        candle = (price, price if high is None else high, price if low is None else low, price)
        before = self.quotes.get(symbol)
        if before is not None and collar.is_near(before.price, candle[1], candle[2], params):
            self.quotes[symbol] = Collar(price, at_ns if at_ns > before.at_ns else before.at_ns)  # noqa: FURB136 (hot)
            return candle
        self.quotes[symbol], judged = collar.step(before, Ohlc(*candle), at_ns, None, params)
        if judged.candle is None and before is not None:
            self.note("suspect_tick", 1)
            if before.suspect is None:
                alerts.append(_of_suspect(symbol, price, before.price, judged.reach, at_ns))
        elif judged.clipped:
            self.note("clipped_tick", 1)
        return judged.candle

    def _add(self, symbol: str, candle: tuple[float, float, float, float], volume: float) -> None:
        prices = self.symbols.get(symbol)
        if prices is None:
            self.symbols[symbol] = [*candle, volume, 1]
            return
        _, high, low, close = candle
        prices[1] = max(prices[1], high)
        prices[2] = min(prices[2], low)
        prices[3] = close
        prices[4] += volume
        prices[5] += 1

    # -- output ---------------------------------------------------------------------------------------------------
    def _of_finding(self, finding: LastingLateness) -> dict[str, Any]:
        subject = f"prices/{self.partition}: {_named(finding.symbols)}"
        return _fields(finding.kind, subject, finding.value, finding.threshold, finding.at_ns)

    def _alert(self, fields: dict[str, Any], offset: int, number: int) -> Send:
        """Return an alert; its id is derived from its place in `prices`, so a repeat has the same id."""
        kind = fields["kind"]
        self.note(kind, 1)
        alert_id = f"prices-{self.partition}-{offset}-{kind}-{number}-{fields['timestamp_ns']}"
        value = orjson.dumps({**fields, "alert_id": alert_id}, option=orjson.OPT_SORT_KEYS)
        return Send("alerts", None, fields["subject"].encode(), value)

    def elapse(self, now_ns: int) -> list[Send]:
        """Return the open step if the clock is one second past its end.

        The record is not marked as touched: it keeps the last tick's offset, and sizing drops a repeated step.
        """
        if now_ns < (self.step + 1) * self.step_s * SECOND_NS + SECOND_NS:
            return []
        return self._close()

    def flush(self) -> list[Send]:
        """Return the open step regardless of the clock: no more ticks follow."""
        return self._close()

    def _follow_width(self) -> int:
        """Adopt the step width in force while no step is open; return it in ns. Closed steps stay closed.

        An open step keeps its width: closed early, its end would be after the ends of the steps that follow, and sizing
        would drop those as older.
        """
        width = self.params().market.step_s
        if width != self.step_s:
            self.step = self.step * self.step_s // width
            self.step_s = width
        return width * SECOND_NS

    def _close(self) -> list[Send]:
        """Return the open step and open the next one."""
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
        self.step += 1
        return [Send(journal.TOPIC, partition, None, value) for partition in range(self.partitions)]

    # -- checkpoint ------------------------------------------------------------------------------------------------
    def encode(self, key: RecordKey) -> bytes | None:
        """Return the open step, the lateness windows, or one symbol's last price."""
        _, name = key
        if name.startswith(QUOTE):
            return orjson.dumps(self.quotes[name.removeprefix(QUOTE).decode()], default=tuple)
        return orjson.dumps(self.lateness.plain() if key == LATENESS else [self.step_s, self.step, self.symbols])

    def meta(self) -> dict[str, object]:
        """Return an empty mapping: the records hold everything."""
        return {}

    def restore(self, _meta: Mapping[str, object] | None, records: Mapping[RecordKey, bytes]) -> None:
        """Restore the open step, the lateness windows and the last prices."""
        self.touched = {}
        empty: tuple[int, int, dict[str, StepPrices]] = (self.params().market.step_s, -1, {})
        self.step_s, self.step, self.symbols = orjson.loads(records[OPEN]) if OPEN in records else empty
        self.lateness = Lateness.of(orjson.loads(records[LATENESS])) if LATENESS in records else Lateness()
        self.quotes = {
            name.removeprefix(QUOTE).decode(): _quote(orjson.loads(value))
            for (_, name), value in records.items()
            if name.startswith(QUOTE)
        }

    def refold(self) -> FoldRecord:
        """Become the state before the first tick; return `fold`."""
        self.restore(None, {})
        return self.fold

    def identify(self, value: bytes) -> tuple[Identity, int]:
        """Never called: no output is audited; steps carry their own identity, and sizing drops repeats."""
        raise ValueError(value)


def _quote(row: list[Any]) -> Collar:
    price, at_ns, suspect = row
    return Collar(price, at_ns, suspect and Suspect(*suspect))


def _in_future(tick: PlainTick, now_ns: int) -> Fault | None:
    ahead_ns = tick["timestamp_ns"] - now_ns
    if ahead_ns <= AHEAD_NS:
        return None
    rule = f"must be at most 5 s ahead of the clock, was {ahead_ns / SECOND_NS:.3f} s ahead"
    return Fault("in_future", "timestamp_ns", rule)


def _one_too_many(tick: PlainTick, known: Mapping[str, None]) -> Fault | None:
    """Return why a tick is refused if its symbol exceeds the maximum number of symbols, else None."""
    if tick["symbol"] in known or len(known) < SYMBOLS_MAX:
        return None
    rule = f"must be one of at most {SYMBOLS_MAX} symbols in a step, was {tick['symbol']!r}, a new one"
    return Fault("out_of_range", "symbol", rule)


def _named(symbols: tuple[str, ...]) -> str:
    """Return the first three symbols, and the number of others."""
    shown, left = symbols[:3], len(symbols) - 3
    return ", ".join(shown) + (f" and {left} more" if left > 0 else "")


def _of_suspect(symbol: str, price: float, last: float, reach: float, at_ns: int) -> dict[str, Any]:
    bound = last * exp(reach if price > last else -reach)
    return _fields("suspect_price", symbol, price, bound, at_ns)


def _fields(kind: str, subject: str, value: float, threshold: float, at_ns: int) -> dict[str, Any]:
    return {
        "journal": None,
        "kind": kind,
        "result": None,
        "severity": "warning",
        "subject": subject,
        "threshold": threshold,
        "timestamp_ns": at_ns,
        "value": value,
    }
