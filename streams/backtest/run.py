"""Runs a backtest: history through ingest, market and the fold of a worker, in event time, without a broker.

What happens around the end of a candle, at time T:

| time | what |
|---|---|
| T | the candle's price enters |
| T + 1 s | its step closes; claims that are due get their outcomes; strategies send their signals |
| T + 2 s | targets are filled at the open of the candle that begins at T; positions are reported |
"""

import hashlib
from collections.abc import Callable, Iterable, Sequence
from typing import Final, NamedTuple

from engines.handlers.effects import FoldResult, Journaled
from engines.parameters import DecisionParams
from streams.backtest.archive_writer import ArchiveWriter
from streams.backtest.broker import FILL_NS, BacktestBroker, Trading
from streams.backtest.funding import Funding
from streams.backtest.recorder import CascadeLog, CoverageLog, Curve, DecisionLog
from streams.backtest.rivals import SIZINGS, Rival
from streams.backtest.settlement import Settlement
from streams.backtest.sources import SignalSource
from streams.backtest.timeline import MarketInstant, instants
from streams.history.candle_row import SECOND_NS
from streams.history.candles import Candles, tick
from streams.history.feed import FeedEvent, event
from streams.history.feeder import Feeder
from streams.history.strategies import REACTION_NS
from streams.journal import entries as journal
from streams.journal.genesis import BACKTEST_ID, genesis
from streams.processing.memory_cluster import Stored
from streams.processing.ports import Send
from streams.stages.sizing import SizingFold

OUTPUT: Final = "allocations"
REFUSALS_KEPT: Final = 20


class Inputs(NamedTuple):
    """What a backtest runs on."""

    market: Sequence[Candles]
    source: SignalSource
    params: DecisionParams
    trading: Trading
    funding: Sequence[Funding] = ()
    since_ns: int = 0
    """Signals before are not sent, and nothing is recorded; candles before warm up."""
    compared: bool = True
    """Whether simpler sizings trade the same signals beside."""


class Prefix(NamedTuple):
    """The allocations up to a time: how many, and the sha256 (hex) of their bytes."""

    time_ns: int
    allocations: int
    sha256: str


class Run(NamedTuple):
    """What a backtest left."""

    curve: Curve
    decisions: DecisionLog
    cascades: CascadeLog
    coverage: CoverageLog
    broker: BacktestBroker
    settlement: Settlement
    rivals: Sequence[Rival]
    entries: int
    """Journal entries, Genesis included."""
    signals: int
    refused: dict[str, int]
    """Count by topic of inputs that became dead letters."""
    refusals: list[str]
    """Why the first of them did."""
    halfway: Prefix | None
    whole: Prefix


class Backtest:
    """One run. `on_progress` is called with the time of each instant."""

    def __init__(
        self,
        inputs: Inputs,
        *,
        archive: ArchiveWriter | None = None,
        halfway_ns: int = 0,
        on_progress: Callable[[int], None] = lambda _: None,
    ) -> None:
        self.inputs, self._archive, self._halfway_ns, self._on_progress = inputs, archive, halfway_ns, on_progress
        market = inputs.market
        start_ns = min(each.end_ns(each.rows[0]) for each in market)
        symbols = [each.symbol for each in market]
        self.broker = BacktestBroker(inputs.trading, inputs.params.portfolio.initial_value_usd)
        self.rivals = [
            Rival(name, inputs.params, inputs.trading, self.broker.prices) for name in SIZINGS if inputs.compared
        ]
        self.settlement = Settlement({each.symbol: each.width_s * SECOND_NS for each in market})
        self.curve = Curve(symbols, inputs.source.names())
        self.decisions, self.cascades = DecisionLog(), CascadeLog()
        self.coverage = CoverageLog(inputs.params.position_sizing.conformal_prediction)
        self._feeder = Feeder(1, 1, inputs.params, start_ns)
        self._fold = SizingFold(0, self._observe)
        self._offset = 0
        self._signals = 0
        self._sha = hashlib.sha256()
        self._refused: dict[str, int] = {}
        self._refusals: list[str] = []
        self._now_ns = 0
        self._expires_ns = 1 << 62
        """When the first claim expires that another sizing has taken."""
        self._funding = list(reversed([each for each in inputs.funding if each.time_ns >= start_ns]))
        self._enter(genesis(BACKTEST_ID, 1, inputs.params, start_ns))

    def run(self) -> Run:
        """Play the market to its end."""
        halfway = None
        for instant in instants(self.inputs.market):
            if instant.ended:
                self._close(instant)
            else:
                self._signal_until(instant.time_ns)
            if instant.time_ns == self._halfway_ns:
                halfway = self._prefix(instant.time_ns)
            self._open(instant)
            self._on_progress(instant.time_ns)
        return Run(
            self.curve,
            self.decisions,
            self.cascades,
            self.coverage,
            self.broker,
            self.settlement,
            self.rivals,
            self._offset,
            self._signals,
            self._refused,
            self._refusals,
            halfway,
            self._prefix(self._now_ns),
        )

    def _prefix(self, time_ns: int) -> Prefix:
        return Prefix(time_ns, len(self.decisions), self._sha.hexdigest())

    # -- one instant ---------------------------------------------------------------------------------------------------
    def _close(self, instant: MarketInstant) -> None:
        """Let candles end: prices, then outcomes, then the signals that follow from them."""
        end_ns = instant.time_ns
        self._signal_until(end_ns)
        self._fund_until(end_ns)
        self._feed([tick(symbol, end_ns, candle) for symbol, candle in instant.ended])
        self.broker.prices.update((symbol, candle.close) for symbol, candle in instant.ended)
        if end_ns > self.inputs.since_ns:
            self.curve.add(end_ns, self.broker)
            for rival in self.rivals:
                rival.record()
        self._publish(self._feeder.elapse(end_ns + REACTION_NS))
        for symbol, candle in instant.ended:
            self._feed(self.settlement.due(symbol, candle.close, end_ns))
        self.inputs.source.candles(instant.ended, end_ns)
        self._signal_until(end_ns + REACTION_NS)

    def _open(self, instant: MarketInstant) -> None:
        """Let candles begin: fill what is due at their opens, and report positions."""
        if not instant.opened:
            return
        self._signal_until(instant.time_ns + FILL_NS - 1)
        reports = self.broker.fill(instant.opened, instant.time_ns)
        self._feed(reports)
        for rival in self.rivals:
            rival.fill(instant.opened, (instant.time_ns + FILL_NS) / SECOND_NS)

    def _signal_until(self, until_ns: int) -> None:
        """Send the signals that are due; those before `since_ns` are passed over."""
        due = until_ns >= self._expires_ns
        for signal in self.inputs.source.between(self._now_ns, until_ns):
            if signal.time_ns < self.inputs.since_ns:
                continue
            due = True
            self._signals += 1
            message = signal.message
            self.settlement.claim(message, self.broker.prices.get(message.symbol))
            for rival in self.rivals:
                rival.signal(message)
            self._feed([FeedEvent(signal.time_ns, "signals", message.symbol.encode(), signal.value)])
        self._now_ns = max(self._now_ns, until_ns)
        if due and self.rivals:
            self._expires_ns = min(rival.aim(until_ns) for rival in self.rivals)

    def _fund_until(self, until_ns: int) -> None:
        """Pay the fundings that are due, and let sizing know their rates, as a feed of indicators would."""
        while self._funding and self._funding[-1].time_ns <= until_ns:
            due = self._funding.pop()
            self.broker.fund(due)
            for rival in self.rivals:
                rival.fund(due)
            fields = {
                "symbol": due.symbol,
                "funding_rate": due.rate,
                "funding_interval_hours": due.interval_hours,
                "timestamp_ns": due.time_ns,
            }
            self._feed([event(due.time_ns, "cascade-indicators", due.symbol, fields)])

    # -- the pipeline --------------------------------------------------------------------------------------------------
    def _feed(self, events: Iterable[FeedEvent]) -> None:
        for sends in self._feeder.feed(events):
            self._publish(sends)

    def _publish(self, sends: Iterable[Send]) -> None:
        """Fold journal entries; count dead letters."""
        for send in sends:
            if send.topic == journal.TOPIC:
                self._enter(send.value or b"", send.key)
            elif send.topic.endswith(".dlq"):
                self._refuse(send)

    def _enter(self, value: bytes, key: bytes | None = None) -> None:
        at_ns = self._feeder.clock.now_ns()
        if self._archive is not None:
            self._archive.add(journal.TOPIC, key, value, at_ns)
        sends = self._fold.fold(Stored(self._offset, key, value))
        self._fold.touched.clear()
        self._offset += 1
        for send in sends:
            if send.topic == OUTPUT:
                self._sha.update(send.value or b"")
                if self._archive is not None:
                    self._archive.add(OUTPUT, send.key, send.value or b"", at_ns)
            elif send.topic.endswith(".dlq"):
                self._refuse(send)
        if self._archive is not None:
            self._archive.settle()

    def _refuse(self, send: Send) -> None:
        topic = send.topic.removesuffix(".dlq")
        self._refused[topic] = self._refused.get(topic, 0) + 1
        if len(self._refusals) < REFUSALS_KEPT:
            self._refusals.append(dict(send.headers)["__streams.errors.message"].decode())

    def _observe(self, entry: Journaled, folded: FoldResult, elapsed_ns: int) -> None:
        del elapsed_ns
        for published in folded.allocations:
            self.decisions.add(entry, published)
            self.broker.take(published.decision, published.sequence, entry.journaled_at_ns)
        if folded.looks:
            self.cascades.add(entry, folded)
        if entry.kind == "outcome":
            self.coverage.add(entry, folded, self._fold.state)
