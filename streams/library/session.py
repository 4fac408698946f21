"""Shared base of the three library classes: feeds journal entries to the same fold as the worker, without Kafka.

There is no sizing logic here. All inputs of one call form one entry and give one allocation.
"""

import logging
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from time import monotonic, perf_counter_ns
from typing import Any, Self

import orjson

from config.load import load
from config.watch import FileChange, FileWatch, Rejected
from engines.allocation import DECISION_VERSION
from engines.fold import apply
from engines.handlers.effects import FoldResult, Journaled
from engines.models import policy_gate, regime
from engines.parameters import DecisionParams, tree_hash
from engines.state import policy
from engines.state.partition import State
from schemas import wire
from schemas.cascade import CascadeIndicators
from schemas.errors import InvalidPriceException, InvalidSignalException, SizingError
from schemas.outcome import TradeOutcome
from schemas.signal import TacticalSignal
from streams.journal import entries as journal
from streams.library.decisions import PositionSizingDecision
from streams.library.orders import Orders
from streams.monitoring.diagnostics import describe
from streams.monitoring.metrics import Metrics
from streams.reports import weight_history
from streams.reports.export import export_weight_history
from streams.stages.control import TAKEN, settings_order

logger = logging.getLogger(__name__)

JOURNAL_ID = "LIBRARY0"
DECISIONS_KEPT = 1_000
LARGEST_RETURN = 100.0


class Core:
    """State in memory, updated by folding entries."""

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

    def feed(self, kind: str, body: dict[str, Any], now_ns: int) -> FoldResult:
        """Fold one entry at `now_ns`, or at the time of the last entry if that is later."""
        self.now_ns = max(self.now_ns, now_ns)
        self.offset += 1
        value = journal.internal(kind, body, self.now_ns)
        entry = Journaled(self.offset, kind, "", 0, 0, 0, self.now_ns, body, value)
        began_ns = perf_counter_ns()
        folded = apply(self.state, entry)
        self.state.touched.clear()
        if self.metrics is not None:
            self.metrics.observe(entry, folded, perf_counter_ns() - began_ns)
        return folded


class Library(Orders):
    """Base of the three phase classes: settings, orders, outcomes, correlations, and reports."""

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
        self._core = Core(loaded.settings.decision(), metrics=self.metrics)
        reload = loaded.settings.hot_reload
        watched = config is not None and enable_hot_reload and reload.enabled
        self._watch = FileWatch(config, None, overrides) if config is not None and watched else None
        self._look_every_s, self._look_at = reload.poll_interval_sec / 2, 0.0
        self._decided: deque[bytes] = deque(maxlen=DECISIONS_KEPT)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def record_outcome(self, outcome: TradeOutcome | Mapping[str, Any]) -> list[PositionSizingDecision]:
        """Learn from a trade's outcome; return any allocations due to forecasts that expired meanwhile.

        Raises:
            SizingError: the outcome matches no open claim.
        """
        body = plain(TradeOutcome, outcome)
        return self._decisions("outcome", body, body["timestamp_ns"])

    update_from_trade_result = record_outcome

    def update_correlations(self, returns: Mapping[str, float], timestamp_ns: int | None = None) -> None:
        """Add one bar of log returns by symbol, in addition to the bars built from prices.

        Args:
            returns: log return of each symbol that traded in the bar.
            timestamp_ns: end of the bar, ns since 1970; default: time of the newest input.

        Raises:
            InvalidPriceException: a return is not a finite number.
        """
        bar = {symbol: _log_return(symbol, value) for symbol, value in returns.items()}
        self._feed("call", {"returns": bar}, timestamp_ns or self._core.now_ns)

    def export_weight_history(self, path: str | Path) -> int:
        """Write the strategy weights of the last 1,000 decisions as CSV; return the number of rows."""
        rows = [row for value in self._decided for row in weight_history.of_allocation(orjson.loads(value))]
        return export_weight_history(path, rows)

    def get_performance_comparison(self, portfolio_id: str = "main") -> dict[str, Any]:
        """Return the mean returns of the policy's and the rules' sizes on the same outcomes, net of costs.

        Means are per decision, as ratios of portfolio value. `lower` and `upper` bound the advantage with an
        anytime-valid confidence interval.
        """
        state = self._core.state
        return policy_gate.comparison(policy.gate_of(state, portfolio_id), state.params.rl.gate)._asdict()

    def get_state(self) -> dict[str, Any]:
        """Return diagnostics: settings in force, books, cells, posteriors, markets, regimes."""
        return describe(self._core.state)

    def stop(self) -> None:
        """Stop watching the settings file. Returns immediately."""
        self._watch = None

    def _size(
        self, signals: Sequence[dict[str, Any]], cascades: Sequence[dict[str, Any]], prices: Mapping[str, float]
    ) -> FoldResult:
        """Fold the inputs of one call as one entry; return the result, with at least one allocation."""
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
            msg = f"signal was already answered: {notes}"
            raise InvalidSignalException("repeated", "signal_id", msg)
        return folded

    def _decisions(self, kind: str, body: dict[str, Any], now_ns: int) -> list[PositionSizingDecision]:
        folded = self._feed(kind, body, now_ns)
        return [PositionSizingDecision(published.value) for published in folded.allocations]

    def _clock(self) -> tuple[int, int]:
        return self._core.now_ns, self._core.offset + 1

    def _feed(self, kind: str, body: dict[str, Any], now_ns: int) -> FoldResult:
        folded = self._core.feed(kind, body, now_ns)
        for published in folded.allocations:
            self._decided.append(published.value)
        if folded.refusals:
            raise SizingError(folded.refusals[0].text)
        for each in folded.alerts:
            if each["kind"] == "control_applied" and each["result"] not in TAKEN:
                raise SizingError(f"control: {each['result']}")
        return folded

    def _reload(self) -> None:
        if self._watch is None or monotonic() < self._look_at:
            return
        self._look_at = monotonic() + self._look_every_s
        found = self._watch.poll()
        if found is None:
            return
        if isinstance(found, Rejected):
            logger.error("settings file rejected, settings unchanged: %s", found.error)
        if self.metrics is not None:
            self.metrics.config_reload("rejected" if isinstance(found, Rejected) else "applied")
        if isinstance(found, FileChange) and found.decision is not None:
            now_ns = self._core.now_ns
            self._core.feed("control", settings_order(found.decision, "the file changed", "hot reload", now_ns), now_ns)


def plain(model: type[Any], given: Any) -> dict[str, Any]:
    """Validate a message; return its plain values."""
    message = given if isinstance(given, model) else wire.validate(model, dict(given), place=model.__name__)
    plain: dict[str, Any] = message.model_dump(exclude_none=True)
    return plain


def of_one_portfolio(signals: Sequence[TacticalSignal | Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Validate signals; return their plain values.

    Raises:
        InvalidSignalException: a signal is invalid, there is none, or they belong to several portfolios.
    """
    asked = [plain(TacticalSignal, signal) for signal in signals]
    portfolios = sorted(dict.fromkeys(each["portfolio_id"] for each in asked))
    if len(portfolios) != 1:
        msg = f"signals must be of one portfolio, were of {portfolios}"
        raise InvalidSignalException("inconsistent", "portfolio_id", msg)
    return asked


def readings(given: Any) -> list[dict[str, Any]]:
    """Validate cascade readings (None, one, or a sequence); return their plain values."""
    if given is None:
        return []
    several = given if isinstance(given, Sequence) else [given]
    return [plain(CascadeIndicators, each) for each in several]


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
