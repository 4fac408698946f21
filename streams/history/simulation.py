"""A simulated market for the demo: five coins, seeded, with regimes, fat tails, one liquidation cascade, and signals.

Every coin has two strategies whose calibration is known, so that one sees sizing find it out: `informed` (of what it
claims .8 comes true) and `noise` (nothing does). History comes as hourly candles with a signal now and then; the live
part as ticks every five minutes with twenty signals an hour. The cascade comes after a rally in which the informed are
long, as crowds are: price −15 … −20 % in half an hour on heavy volume, open interest falls, funding turns against
longs, coins flow to the exchanges. It is a shock that no forecast knows of.

All chance is one numpy PCG64: the same seed gives the same bytes.
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
"""2026-01-01 00:00 UTC: where the demo's clock begins."""
HOUR_S = 3_600
STEP_S = 300
STEPS_PER_HOUR = HOUR_S // STEP_S
HOUR_ROOT = math.sqrt(STEPS_PER_HOUR)
HOURS_PER_WEEK = 168
HORIZON_S = 3_600
SIGNAL_EVERY_S = 180
"""Over all cells: twenty an hour."""
HISTORY_SIGNAL_HOURS = 8
"""A cell speaks up once in so many hours of history."""
FEED_DELAY_S = 30
"""Readings of a moment come this long after its tick."""


class Coin(NamedTuple):
    """One coin's character."""

    symbol: str
    price: float
    scale: float
    """Volatility against the market's."""
    drop: float
    """What the cascade takes, a ratio."""
    volume: float
    """Coins an hour in calm."""
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
"""Strategy id → b: the share of what it claims that is true."""
CELLS = tuple((strategy, k) for k in range(len(COINS)) for strategy in CALIBRATION)
CLAIM_SD = 0.4
"""Standard deviation of a signed claim, in volatilities over the horizon."""
CROWD_CLAIM = 0.6
"""The informed claim at least this in the rally before the cascade."""


class Weather(NamedTuple):
    """What one regime is like."""

    drift: float
    """An hour, a ratio, for a coin of scale 1."""
    volatility: float
    """An hour."""
    hours: float
    """Mean stay."""
    risk_score: float


WEATHERS: Mapping[Regime, Weather] = MappingProxyType(
    {
        "ranging": Weather(0.0, 0.007, 9.0, 0.25),
        "trending_up": Weather(0.0012, 0.007, 7.0, 0.20),
        "trending_down": Weather(-0.0012, 0.008, 6.0, 0.40),
        "high_volatility": Weather(0.0, 0.013, 4.0, 0.60),
        "crisis": Weather(0.0, 0.018, 0.0, 0.90),
    }
)
REGIMES = tuple(WEATHERS)
RANGING, UP, DOWN, HIGH, CRISIS = range(len(REGIMES))
MISLABELLED = 0.08
"""Share of signals whose strategy sees another regime than there is."""
CORRELATION = 0.65
TAIL_DEGREES = 5.0
TAIL_MAX = 4.0

FALL = (0.08, 0.17, 0.30, 0.25, 0.15, 0.05)
"""Shares of the drop by step; the first step begins with an hour, so one bar holds all of it."""
RALLY_HOURS = 3
CRISIS_HOURS = 3
AFTERMATH_HOURS = 5
REBOUND = 0.35
"""Share of the drop that comes back during crisis and aftermath."""
CASCADE_VOLUME = 25.0
"""Volume in the fall, in calm volumes."""
CASCADE_HALF_LIFE_H = 1.5

Array = NDArray[np.float64]
"""Shapes here: (steps,) or (steps, coins)."""


class Paths(NamedTuple):
    """What the market did and will do; step k ends at `times_ns[k + 1]`."""

    times_ns: NDArray[np.int64]
    """(steps + 1,)"""
    prices: Array
    """(steps + 1, coins)"""
    volumes: Array
    """(steps, coins), coins"""
    regimes: NDArray[np.int64]
    """(steps,), index into `REGIMES`"""
    returns: Array
    """(steps, coins), log, without the shock: what a forecast could know of"""
    volatility: Array
    """(steps, coins), true standard deviation of those"""
    distress: Array
    """(steps,), 0 calm to 1 in the fall"""


class Simulation:
    """One seeded market: `history()` first, then `live()`; both yield events in event-time order.

    >>> simulation = Simulation(seed=7, hours=2, weeks=1)
    >>> [event.topic for event in simulation.history()][:2]
    ['prices', 'prices']
    """

    def __init__(self, seed: int, hours: int = 40, weeks: int = 4, portfolio_id: str = "main") -> None:
        """Draw it all: `weeks` of history before `LIVE_START_NS`, then `hours` live (wall seconds at 3,600-fold)."""
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
        """Yield the weeks before: hourly candles, sparse signals with their outcomes; all before `live_start_ns`."""
        return iter(self._history)

    def live(self) -> Iterator[FeedEvent]:
        """Yield the live part, to be sent when the clock shows each event's time."""
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
        """Return what the feeds read: near nothing in calm, against longs in distress."""
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
        """Return a signed claim f, in volatilities: the slope of what will come on f is the strategy's calibration.

        With z = N(0, 1) what will come, f = b·τ²·z + τ·√(1 − b²τ²)·η has E[z | f] = b·f and variance τ². The shock is
        not in z; before it the crowd leans long.
        """
        b, eta = CALIBRATION[strategy], float(self._rng.standard_normal())
        coming = slice(step, step + STEPS_PER_HOUR)
        z = float(self.paths.returns[coming, k].sum()) / self._volatility(k, step)
        claim = b * CLAIM_SD * CLAIM_SD * z + CLAIM_SD * math.sqrt(1.0 - b * b * CLAIM_SD * CLAIM_SD) * eta
        if b and self.fall_step - RALLY_HOURS * STEPS_PER_HOUR <= step < self.fall_step:
            claim = max(abs(claim), CROWD_CLAIM)
        return 0.0 if abs(claim) < 0.02 else max(-1.5, min(1.5, claim))

    def _volatility(self, k: int, step: int) -> float:
        """Return the standard deviation over the horizon as one knows it at its beginning."""
        return float(self.paths.volatility[min(step, len(self.paths.volatility) - 1), k]) * HOUR_ROOT

    def _signal(self, strategy: str, k: int, step: int, time_ns: int, claim: float) -> dict[str, Any]:
        size = abs(claim)
        confidence = 0.55 + 0.35 * size / (0.5 + size)
        volatility = self._volatility(k, step)
        seen = self._seen(step)
        mood, sureness = self._mood(k, step)
        return {
            "signal_id": f"{strategy}/{SYMBOLS[k]}/{time_ns // SECOND_NS}",
            "portfolio_id": self.portfolio_id,
            "strategy_id": strategy,
            "symbol": SYMBOLS[k],
            "action": _action(claim),
            "confidence": round(confidence, 4),
            "risk_score": round(min(1.0, WEATHERS[seen].risk_score + 0.1 * float(self._rng.random())), 4),
            "regime": seen,
            "timestamp_ns": time_ns,
            "expected_return": round(size * volatility / round(confidence, 4), 9),
            "predicted_volatility": round(volatility, 9),
            "horizon_s": HORIZON_S,
            "sentiment_score": mood,
            "sentiment_confidence": sureness,
            "sentiment_timestamp_ns": time_ns - time_ns % (HOUR_S * SECOND_NS),
        }

    def _seen(self, step: int) -> Regime:
        """Return the regime as the strategy sees it: that of the step that is over, or now and then another one."""
        chance, which = self._rng.random(2)
        if chance < MISLABELLED:
            return REGIMES[int(which * CRISIS)]
        return REGIMES[int(self.paths.regimes[max(0, step - 1)])]

    def _mood(self, k: int, step: int) -> tuple[float, float]:
        """Return sentiment and its confidence: the mood follows the last six hours' price."""
        noise, sureness = self._rng.random(2)
        prices = self.paths.prices[:, k]
        rise = float(np.log(prices[step] / prices[max(0, step - 6 * STEPS_PER_HOUR)])) / 0.02
        mood = 0.5 + 0.4 * rise / (1.0 + abs(rise)) + 0.1 * (float(noise) - 0.5)
        return round(min(1.0, max(0.0, mood)), 4), round(0.6 + 0.35 * float(sureness), 4)


# -- the paths -----------------------------------------------------------------------------------------------------
def _draw(rng: np.random.Generator, first_live: int, steps: int, fall: int) -> Paths:
    regimes = _regimes(rng, steps, fall)
    scale = np.array([coin.scale for coin in COINS])
    weather = np.array([(each.drift, each.volatility) for each in WEATHERS.values()])[regimes] / STEPS_PER_HOUR
    volatility = weather[:, 1:] * HOUR_ROOT * scale
    drift = weather[:, :1] * scale
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
    """Return the regime of each step: a Markov chain, but for the cascade, which has its own script."""
    stay = np.array([1.0 - 1.0 / (each.hours * STEPS_PER_HOUR) if each.hours else 0.0 for each in WEATHERS.values()])
    chances = rng.random((steps, 2))
    regimes = np.empty(steps, dtype=np.int64)
    now = RANGING
    for step in range(steps):
        if chances[step, 0] >= stay[now]:
            now = (now + 1 + int(chances[step, 1] * (CRISIS - 1))) % CRISIS
        regimes[step] = now
    crisis, aftermath = fall + CRISIS_HOURS * STEPS_PER_HOUR, AFTERMATH_HOURS * STEPS_PER_HOUR
    regimes[max(0, fall - RALLY_HOURS * STEPS_PER_HOUR) : fall] = UP
    regimes[fall:crisis] = CRISIS
    regimes[crisis : crisis + aftermath] = HIGH
    return regimes


def _tails(rng: np.random.Generator, steps: int) -> Array:
    """Return one factor a step, for all coins: Student-t tails of unit variance, cut off."""
    factor: Array = np.sqrt((TAIL_DEGREES - 2.0) / rng.chisquare(TAIL_DEGREES, (steps, 1)))
    return np.clip(factor, 0.0, TAIL_MAX)


def _shock(steps: int, fall: int) -> tuple[Array, Array]:
    """Return the cascade's log returns, (steps, coins), and the distress, (steps,)."""
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
    """Return coins traded in each step: more where the price moves, far more in distress."""
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
    """Return six significant digits: what an exchange would print, and the same on every machine."""
    return float(f"{value:.6g}")
