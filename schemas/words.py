"""The closed vocabularies that messages, engines and metrics share."""

from typing import Literal

Action = Literal["strong_buy", "buy", "hold", "sell", "strong_sell"]
Regime = Literal["trending_up", "trending_down", "ranging", "high_volatility", "crisis"]
Recommendation = Literal["MONITOR", "REDUCE_50%", "REDUCE_75%", "EXIT"]
TradingState = Literal["ACTIVE", "REDUCING", "HALTED"]

SIDE: dict[Action, int] = {"strong_buy": 1, "buy": 1, "hold": 0, "sell": -1, "strong_sell": -1}
RECOMMENDATIONS: tuple[Recommendation, ...] = ("MONITOR", "REDUCE_50%", "REDUCE_75%", "EXIT")
