"""The same core without Kafka: the mission's three classes feed entries to the same fold.

They hold no sizing logic: all inputs of one call are one entry and give one allocation.
"""

from collections.abc import Mapping
from pathlib import Path
from time import monotonic, perf_counter_ns
from typing import Any, Self

import orjson

from config.load import load
from config.watch import Change, Rejected, Watch
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
from streams import journal
from streams.control import settings_order
from streams.monitoring.diagnostics import describe
from streams.monitoring.metrics import Metrics

JOURNAL_ID = "LIBRARY0"
DEFAULT_PORTFOLIO = "main"


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


class Layer3Phase1:
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
        overrides = {key: value for key, value in chosen.items() if value is not None}
        loaded = load(config, None, overrides)
        self.metrics = Metrics() if enable_metrics else None
        self._core = _Core(loaded.settings.decision(), metrics=self.metrics)
        reload = loaded.settings.hot_reload
        watched = config is not None and enable_hot_reload and reload.enabled
        self._watch = Watch(config, None, overrides) if config is not None and watched else None
        self._look_every_s, self._look_at = reload.poll_interval_sec / 2, 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

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
        self._reload()
        asked = _plain(TacticalSignal, signal)
        readings = None if cascade is None else _plain(CascadeIndicators, cascade)
        body: dict[str, Any] = {"prices": {asked["symbol"]: _price(asked["symbol"], price)}, "signals": [asked]}
        now_ns = asked["timestamp_ns"]
        if readings is not None:
            body["cascade"] = [readings]
            now_ns = max(now_ns, readings["timestamp_ns"])
        return self._decide(body, now_ns)

    def record_outcome(self, outcome: TradeOutcome | Mapping[str, Any]) -> list[PositionSizingDecision]:
        """Learn from a trade's outcome; return the allocations that time led to meanwhile (forecasts expired).

        Raises:
            SizingError: no claim of this portfolio is settled by it.
        """
        body = _plain(TradeOutcome, outcome)
        folded = self._core.feed("outcome", body, body["timestamp_ns"])
        _raise_refusal(folded)
        return [PositionSizingDecision(published.value) for published in folded.allocations]

    update_from_trade_result = record_outcome

    def get_state(self) -> dict[str, Any]:
        """Return diagnostics: settings in force, books, cells, posteriors, markets, regimes."""
        return describe(self._core.state)

    def stop(self) -> None:
        """Stop at once: there is no thread to wait for."""
        self._watch = None

    def _decide(self, body: dict[str, Any], now_ns: int) -> PositionSizingDecision:
        folded = self._core.feed("call", body, now_ns)
        _raise_refusal(folded)
        if not folded.allocations:
            notes = ", ".join(note.name for note in folded.notes)
            msg = f"signal is answered already: {notes}"
            raise InvalidSignalException("repeated", "signal_id", msg)
        return PositionSizingDecision(folded.allocations[-1].value)

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


def _plain(model: type[Any], given: Any) -> dict[str, Any]:
    message = given if isinstance(given, model) else wire.validate(model, dict(given), place=model.__name__)
    plain: dict[str, Any] = message.model_dump(exclude_none=True)
    return plain


def _price(symbol: str, price: float) -> float:
    if isinstance(price, bool) or not isinstance(price, int | float) or not 0.0 < price < 1e15:
        msg = f"price of {symbol} must be a positive finite number, was {price!r}"
        raise InvalidPriceException("out_of_range", "price", msg)
    return float(price)


def _raise_refusal(folded: Folded) -> None:
    if folded.refusals:
        raise SizingError(folded.refusals[0].text)
