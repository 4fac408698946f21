"""The same core without Kafka: the mission's three classes feed entries to the same fold.

They hold no sizing logic: all inputs of one call are one entry and give one allocation.
"""

from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from time import monotonic, perf_counter_ns
from typing import Any, Self

import orjson

from config.load import load
from config.watch import Change, Rejected, Watch
from engines import aggregation, regime
from engines import fold as engine
from engines.allocation import DECISION_VERSION
from engines.effects import Folded, Journaled
from engines.parameters import DecisionParams, tree_hash
from engines.state import State
from schemas import wire
from schemas.allocation import Allocation
from schemas.cascade import CascadeIndicators
from schemas.errors import InvalidPriceException, InvalidSignalException, SizingError
from schemas.outcome import TradeOutcome
from schemas.signal import TacticalSignal
from streams import journal, weights
from streams.control import settings_order
from streams.export import export_weight_history
from streams.monitoring.diagnostics import describe
from streams.monitoring.metrics import Metrics

JOURNAL_ID = "LIBRARY0"
DECISIONS_KEPT = 1_000
LARGEST_RETURN = 100.0


class PositionSizingDecision:
    """One allocation: its fields as attributes (see `schemas.allocation.Allocation`), its bytes as published."""

    __slots__ = ("_fields", "value")

    def __init__(self, value: bytes) -> None:
        """Read an allocation's bytes."""
        self.value = value
        self._fields: dict[str, Any] = orjson.loads(value)

    def __getattr__(self, name: str) -> Any:
        try:
            return self._fields[name]
        except KeyError:
            if name in Allocation.model_fields:
                return None
            msg = f"an allocation has no field {name!r}"
            raise AttributeError(msg) from None

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._fields['decision_id']}: {self._fields['allocations']})"

    def to_dict(self) -> dict[str, Any]:
        """Return all fields."""
        return dict(self._fields)

    def to_message(self) -> Allocation:
        """Return the allocation as the validated wire message."""
        return Allocation.model_validate_json(self.value)


class EnsembleAllocation(PositionSizingDecision):
    """The allocation of several signals at once: the same fields, those of the whole portfolio among them."""

    __slots__ = ()


class _Core:
    """One portfolio's state in memory, and the entries that move it."""

    def __init__(self, params: DecisionParams, *, metrics: Metrics | None) -> None:
        self.state = State(0)
        self.metrics = metrics
        self.offset = -1
        self.now_ns = 0
        genesis = {
            "decision_version": DECISION_VERSION,
            "journal_id": JOURNAL_ID,
            "partitions": 1,
            "settings": params.model_dump(),
            "settings_hash": tree_hash(params),
        }
        self.feed("genesis", genesis, 0)

    def feed(self, kind: str, body: dict[str, Any], now_ns: int) -> Folded:
        """Fold one entry; time never goes back."""
        self.now_ns = max(self.now_ns, now_ns)
        self.offset += 1
        value = journal.internal(kind, body, self.now_ns)
        entry = Journaled(self.offset, kind, "", 0, 0, 0, self.now_ns, body, value)
        began_ns = perf_counter_ns()
        folded = engine.apply(self.state, entry)
        self.state.touched.clear()
        if self.metrics is not None:
            self.metrics.observe(entry, folded, perf_counter_ns() - began_ns)
        return folded


class _Library:
    """What the three classes share: one portfolio, its settings, what it learns from and tells of itself."""

    def __init__(
        self,
        chosen: Mapping[str, object],
        config: str | Path | None,
        *,
        enable_metrics: bool,
        enable_hot_reload: bool,
    ) -> None:
        overrides = {key: value for key, value in chosen.items() if value is not None}
        loaded = load(config, None, overrides)
        self.metrics = Metrics() if enable_metrics else None
        self._core = _Core(loaded.settings.decision(), metrics=self.metrics)
        reload = loaded.settings.hot_reload
        watched = config is not None and enable_hot_reload and reload.enabled
        self._watch = Watch(config, None, overrides) if config is not None and watched else None
        self._look_every_s, self._look_at = reload.poll_interval_sec / 2, 0.0
        self._decided: deque[bytes] = deque(maxlen=DECISIONS_KEPT)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def record_outcome(self, outcome: TradeOutcome | Mapping[str, Any]) -> list[PositionSizingDecision]:
        """Learn from a trade's outcome; return the allocations that time led to meanwhile (forecasts expired).

        Raises:
            SizingError: no claim of this portfolio is settled by it.
        """
        body = _plain(TradeOutcome, outcome)
        folded = self._feed("outcome", body, body["timestamp_ns"])
        return [PositionSizingDecision(published.value) for published in folded.allocations]

    update_from_trade_result = record_outcome

    def update_correlations(self, returns: Mapping[str, float], timestamp_ns: int | None = None) -> None:
        """Take one bar of log returns by symbol, beside those that prices close by themselves.

        Args:
            returns: log return of each symbol that traded in the bar.
            timestamp_ns: end of the bar, ns since 1970; the time of the newest input where it is not given.

        Raises:
            InvalidPriceException: a return is not a finite number.
        """
        bar = {symbol: _log_return(symbol, value) for symbol, value in returns.items()}
        self._feed("call", {"returns": bar}, timestamp_ns or self._core.now_ns)

    def export_weight_history(self, path: str | Path) -> int:
        """Write the strategies' weights at the last 1,000 decisions as CSV; return how many rows."""
        rows = [row for value in self._decided for row in weights.of_allocation(orjson.loads(value))]
        return export_weight_history(path, rows)

    def get_state(self) -> dict[str, Any]:
        """Return diagnostics: settings in force, books, cells, posteriors, markets, regimes."""
        return describe(self._core.state)

    def stop(self) -> None:
        """Stop at once: there is no thread to wait for."""
        self._watch = None

    def _size(
        self, signals: Sequence[dict[str, Any]], cascades: Sequence[dict[str, Any]], prices: Mapping[str, float]
    ) -> bytes:
        """Fold the inputs of one call, all of one moment; return the bytes of the allocation that they lead to."""
        self._reload()
        known = self._core.state.params.position_sizing.regime_adjustment
        for signal in signals:
            if regime.resolve(signal["regime"], known) is None:
                msg = f"signal: regime must be a known regime or alias, was {signal['regime']!r}"
                raise InvalidSignalException("unknown_value", "regime", msg)
        body: dict[str, Any] = {
            "prices": {symbol: _price(symbol, price) for symbol, price in prices.items()},
            "signals": list(signals),
        }
        if cascades:
            body["cascade"] = list(cascades)
        folded = self._feed("call", body, max(each["timestamp_ns"] for each in (*signals, *cascades)))
        if not folded.allocations:
            notes = ", ".join(note.name for note in folded.notes)
            msg = f"signal is answered already: {notes}"
            raise InvalidSignalException("repeated", "signal_id", msg)
        return folded.allocations[-1].value

    def _feed(self, kind: str, body: dict[str, Any], now_ns: int) -> Folded:
        folded = self._core.feed(kind, body, now_ns)
        for published in folded.allocations:
            self._decided.append(published.value)
        if folded.refusals:
            raise SizingError(folded.refusals[0].text)
        return folded

    def _reload(self) -> None:
        if self._watch is None or monotonic() < self._look_at:
            return
        self._look_at = monotonic() + self._look_every_s
        found = self._watch.poll()
        if found is None:
            return
        if self.metrics is not None:
            self.metrics.config_reload("rejected" if isinstance(found, Rejected) else "applied")
        if isinstance(found, Change) and found.decision is not None:
            now_ns = self._core.now_ns
            self._core.feed("control", settings_order(found.decision, "the file changed", "hot reload", now_ns), now_ns)


class Layer3Phase1(_Library):
    """One strategy: Bayesian Kelly, conformal scale, sentiment, regime, cascade, drawdown, caps.

    >>> layer3 = Layer3Phase1(portfolio_value=100_000, enable_metrics=False)
    >>> signal = {
    ...     "strategy_id": "momentum", "symbol": "BTC-USD", "action": "buy", "confidence": 0.8, "risk_score": 0.2,
    ...     "regime": "ranging", "timestamp_ns": 1_700_000_000_000_000_000,
    ...     "expected_return": 0.01, "predicted_volatility": 0.02,
    ... }
    >>> layer3.calculate_position(signal, None, 43_500.0).position_size_usd
    13500.0
    """

    def __init__(
        self,
        portfolio_value: float | None = None,
        kelly_fraction: float | None = None,
        *,
        enable_metrics: bool = True,
        enable_hot_reload: bool = True,
        enable_sentiment: bool | None = None,
        config: str | Path | None = None,
    ) -> None:
        """Take the settings of a file, if one is named; an argument given here wins over it.

        Raises:
            ConfigurationException: a setting is not acceptable.
        """
        chosen = {
            "portfolio.initial_value_usd": portfolio_value,
            "position_sizing.bayesian_kelly.kelly_fraction": kelly_fraction,
            "sentiment.enabled": enable_sentiment,
        }
        super().__init__(chosen, config, enable_metrics=enable_metrics, enable_hot_reload=enable_hot_reload)

    def calculate_position(
        self,
        signal: TacticalSignal | Mapping[str, Any],
        cascade: CascadeIndicators | Mapping[str, Any] | None,
        price: float,
    ) -> PositionSizingDecision:
        """Return the allocation that a signal leads to, at a price, with cascade readings where there are any.

        Raises:
            InvalidSignalException, InvalidCascadeIndicatorsException, InvalidPriceException: place, rule and value.
        """
        asked = _plain(TacticalSignal, signal)
        return PositionSizingDecision(self._size([asked], _readings(cascade), {asked["symbol"]: price}))


class Layer3Phase2Portfolio(_Library):
    """Several strategies and symbols: what they are worth together, within one budget.

    >>> layer3 = Layer3Phase2Portfolio(portfolio_value=100_000, enable_metrics=False)
    >>> claim = {
    ...     "action": "buy", "confidence": 0.8, "risk_score": 0.2, "regime": "ranging",
    ...     "timestamp_ns": 1_700_000_000_000_000_000, "expected_return": 0.01, "predicted_volatility": 0.02,
    ... }
    >>> found = layer3.process_multi_strategy_signals(
    ...     signals=[claim | {"strategy_id": "momentum", "symbol": "BTC-USD"},
    ...              claim | {"strategy_id": "carry", "symbol": "ETH-USD"}],
    ...     cascade_indicators=None,
    ...     current_prices={"BTC-USD": 43_500.0, "ETH-USD": 2_280.0},
    ... )
    >>> found.allocations, found.strategy_weights
    ({'BTC-USD': 13500.0, 'ETH-USD': 13500.0}, {'carry': 0.5, 'momentum': 0.5})
    """

    def __init__(
        self,
        portfolio_value: float | None = None,
        max_position_pct: float | None = None,
        max_strategy_pct: float | None = None,
        *,
        enable_metrics: bool = True,
        enable_hot_reload: bool = True,
        config: str | Path | None = None,
    ) -> None:
        """Take the settings of a file, if one is named; an argument given here wins over it.

        Raises:
            ConfigurationException: a setting is not acceptable.
        """
        chosen = {
            "portfolio.initial_value_usd": portfolio_value,
            "risk_management.max_position_pct": max_position_pct,
            "risk_management.max_strategy_allocation": max_strategy_pct,
        }
        super().__init__(chosen, config, enable_metrics=enable_metrics, enable_hot_reload=enable_hot_reload)
        aggregation.warm()

    def process_multi_strategy_signals(
        self,
        signals: Sequence[TacticalSignal | Mapping[str, Any]],
        cascade_indicators: CascadeIndicators
        | Mapping[str, Any]
        | Sequence[CascadeIndicators | Mapping[str, Any]]
        | None,
        current_prices: Mapping[str, float],
    ) -> EnsembleAllocation:
        """Return the one allocation that several signals of a portfolio lead to; their order changes nothing.

        Args:
            signals: one at least, all of one portfolio.
            cascade_indicators: readings of one symbol or of the market, several of them, or None.
            current_prices: by symbol; a signal's symbol without a price is sized to nothing, with the reason.

        Raises:
            InvalidSignalException, InvalidCascadeIndicatorsException, InvalidPriceException: place, rule and value;
                nothing of the call is taken then.
        """
        asked = [_plain(TacticalSignal, signal) for signal in signals]
        if len({each["portfolio_id"] for each in asked}) != 1:
            msg = f"signals must be of one portfolio, were of {sorted({each['portfolio_id'] for each in asked})}"
            raise InvalidSignalException("inconsistent", "portfolio_id", msg)
        return EnsembleAllocation(self._size(asked, _readings(cascade_indicators), current_prices))


def _plain(model: type[Any], given: Any) -> dict[str, Any]:
    message = given if isinstance(given, model) else wire.validate(model, dict(given), place=model.__name__)
    plain: dict[str, Any] = message.model_dump(exclude_none=True)
    return plain


def _readings(given: Any) -> list[dict[str, Any]]:
    """Return cascade readings as they are folded: none, one, or one of each symbol."""
    if given is None:
        return []
    several = given if isinstance(given, Sequence) else [given]
    return [_plain(CascadeIndicators, each) for each in several]


def _price(symbol: str, price: float) -> float:
    if isinstance(price, bool) or not isinstance(price, int | float) or not 0.0 < price < 1e15:
        msg = f"price of {symbol} must be a positive finite number, was {price!r}"
        raise InvalidPriceException("out_of_range", "price", msg)
    return float(price)


def _log_return(symbol: str, value: float) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not -LARGEST_RETURN < value < LARGEST_RETURN:
        msg = f"return of {symbol} must be a finite log return, was {value!r}"
        raise InvalidPriceException("out_of_range", "return", msg)
    return float(value)
