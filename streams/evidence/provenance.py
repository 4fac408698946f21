"""Which journal entry each input of a decision came from: kept beside a fold, told when the decision has come."""

from collections.abc import Iterable
from typing import Any, NamedTuple

from engines.handlers.effects import FoldResult, Journaled
from engines.state.partition import GATHERED, MARKET_WIDE, State
from engines.state.records import Market, Strategies
from engines.state.tables import Key
from streams.reports.weight_history import instant

READINGS = (
    "funding_rate_8h",
    "oi_change_pct",
    "volume_ratio",
    "onchain_whale_pressure",
    "exchange_netflow_zscore",
    "liquidation_volume_24h",
    "open_interest",
)
"""Names of a market's gauges, in their order."""

CHECKPOINT = "checkpoint"
"""Kind of what is only known to have come before a checkpoint."""

Touched = Iterable[tuple[str, Key]]


class Seen(NamedTuple):
    """One journal entry, by its place; `order` is its body where it is an order."""

    offset: int
    kind: str
    source: tuple[str, int, int, int] | None
    """Topic (logical name), epoch, partition and offset of the record it was; None: our own."""
    journaled_at_ns: int
    order: dict[str, Any] | None = None

    def told(self) -> dict[str, Any]:
        """Return it as plain JSON values."""
        names = ("topic", "epoch", "partition", "offset")
        return {
            "journal_offset": self.offset,
            "kind": self.kind,
            "source": None if self.source is None else dict(zip(names, self.source, strict=True)),
            "journaled_at": instant(self.journaled_at_ns),
        }


class Learning(NamedTuple):
    """What outcomes taught of one cell."""

    outcomes: int
    last: Seen


class Witness:
    """Remembers the newest entry behind each thing that one portfolio's decisions depend on."""

    def __init__(self, portfolio: str) -> None:
        self.portfolio = portfolio
        self.entry: Seen | None = None
        """The last one."""
        self.forecasts: dict[tuple[str, str], Seen] = {}
        self.regimes: dict[str, Seen] = {}
        self.learnt: dict[tuple[str, str], Learning] = {}
        self.prices: dict[str, Seen] = {}
        self.readings: dict[tuple[str, str], Seen] = {}
        """(symbol or *, name of the reading)."""
        self.settings: Seen | None = None
        self.scopes: dict[str, Seen] = {}
        self.value: Seen | None = None
        """What last told the portfolio's equity; None: its beginning value is the settings'."""
        self.positions: Seen | None = None
        self.weights: Seen | None = None
        """What last moved the weights of its strategies."""
        self.correlations: Seen | None = None
        """The close of the last bar."""
        self._markets: dict[str, Market] = {}
        self._weights: dict[str, float] = {}
        self._hash = ""

    def resume(self, state: State, offset: int) -> None:
        """Take over the state of a checkpoint: the entry behind each thing in it is at `offset` or before."""
        seen = self.entry = Seen(offset, CHECKPOINT, None, state.now_ns)
        own = self.portfolio
        self._markets = {symbol: market for (symbol,), market in state.markets.items()}
        self.prices = {symbol: seen for symbol, market in self._markets.items() if market.bars is not None}
        self.readings = {
            (symbol, name): seen
            for symbol, market in self._markets.items()
            for name, gauge in zip(READINGS, market.gauges, strict=True)
            if gauge is not None
        }
        self.forecasts = {(key[1], key[2]): seen for key in state.predictions if key[0] == own}
        self.regimes = {key[1]: seen for key in state.regimes if key[0] == own}
        self.learnt = {(key[1], key[2]): Learning(1, seen) for key in state.posteriors if key[0] == own}
        self.scopes = {scope: seen for record in state.scopes.values() for scope, _ in record.scopes}
        self.settings, self._hash = seen, state.settings_hash
        told = state.book(own).value_usd != float(state.params.portfolio.initial_value_usd)
        self.value, self.correlations = seen if told else None, seen if state.moments.symbols else None
        self.positions = seen if state.book(own).positions is not None else None
        strategies = state.strategies.get((own,))
        if strategies is not None:
            self._strategies(strategies, seen)

    def see(self, state: State, entry: Journaled, folded: FoldResult, touched: Touched) -> None:
        """Take what one entry has led to.

        Args:
            state: as it is after the entry.
            entry: the entry.
            folded: what it led to.
            touched: (table, key) of each record that it changed.
        """
        source = (entry.topic, entry.epoch, entry.partition, entry.source_offset) if entry.topic else None
        order = entry.body if entry.kind == "control" else None
        seen = self.entry = Seen(entry.offset, entry.kind, source, entry.journaled_at_ns, order)
        if any(note.name == "duplicate" for note in folded.notes):
            return
        for cell in folded.claimed.get(self.portfolio, ()):
            self.forecasts[cell] = seen
        if state.settings_hash != self._hash:
            self.settings, self._hash = seen, state.settings_hash
        for table, key in touched:
            self._touch(state, seen, table, key)
        self._told_of_book(entry, folded, seen)

    def _touch(self, state: State, seen: Seen, table: str, key: Key) -> None:
        mine = key[0] == self.portfolio
        if table == "markets":
            self._market(key[0], state.markets[key], seen)
        elif table == "regimes" and mine:
            self.regimes[key[1]] = seen
        elif table == "kelly-posteriors" and mine:
            cell = (key[1], key[2])
            self.learnt[cell] = Learning(self.learnt[cell].outcomes + 1 if cell in self.learnt else 1, seen)
        elif table == "strategies" and mine:
            self._strategies(state.strategies[key], seen)
        elif table == "correlations" and key[0] != GATHERED:
            self.correlations = seen
        elif table == "states" and seen.order is not None:
            self.scopes[seen.order["payload"]["scope"]] = seen

    def _strategies(self, strategies: Strategies, seen: Seen) -> None:
        """Tell moved weights from what else is kept of strategies."""
        weights = dict(zip(strategies.names, strategies.weights, strict=True))
        if weights != self._weights:
            self._weights, self.weights = weights, seen

    def _market(self, symbol: str, market: Market, seen: Seen) -> None:
        """Tell a new price or reading from one that stayed: a record is never changed in place."""
        before = self._markets.get(symbol)
        if market.bars is not None and (before is None or market.bars is not before.bars):
            self.prices[symbol] = seen
        for place, name in enumerate(READINGS):
            gauge = market.gauges[place]
            if gauge is not None and (before is None or gauge is not before.gauges[place]):
                self.readings[symbol, name] = seen
        self._markets[symbol] = market

    def _told_of_book(self, entry: Journaled, folded: FoldResult, seen: Seen) -> None:
        body = entry.body
        if entry.kind == "positions" and body["portfolio_id"] == self.portfolio:
            if not any(note.name == "older_positions" for note in folded.notes):
                self.positions = seen
                self.value = self.value if body.get("equity") is None else seen
        elif entry.kind == "control" and body["kind"] == "portfolio_value":
            self.value = seen if body["payload"]["portfolio_id"] == self.portfolio else self.value

    def readings_of(self, symbols: Iterable[str]) -> list[tuple[str, str, Seen]]:
        """Return (symbol, name, entry) of each reading of these symbols and of the whole market."""
        wanted = {*symbols, MARKET_WIDE}
        return [(symbol, name, seen) for (symbol, name), seen in sorted(self.readings.items()) if symbol in wanted]

    def gauge(self, symbol: str, name: str) -> tuple[float, int] | None:
        """Return a reading and when it was taken."""
        return self._markets[symbol].gauges[READINGS.index(name)]
