"""Tracks, during a fold, which journal entry each input of a decision came from."""

from collections.abc import Iterable
from typing import Any, NamedTuple

from engines.handlers.effects import FoldResult, Journaled
from engines.state.partition import GATHERED, MARKET_WIDE, State
from engines.state.records import Market, Strategies
from engines.state.strategies import NOBODY
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
"""Names of a market's gauges, in storage order."""

CHECKPOINT = "checkpoint"
"""Kind of an input of which only is known that it precedes a checkpoint."""

Touched = Iterable[tuple[str, Key]]


class Seen(NamedTuple):
    """One journal entry and its source; `order` is its body if it is a control order."""

    offset: int
    kind: str
    source: tuple[str, int, int, int] | None
    """(topic (logical name), epoch, partition, offset) of the source record; None for internal entries."""
    journaled_at_ns: int
    order: dict[str, Any] | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        names = ("topic", "epoch", "partition", "offset")
        return {
            "journal_offset": self.offset,
            "kind": self.kind,
            "source": None if self.source is None else dict(zip(names, self.source, strict=True)),
            "journaled_at": instant(self.journaled_at_ns),
        }


class Learning(NamedTuple):
    """Outcomes learnt by one cell."""

    outcomes: int
    last: Seen


class Witness:
    """The newest journal entry behind each input of one portfolio's decisions."""

    def __init__(self, portfolio: str) -> None:
        self.portfolio = portfolio
        self.entry: Seen | None = None
        """The last entry seen."""
        self.forecasts: dict[tuple[str, str], Seen] = {}
        self.regimes: dict[str, Seen] = {}
        self.learnt: dict[tuple[str, str], Learning] = {}
        self.prices: dict[str, Seen] = {}
        self.readings: dict[tuple[str, str], Seen] = {}
        """(symbol or *, name of the reading)."""
        self.settings: Seen | None = None
        self.scopes: dict[str, Seen] = {}
        self.value: Seen | None = None
        """Entry that last set the portfolio's equity; None: the initial value from the settings."""
        self.positions: Seen | None = None
        self.weights: Seen | None = None
        """Entry that last changed the strategy weights."""
        self.correlations: Seen | None = None
        """Entry that closed the last bar."""
        self._markets: dict[str, Market] = {}
        self._weights: dict[str, float] = {}
        self._hash = ""

    def resume(self, state: State, offset: int) -> None:
        """Start from a checkpoint: every input in its state comes from an entry at or before `offset`."""
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
        reported = state.book(own).value_usd != float(state.params.portfolio.initial_value_usd)
        self.value, self.correlations = seen if reported else None, seen if state.moments.symbols else None
        self.positions = seen if state.book(own).positions is not None else None
        strategies = state.strategies.get((own,))
        if strategies is not None:
            self._strategies(strategies, seen)

    def see(self, state: State, entry: Journaled, folded: FoldResult, touched: Touched) -> None:
        """Record what one folded entry changed.

        Args:
            state: the state after the entry.
            entry: the entry.
            folded: the result of the fold.
            touched: (table, key) of each changed record.
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
        self._book(entry, folded, seen)

    def _touch(self, state: State, seen: Seen, table: str, key: Key) -> None:
        mine = key[0] == self.portfolio
        if table == "markets":
            self._market(key[0], state.markets[key], seen)
        elif table == "regimes" and mine:
            self.regimes[key[1]] = seen
        elif table == "kelly-posteriors" and mine:
            cell = (key[1], key[2])
            if key not in state.posteriors:
                self.learnt.pop(cell, None)
                return
            self.learnt[cell] = Learning(self.learnt[cell].outcomes + 1 if cell in self.learnt else 1, seen)
        elif table == "strategies" and mine:
            self._strategies(state.strategies.get(key, NOBODY), seen)
        elif table == "correlations" and key[0] != GATHERED:
            self.correlations = seen
        elif table == "states" and seen.order is not None:
            self.scopes[seen.order["payload"]["scope"]] = seen

    def _strategies(self, strategies: Strategies, seen: Seen) -> None:
        """Record changed weights; other changes of the strategies record do not count."""
        weights = dict(zip(strategies.names, strategies.weights, strict=True))
        if weights != self._weights:
            self._weights, self.weights = weights, seen

    def _market(self, symbol: str, market: Market, seen: Seen) -> None:
        """Record new prices and readings, by object identity: records are never changed in place."""
        before = self._markets.get(symbol)
        if market.bars is not None and (before is None or market.bars is not before.bars):
            self.prices[symbol] = seen
        for place, name in enumerate(READINGS):
            gauge = market.gauges[place]
            if gauge is not None and (before is None or gauge is not before.gauges[place]):
                self.readings[symbol, name] = seen
        self._markets[symbol] = market

    def _book(self, entry: Journaled, folded: FoldResult, seen: Seen) -> None:
        body = entry.body
        if entry.kind == "positions" and body["portfolio_id"] == self.portfolio:
            if not any(note.name == "older_positions" for note in folded.notes):
                self.positions = seen
                self.value = self.value if body.get("equity") is None else seen
        elif entry.kind == "control" and body["kind"] == "portfolio_value":
            self.value = seen if body["payload"]["portfolio_id"] == self.portfolio else self.value

    def readings_of(self, symbols: Iterable[str]) -> list[tuple[str, str, Seen]]:
        """Return (symbol, name, entry) of each reading of these symbols and of the market as a whole."""
        wanted = {*symbols, MARKET_WIDE}
        return [(symbol, name, seen) for (symbol, name), seen in sorted(self.readings.items()) if symbol in wanted]

    def gauge(self, symbol: str, name: str) -> tuple[float, int] | None:
        """Return a reading and its time, ns since 1970."""
        return self._markets[symbol].gauges[READINGS.index(name)]
