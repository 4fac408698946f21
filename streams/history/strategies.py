"""Two signal sources on candles without look-ahead: momentum and mean reversion.

They are examples, not advice: each claims a fixed share of its score, and sizing learns how much of that comes true.
An hour's edge is smaller than the cost of a round trip, so they forecast twelve candles ahead.

They send no `cascade-indicators`: candles contain only price and volume, which sizing takes from its own bars. They
send no sentiment, since candles contain none.

Only exact operations (+ − × ÷ √) are used: the same file gives the same bytes on every machine.
"""

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from math import sqrt
from types import MappingProxyType
from typing import Any, NamedTuple

from schemas.vocabulary import Regime
from streams.history.candles import Candle, Candles, tick
from streams.history.feed import SECOND_NS, FeedEvent, event, in_order

WARMUP = 48
"""Candles before the first signal."""
HORIZON = 12
"""Horizon of a claim, in candles."""
REACTION_NS = SECOND_NS
"""Delay of a signal after its candle's end; by then the candle's step is in the journal."""
CLAIMED_PER_SCORE = 0.10
"""Claimed return for a score of 1, in volatilities over the horizon."""
SCORE_MAX = 4.0
VOLATILITY_MIN = 1e-6

DECAY = 0.97
"""Of the variance of a candle's return."""
SLOW_DECAY = 0.995
CLIP = 25.0
"""A squared return is clipped at this many variances."""
FAST, SLOW = 24, 96
"""Spans of the two drifts, in candles."""
CRISIS_RATIO, HIGH_RATIO = 1.6, 1.3
"""Volatility over its slow mean; exceeded in 1 % and 6 % of the hours of two years."""


class Tape(NamedTuple):
    """Running statistics of one symbol's candles."""

    candles: int
    close: float
    open_ns: int
    variance: float
    """Of one candle's return."""
    slow_variance: float
    fast: float
    """Mean return of a candle over the last `FAST` or so."""
    slow: float
    mean_close: float
    """Over the last `FAST` or so."""

    @property
    def volatility(self) -> float:
        """Standard deviation of one candle's return, a ratio."""
        return max(sqrt(self.variance), VOLATILITY_MIN)

    @property
    def strain(self) -> float:
        """Volatility over its slow mean; 1 is normal."""
        return self.volatility / max(sqrt(self.slow_variance), VOLATILITY_MIN)


def step(tape: Tape | None, candle: Candle) -> Tape:
    """Add one candle; return the updated statistics. A return across a gap counts as one candle's, clipped."""
    if tape is None:
        return Tape(1, candle.close, candle.open_ns, 0.0, 0.0, 0.0, 0.0, candle.close)
    r = candle.close / tape.close - 1.0
    square = r * r if tape.candles == 1 else min(r * r, CLIP * max(tape.variance, VOLATILITY_MIN * VOLATILITY_MIN))
    variance, slow_variance = (square, square) if tape.candles == 1 else (tape.variance, tape.slow_variance)
    return Tape(
        tape.candles + 1,
        candle.close,
        candle.open_ns,
        DECAY * variance + (1.0 - DECAY) * square,
        SLOW_DECAY * slow_variance + (1.0 - SLOW_DECAY) * square,
        tape.fast + _share(FAST) * (r - tape.fast),
        tape.slow + _share(SLOW) * (r - tape.slow),
        tape.mean_close + _share(FAST) * (candle.close - tape.mean_close),
    )


# -- the scores ----------------------------------------------------------------------------------------------------
def momentum(tape: Tape) -> float:
    """Return the recent drift in standard deviations: buys what has risen."""
    return _drift(tape.fast, FAST, tape)


def reversion(tape: Tape) -> float:
    """Return how far the price is below its mean, in standard deviations: buys what has fallen."""
    distance = 1.0 - tape.close / tape.mean_close
    return distance / (tape.volatility * sqrt(FAST) / 2.0)


STRATEGIES: Mapping[str, Callable[[Tape], float]] = MappingProxyType(
    {"momentum": momentum, "mean-reversion": reversion}
)
"""Strategy id → signed score; about 1 in magnitude for a clear signal."""


def regime(tape: Tape) -> Regime:
    """Return the regime classified from the candles."""
    trend = _drift(tape.slow, SLOW, tape)
    if tape.strain > CRISIS_RATIO and tape.fast < 0:
        return "crisis"
    if tape.strain > HIGH_RATIO:
        return "high_volatility"
    if abs(trend) < 1.0:
        return "ranging"
    return "trending_up" if trend > 0 else "trending_down"


def _share(span: int) -> float:
    return 2.0 / (span + 1)


def _drift(mean: float, span: int, tape: Tape) -> float:
    """Return a mean return in units of its standard deviation without drift."""
    share = _share(span)
    return mean / (tape.volatility * sqrt(share / (2.0 - share)))


# -- the messages --------------------------------------------------------------------------------------------------
def signal(
    strategy_id: str, symbol: str, tape: Tape, time_ns: int, horizon_s: int, width_s: int, portfolio_id: str = "main"
) -> dict[str, Any]:
    """Return the fields of a strategy's TacticalSignal at `time_ns`."""
    score = max(-SCORE_MAX, min(SCORE_MAX, STRATEGIES[strategy_id](tape)))
    size = abs(score)
    volatility = tape.volatility * sqrt(horizon_s / width_s)
    return {
        "signal_id": f"{strategy_id}/{symbol}/{time_ns // SECOND_NS}"[-64:],
        "portfolio_id": portfolio_id,
        "strategy_id": strategy_id,
        "symbol": symbol,
        "action": _action(score),
        "confidence": 0.5 + 0.4 * size / (1.0 + size),
        "risk_score": tape.strain / (1.0 + tape.strain),
        "regime": regime(tape),
        "timestamp_ns": time_ns,
        "expected_return": CLAIMED_PER_SCORE * size * volatility,
        "predicted_volatility": volatility,
        "horizon_s": horizon_s,
        "valid_for_s": 2 * width_s,
    }


def outcome(said: Mapping[str, Any], realized_return: float) -> dict[str, Any]:
    """Return the fields of the TradeOutcome of a signal, one horizon after it."""
    return {
        "portfolio_id": said["portfolio_id"],
        "strategy_id": said["strategy_id"],
        "symbol": said["symbol"],
        "signal_id": said["signal_id"],
        "side": 1 if said["action"].endswith("buy") else -1,
        "realized_return": realized_return,
        "holding_s": said["horizon_s"],
        "timestamp_ns": said["timestamp_ns"] + int(said["horizon_s"] * SECOND_NS),
    }


def _action(score: float) -> str:
    if not score:
        return "hold"
    strong = "strong_" if abs(score) >= 2.0 else ""
    return f"{strong}{'buy' if score > 0 else 'sell'}"


# -- the feed ------------------------------------------------------------------------------------------------------
class _Open(NamedTuple):
    """A signal whose outcome is pending."""

    said: dict[str, Any]
    close: float
    end_ns: int
    """End of the settling candle, ns since 1970."""


def feed(
    candles: Sequence[Candles], portfolio_id: str = "main", horizon: int = HORIZON, *, prices: bool = True
) -> Iterator[FeedEvent]:
    """Yield prices, outcomes and signals of all files in event-time order.

    A signal is sent one second after its candle's end, and settled by the close `horizon` candles later. If that
    candle is missing, no outcome is sent. `prices=False` omits the ticks.
    """
    return in_order(_symbol(each, portfolio_id, horizon, prices=prices) for each in candles)


def _symbol(candles: Candles, portfolio_id: str, horizon: int, *, prices: bool) -> Iterator[FeedEvent]:
    symbol, width_s = candles.symbol, candles.width_s
    horizon_s = horizon * width_s
    tape: Tape | None = None
    awaited: deque[_Open] = deque()
    for candle in candles.rows:
        end_ns = candles.end_ns(candle)
        tape = step(tape, candle)
        if prices:
            yield tick(symbol, end_ns, candle)
        while awaited and awaited[0].end_ns <= end_ns:
            settled = awaited.popleft()
            if settled.end_ns == end_ns:
                fields = outcome(settled.said, candle.close / settled.close - 1.0)
                yield event(end_ns + REACTION_NS, "outcomes", symbol, fields)
        if tape.candles < WARMUP:
            continue
        for strategy_id in STRATEGIES:
            said = signal(strategy_id, symbol, tape, end_ns + REACTION_NS, horizon_s, width_s, portfolio_id)
            yield event(end_ns + REACTION_NS, "signals", symbol, said)
            if said["action"] != "hold":
                awaited.append(_Open(said, candle.close, end_ns + horizon_s * SECOND_NS))
