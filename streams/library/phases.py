"""Phases 1 and 2 as classes: the same core as the worker, without Kafka."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from engines.pipeline import aggregation
from schemas.cascade import CascadeIndicators
from schemas.signal import TacticalSignal
from streams.library.decisions import EnsembleAllocation, PositionSizingDecision
from streams.library.session import Library, of_one_portfolio, plain, readings

__all__ = ["Layer3Phase1", "Layer3Phase2Portfolio"]


class Layer3Phase1(Library):
    """Sizes one strategy: Bayesian Kelly, conformal scale, sentiment, regime, cascade, drawdown, caps.

    >>> layer3 = Layer3Phase1(portfolio_value=100_000, enable_metrics=False)
    >>> signal = {
    ...     "strategy_id": "momentum", "symbol": "BTC-USD", "action": "buy", "confidence": 0.8, "risk_score": 0.2,
    ...     "regime": "ranging", "timestamp_ns": 1_700_000_000_000_000_000,
    ...     "expected_return": 0.01, "predicted_volatility": 0.02,
    ... }
    >>> layer3.calculate_position(signal, None, 43_500.0).position_size_usd
    3851.39
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
        """Return the allocation for a signal at a price, with optional cascade readings.

        Raises:
            InvalidSignalException, InvalidCascadeIndicatorsException, InvalidPriceException: place, rule and value.
        """
        asked = plain(TacticalSignal, signal)
        folded = self._size([asked], readings(cascade), {asked["symbol"]: price})
        return PositionSizingDecision(folded.allocations[-1].value)


class Layer3Phase2Portfolio(Library):
    """Sizes several strategies and symbols jointly, within one budget.

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
    ({'BTC-USD': 3851.39, 'ETH-USD': 3851.39}, {'carry': 0.5, 'momentum': 0.5})
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
        """Return one allocation for one or more signals of a portfolio, independent of their order.

        Args:
            signals: at least one, all of the same portfolio.
            cascade_indicators: readings of one symbol or of the market, a sequence of them, or None.
            current_prices: price by symbol; a symbol without a price gets size 0, with the reason.

        Raises:
            InvalidSignalException, InvalidCascadeIndicatorsException, InvalidPriceException: place, rule and value;
                the call then has no effect.
        """
        asked = of_one_portfolio(signals)
        folded = self._size(asked, readings(cascade_indicators), current_prices)
        return EnsembleAllocation(folded.allocations[-1].value)
