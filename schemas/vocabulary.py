"""Closed sets of values shared by messages, engines and metrics."""

from typing import Final, Literal, get_args

Action = Literal["strong_buy", "buy", "hold", "sell", "strong_sell"]
Regime = Literal["trending_up", "trending_down", "ranging", "high_volatility", "crisis"]
Recommendation = Literal["MONITOR", "REDUCE_50%", "REDUCE_75%", "EXIT"]
TradingState = Literal["ACTIVE", "REDUCING", "HALTED"]

REGIMES: Final[tuple[Regime, ...]] = get_args(Regime)

SIDE: dict[Action, int] = {"strong_buy": 1, "buy": 1, "hold": 0, "sell": -1, "strong_sell": -1}
ACTIONS: Final[tuple[Action, ...]] = get_args(Action)
RECOMMENDATIONS: tuple[Recommendation, ...] = ("MONITOR", "REDUCE_50%", "REDUCE_75%", "EXIT")


def plain_word(word: str) -> str:
    """Return a word in the form of the vocabularies: lower case, with underscores for spaces and hyphens.

    >>> plain_word("Strong-Buy")
    'strong_buy'
    """
    return word.lower().replace(" ", "_").replace("-", "_")


EntryKind = Literal[
    "genesis",
    "signal",
    "cascade",
    "step",
    "outcome",
    "positions",
    "control",
    "tick",
    "engine",
    "adopt",
    "advice",
    "no_advice",
    "call",
]
ControlKind = Literal["settings", "trading_state", "portfolio_value", "rl_mode", "forget"]
StalePrice = Literal["hold", "flat"]
Unmanaged = Literal["ignore", "flatten"]
PolicyMode = Literal["off", "shadow", "live"]
Severity = Literal["info", "warning", "critical"]

ErrorCode = Literal[
    "empty",
    "too_large",
    "not_utf8",
    "not_json",
    "not_finite",
    "too_deep",
    "duplicate_key",
    "not_an_object",
    "missing",
    "wrong_type",
    "out_of_range",
    "unknown_value",
    "malformed",
    "contrary_sign",
    "inconsistent",
    "timestamp_unit",
    "in_future",
    "too_old",
    "unmatched",
    "repeated",
]
"""Values of `himari.error.code`: why a record was refused, from the outermost rule to the innermost."""
