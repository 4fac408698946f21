"""A simulated market for the demo: five coins, seeded, with regimes, fat tails, one liquidation cascade, and signals.

Every coin has two strategies with known calibration, which sizing has to learn: `informed` (80 % of its claims come
true) and `noise` (none do). History consists of hourly candles with occasional signals, the live part of ticks every
five minutes with twenty signals per hour. The cascade follows a rally in which `informed` is long: prices fall by 15 to
20 % in half an hour on heavy volume, open interest falls, funding turns against longs, and coins flow to exchanges.
No forecast anticipates it.

All randomness comes from one numpy PCG64 generator: the same seed gives the same bytes.
"""

import math
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from schemas.vocabulary import Regime
from streams.history.candles import Candle, tick
from streams.history.feed import SECOND_NS, FeedEvent, event, sort
from streams.history.strategies import outcome

LIVE_START_NS = 1_767_225_600 * SECOND_NS
"""2026-01-01 00:00 UTC: start of the live part."""
HOUR_S = 3_600
STEP_S = 300
STEPS_PER_HOUR = HOUR_S // STEP_S
HOUR_ROOT = math.sqrt(STEPS_PER_HOUR)
HOURS_PER_WEEK = 168
HORIZON_S = 3_600
SIGNAL_EVERY_S = 180
"""Over all cells: twenty per hour."""
HISTORY_SIGNAL_HOURS = 8
"""Hours between a cell's signals in history."""
FEED_DELAY_S = 30
"""Delay of cascade readings after their tick."""


class Coin(NamedTuple):
    """Parameters of one coin."""

    symbol: str
    price: float
    scale: float
    """Volatility relative to the market's."""
    drop: float
    """Price fall in the cascade, a ratio."""
    volume: float
    """Normal volume, coins per hour."""
    interest: float
    """Open interest in USD."""


COINS = (
    Coin("BTC-USD", 92_000.0, 0.8, 0.15, 1_500.0, 2.6e10),
    Coin("ETH-USD", 3_200.0, 1.0, 0.17, 22_000.0, 1.4e10),
    Coin("SOL-USD", 140.0, 1.3, 0.20, 260_000.0, 3.1e9),
    Coin("BNB-USD", 870.0, 0.9, 0.16, 18_000.0, 9.0e8),
    Coin("ADA-USD", 0.42, 1.2, 0.19, 9.0e6, 5.0e8),
)
SYMBOLS = tuple(coin.symbol for coin in COINS)

CALIBRATION: Mapping[str, float] = MappingProxyType({"informed": 0.8, "noise": 0.0})
"""Strategy id → calibration b: the share of its claimed return that comes true."""
CELLS = tuple((strategy, k) for k in range(len(COINS)) for strategy in CALIBRATION)
CLAIM_SD = 0.4
"""Standard deviation of a signed claim, in volatilities over the horizon."""
CROWD_CLAIM = 0.6
"""Minimum claim of `informed` in the rally before the cascade, in volatilities over the horizon."""


class RegimeProfile(NamedTuple):
    """Parameters of one regime."""

    drift: float
    """Per hour, a ratio, for a coin of scale 1."""
    volatility: float
    """Per hour, a ratio."""
    hours: float
    """Mean duration."""
    risk_score: float


PROFILES: Mapping[Regime, RegimeProfile] = MappingProxyType(
    {
        "ranging": RegimeProfile(0.0, 0.007, 9.0, 0.25),
        "trending_up": RegimeProfile(0.0012, 0.007, 7.0, 0.20),
        "trending_down": RegimeProfile(-0.0012, 0.008, 6.0, 0.40),
        "high_volatility": RegimeProfile(0.0, 0.013, 4.0, 0.60),
        "crisis": RegimeProfile(0.0, 0.018, 0.0, 0.90),
    }
)
REGIMES = tuple(PROFILES)
RANGING, UP, DOWN, HIGH, CRISIS = range(len(REGIMES))
MISLABELLED = 0.08
"""Share of signals that report a wrong regime."""
CORRELATION = 0.65
TAIL_DEGREES = 5.0
TAIL_MAX = 4.0

FALL = (0.08, 0.17, 0.30, 0.25, 0.15, 0.05)
"""Shares of the drop by step; the first step starts on the hour, so one bar contains all of it."""
RALLY_HOURS = 3
CRISIS_HOURS = 3
AFTERMATH_HOURS = 5
REBOUND = 0.35
"""Share of the drop recovered during crisis and aftermath."""
CASCADE_VOLUME = 25.0
"""Volume in the fall, in normal volumes."""
CASCADE_HALF_LIFE_H = 1.5

Array = NDArray[np.float64]
"""Shapes here: (steps,) or (steps, coins)."""


class Paths(NamedTuple):
    """The market's paths; step k ends at `times_ns[k + 1]`."""

    times_ns: NDArray[np.int64]
    """(steps + 1,)"""
    prices: Array
    """(steps + 1, coins)"""
    volumes: Array
    """(steps, coins), coins"""
    regimes: NDArray[np.int64]
    """(steps,), index into `REGIMES`"""
    returns: Array
    """(steps, coins), log returns without the cascade: what a forecast can predict"""
    volatility: Array
    """(steps, coins), true standard deviation of `returns`"""
    distress: Array
    """(steps,), 0 calm to 1 in the fall"""


class Simulation:
    """One seeded market: `history()` first, then `live()`; both yield events in event-time order.

    >>> simulation = Simulation(seed=7, hours=2, weeks=1)
    >>> [event.topic for event in simulation.history()][:2]
    ['prices', 'prices']
    """

    def __init__(self, seed: int, hours: int = 40, weeks: int = 4, portfolio_id: str = "main") -> None:
        """Draw `weeks` of history before `LIVE_START_NS`, then `hours` live (one wall second each in the demo)."""
        self.portfolio_id = portfolio_id
        self.first_live = weeks * HOURS_PER_WEEK * STEPS_PER_HOUR
        self.fall_step = self.first_live + max(1, round(0.45 * hours)) * STEPS_PER_HOUR
        self._rng = np.random.Generator(np.random.PCG64(seed))
        steps = self.first_live + hours * STEPS_PER_HOUR
        self.paths = _draw(self._rng, self.first_live, steps, min(self.fall_step, steps))
        self.history_start_ns = int(self.paths.times_ns[0])
        self.live_start_ns = int(self.paths.times_ns[self.first_live])
        self.live_end_ns = int(self.paths.times_ns[-1])
        self.cascade_ns = int(self.paths.times_ns[min(self.fall_step, steps)])
        self._history = self._draw_history()
        self._live = self._draw_live()

    def history(self) -> Iterator[FeedEvent]:
        """Yield the history: hourly candles, sparse signals and their outcomes, all before `live_start_ns`."""
        return iter(self._history)

    def live(self) -> Iterator[FeedEvent]:
        """Yield the live part; each event is to be sent at its time."""
        return iter(self._live)

    # -- history ---------------------------------------------------------------------------------------------------
    def _draw_history(self) -> list[FeedEvent]:
        events = []
        hours = self.first_live // STEPS_PER_HOUR
        for hour in range(hours):
            events += [self._candle(hour, k) for k in range(len(COINS))]
        for n, (strategy, k) in enumerate(CELLS):
            first = HISTORY_SIGNAL_HOURS + n % HISTORY_SIGNAL_HOURS
            for hour in range(first, hours, HISTORY_SIGNAL_HOURS):
                said_ns = int(self.paths.times_ns[hour * STEPS_PER_HOUR]) + SECOND_NS
                events += self._said(strategy, k, said_ns, self.live_start_ns)
        return sort(events)

    def _candle(self, hour: int, k: int) -> FeedEvent:
        first, last = hour * STEPS_PER_HOUR, (hour + 1) * STEPS_PER_HOUR
        prices = self.paths.prices[first : last + 1, k]
        open_, close, high, low = (_significant(each) for each in (prices[0], prices[-1], prices.max(), prices.min()))
        volume = _significant(self.paths.volumes[first:last, k].sum())
        candle = Candle(int(self.paths.times_ns[first]), open_, high, low, close, volume)
        return tick(SYMBOLS[k], int(self.paths.times_ns[last]), candle)

    # -- live ------------------------------------------------------------------------------------------------------
    def _draw_live(self) -> list[FeedEvent]:
        events = []
        for step in range(self.first_live, len(self.paths.regimes)):
            events += [self._tick(step, k) for k in range(len(COINS))]
            if (step + 1) % STEPS_PER_HOUR == 0 or self.paths.distress[step] > 0.1:
                events += [self._readings(step, k) for k in range(len(COINS))]
        said_ns = self.live_start_ns + SIGNAL_EVERY_S // 2 * SECOND_NS
        n = 0
        while said_ns < self.live_end_ns:
            events += self._said(*CELLS[n % len(CELLS)], said_ns, self.live_end_ns)
            said_ns += SIGNAL_EVERY_S * SECOND_NS
            n += 1
        return sort(each for each in events if each.time_ns <= self.live_end_ns)

    def _tick(self, step: int, k: int) -> FeedEvent:
        fields = {
            "symbol": SYMBOLS[k],
            "price": _significant(self.paths.prices[step + 1, k]),
            "volume": _significant(self.paths.volumes[step, k]),
        }
        return event(int(self.paths.times_ns[step + 1]), "prices", SYMBOLS[k], fields)

    def _readings(self, step: int, k: int) -> FeedEvent:
        """Return cascade readings: near normal in calm, against longs in distress."""
        distress = float(self.paths.distress[step])
        funding, interest, whales, netflow, liquidations = map(float, self._rng.standard_normal(5))
        coins_left = COINS[k].interest * (1.0 - 0.30 * distress)
        liquidated = 0.0008 + 0.0002 * abs(liquidations) + 0.04 * distress
        fields = {
            "symbol": SYMBOLS[k],
            "funding_rate": round(0.0001 + 0.00008 * funding + 0.0040 * distress, 7),
            "oi_change_pct": round(0.015 * interest - 0.30 * distress, 5),
            "onchain_whale_pressure": round(min(1.0, max(0.0, 0.25 + 0.06 * whales + 0.65 * distress)), 4),
            "exchange_netflow_zscore": round(0.5 * netflow + 3.5 * distress, 4),
            "liquidation_volume_24h": round(COINS[k].interest * liquidated),
            "open_interest": round(coins_left),
        }
        time_ns = int(self.paths.times_ns[step + 1]) + FEED_DELAY_S * SECOND_NS
        return event(time_ns, "cascade-indicators", SYMBOLS[k], fields)

    # -- signals ---------------------------------------------------------------------------------------------------
    def _said(self, strategy: str, k: int, time_ns: int, end_ns: int) -> list[FeedEvent]:
        """Return a cell's signal at `time_ns` and its outcome, if that comes before `end_ns`."""
        step = int((time_ns - self.history_start_ns) // (STEP_S * SECOND_NS))
        claim = self._claim(strategy, k, step)
        said = self._signal(strategy, k, step, time_ns, claim)
        events = [event(time_ns, "signals", SYMBOLS[k], said)]
        due_ns = time_ns + HORIZON_S * SECOND_NS
        if claim and due_ns < end_ns:
            prices = self.paths.prices[:, k]
            realised = round(float(prices[step + STEPS_PER_HOUR] / prices[step]) - 1.0, 9)
            events.append(event(due_ns, "outcomes", SYMBOLS[k], outcome(said, realised)))
        return events

    def _claim(self, strategy: str, k: int, step: int) -> float:
        """Return a signed claim f, in volatilities; regressing the future return on f gives the calibration b.

        With z = N(0, 1) the future return, f = b·τ²·z + τ·√(1 − b²τ²)·η has E[z | f] = b·f and variance τ². The
        cascade is not part of z; before it `informed` is long.
        """
        b, eta = CALIBRATION[strategy], float(self._rng.standard_normal())
        coming = slice(step, step + STEPS_PER_HOUR)
        z = float(self.paths.returns[coming, k].sum()) / self._volatility(k, step)
        claim = b * CLAIM_SD * CLAIM_SD * z + CLAIM_SD * math.sqrt(1.0 - b * b * CLAIM_SD * CLAIM_SD) * eta
        if b and self.fall_step - RALLY_HOURS * STEPS_PER_HOUR <= step < self.fall_step:
            claim = max(abs(claim), CROWD_CLAIM)
        return 0.0 if abs(claim) < 0.02 else max(-1.5, min(1.5, claim))

    def _volatility(self, k: int, step: int) -> float:
        """Return the standard deviation over the horizon, as known at its start."""
        return float(self.paths.volatility[min(step, len(self.paths.volatility) - 1), k]) * HOUR_ROOT

    def _signal(self, strategy: str, k: int, step: int, time_ns: int, claim: float) -> dict[str, Any]:
        size = abs(claim)
        confidence = 0.55 + 0.35 * size / (0.5 + size)
        volatility = self._volatility(k, step)
        seen = self._seen(step)
        sentiment, sentiment_confidence = self._sentiment(k, step)
        return {
            "signal_id": f"{strategy}/{SYMBOLS[k]}/{time_ns // SECOND_NS}",
            "portfolio_id": self.portfolio_id,
            "strategy_id": strategy,
            "symbol": SYMBOLS[k],
            "action": _action(claim),
            "confidence": round(confidence, 4),
            "risk_score": round(min(1.0, PROFILES[seen].risk_score + 0.1 * float(self._rng.random())), 4),
            "regime": seen,
            "timestamp_ns": time_ns,
            "expected_return": round(size * volatility / round(confidence, 4), 9),
            "predicted_volatility": round(volatility, 9),
            "horizon_s": HORIZON_S,
            "sentiment_score": sentiment,
            "sentiment_confidence": sentiment_confidence,
            "sentiment_timestamp_ns": time_ns - time_ns % (HOUR_S * SECOND_NS),
        }

    def _seen(self, step: int) -> Regime:
        """Return the regime a signal reports: that of the previous step, or sometimes a wrong one."""
        draw, which = self._rng.random(2)
        if draw < MISLABELLED:
            return REGIMES[int(which * CRISIS)]
        return REGIMES[int(self.paths.regimes[max(0, step - 1)])]

    def _sentiment(self, k: int, step: int) -> tuple[float, float]:
        """Return sentiment in [0, 1] and its confidence; sentiment follows the price of the last six hours."""
        noise, confidence = self._rng.random(2)
        prices = self.paths.prices[:, k]
        rise = float(np.log(prices[step] / prices[max(0, step - 6 * STEPS_PER_HOUR)])) / 0.02
        score = 0.5 + 0.4 * rise / (1.0 + abs(rise)) + 0.1 * (float(noise) - 0.5)
        return round(min(1.0, max(0.0, score)), 4), round(0.6 + 0.35 * float(confidence), 4)


# -- the paths -----------------------------------------------------------------------------------------------------
def _draw(rng: np.random.Generator, first_live: int, steps: int, fall: int) -> Paths:
    regimes = _regimes(rng, steps, fall)
    scale = np.array([coin.scale for coin in COINS])
    profiles = np.array([(each.drift, each.volatility) for each in PROFILES.values()])[regimes] / STEPS_PER_HOUR
    volatility = profiles[:, 1:] * HOUR_ROOT * scale
    drift = profiles[:, :1] * scale
    common, own = rng.standard_normal((steps, 1)), rng.standard_normal((steps, len(COINS)))
    noise = CORRELATION**0.5 * common + (1.0 - CORRELATION) ** 0.5 * own
    returns = drift + volatility * noise * _tails(rng, steps)
    shock, distress = _shock(steps, fall)
    logs = np.vstack([np.zeros(len(COINS)), np.cumsum(returns + shock, axis=0)])
    prices = np.array([coin.price for coin in COINS]) * np.exp(logs - logs[first_live])
    times_ns = LIVE_START_NS + (np.arange(steps + 1) - first_live) * STEP_S * SECOND_NS
    volumes = _volumes(rng, noise, volatility, distress)
    return Paths(times_ns, prices, volumes, regimes, returns, volatility, distress)


def _regimes(rng: np.random.Generator, steps: int, fall: int) -> NDArray[np.int64]:
    """Return the regime of each step: a Markov chain, overwritten around the cascade."""
    stay = np.array([1.0 - 1.0 / (each.hours * STEPS_PER_HOUR) if each.hours else 0.0 for each in PROFILES.values()])
    draws = rng.random((steps, 2))
    regimes = np.empty(steps, dtype=np.int64)
    now = RANGING
    for step in range(steps):
        if draws[step, 0] >= stay[now]:
            now = (now + 1 + int(draws[step, 1] * (CRISIS - 1))) % CRISIS
        regimes[step] = now
    crisis, aftermath = fall + CRISIS_HOURS * STEPS_PER_HOUR, AFTERMATH_HOURS * STEPS_PER_HOUR
    regimes[max(0, fall - RALLY_HOURS * STEPS_PER_HOUR) : fall] = UP
    regimes[fall:crisis] = CRISIS
    regimes[crisis : crisis + aftermath] = HIGH
    return regimes


def _tails(rng: np.random.Generator, steps: int) -> Array:
    """Return one factor per step for all coins: Student-t tails of unit variance, clipped."""
    factor: Array = np.sqrt((TAIL_DEGREES - 2.0) / rng.chisquare(TAIL_DEGREES, (steps, 1)))
    return np.clip(factor, 0.0, TAIL_MAX)


def _shock(steps: int, fall: int) -> tuple[Array, Array]:
    """Return (log returns of the cascade, (steps, coins); distress, (steps,))."""
    shock, distress = np.zeros((steps, len(COINS))), np.zeros(steps)
    drop = np.log1p(-np.array([coin.drop for coin in COINS]))
    back = (CRISIS_HOURS + AFTERMATH_HOURS) * STEPS_PER_HOUR
    for k in range(fall, steps):
        since = k - fall
        if since < len(FALL):
            shock[k] = drop * FALL[since]
            distress[k] = sum(FALL[: since + 1])
        else:
            shock[k] = -REBOUND * drop / back if since < len(FALL) + back else 0.0
            distress[k] = 0.5 ** ((since + 1 - len(FALL)) / (CASCADE_HALF_LIFE_H * STEPS_PER_HOUR))
    return shock, distress


def _volumes(rng: np.random.Generator, noise: Array, volatility: Array, distress: Array) -> Array:
    """Return coins traded per step: more when the price moves, far more in distress."""
    calm = np.array([coin.volume for coin in COINS]) / STEPS_PER_HOUR
    busy = 0.6 + 0.5 * np.abs(noise) * (volatility / volatility.min(axis=0)) ** 0.5
    flood = 1.0 + (CASCADE_VOLUME - 1.0) * distress[:, None] ** 2
    volumes: Array = calm * busy * flood * np.exp(0.25 * rng.standard_normal(noise.shape))
    return volumes


def _action(claim: float) -> str:
    if not claim:
        return "hold"
    strong = "strong_" if abs(claim) >= 2 * CLAIM_SD else ""
    return f"{strong}{'buy' if claim > 0 else 'sell'}"


def _significant(value: float) -> float:
    """Round to six significant digits, as exchanges quote; the result is the same on every machine."""
    return float(f"{value:.6g}")
