"""HIMARI Layer 3: position sizes from trading signals, each of which can be recomputed from its journal.

What people import. There is no logic here: every name is defined in `streams` or `schemas`.

>>> from himari import Layer3Phase1
>>> layer3 = Layer3Phase1(portfolio_value=100_000, enable_metrics=False)
>>> signal = {
...     "strategy_id": "momentum", "symbol": "BTC-USD", "action": "buy", "confidence": 0.8, "risk_score": 0.2,
...     "regime": "ranging", "timestamp_ns": 1_700_000_000_000_000_000,
...     "expected_return": 0.01, "predicted_volatility": 0.02,
... }
>>> layer3.calculate_position(signal, None, 43_500.0).position_size_usd
3851.39
"""

from schemas.allocation import Allocation
from schemas.cascade import CascadeIndicators
from schemas.outcome import TradeOutcome
from schemas.positions import Positions
from schemas.price import PriceTick
from schemas.signal import TacticalSignal
from streams.backtest.library import backtest
from streams.backtest.result import Result
from streams.driver import Driver
from streams.journal.handover import package
from streams.library import (
    EnsembleAllocation,
    Layer3Phase1,
    Layer3Phase2Portfolio,
    Layer3Phase3Hybrid,
    PositionSizingDecision,
)
from streams.reports.allocation_reader import AllocationReader

__version__ = package()

__all__ = [
    "Allocation",
    "AllocationReader",
    "CascadeIndicators",
    "Driver",
    "EnsembleAllocation",
    "Layer3Phase1",
    "Layer3Phase2Portfolio",
    "Layer3Phase3Hybrid",
    "PositionSizingDecision",
    "Positions",
    "PriceTick",
    "Result",
    "TacticalSignal",
    "TradeOutcome",
    "__version__",
    "backtest",
]
