"""Cascade: detects forced selling (or buying) against a position, and how far to cut for it.

Up to seven indicators become components in [0, 1), the components a score, and the score a latched level with a size
multiplier. The score is coincident, not predictive. Cost O(1) per step.

The sign of an indicator depends on the position's side. A falling price, funding paid by longs (a crowded long side)
and coins flowing into exchanges threaten a long; the opposites threaten a short. Falling open interest, liquidations,
volume and whale pressure threaten both.

    >>> thresholds, weights, levels = CascadeThresholds(), CascadeWeights(), CascadeLevels()
    >>> crash = score(components(None, 6.0, 5.0, 1, thresholds, levels), weights)  # z = 6 on 5 times the usual volume
    >>> latch = step(None, crash, 10**18, levels)
    >>> round(latch.score, 3), latch.level, MULTIPLIER[latch.level]
    (0.62, 2, 0.25)

Source: docs/methods.md, section 5.
"""

from typing import Final, NamedTuple

from engines.numerics.exact import half_life, root
from engines.parameters import CascadeLevels, CascadeThresholds, CascadeWeights

__all__ = ["MULTIPLIER", "Components", "Latch", "RawScore", "Readings", "components", "score", "step"]

MULTIPLIER: Final = (1.0, 0.5, 0.25, 0.0)
"""Size multiplier of each level, in the order of `schemas.vocabulary.RECOMMENDATIONS`."""
SECOND_NS = 1_000_000_000
LARGEST: Final = 1e6
"""Indicators are clipped to this many thresholds; the component is already 1 to the last digit."""
VOLUME_RAMP: Final = 1.0
"""Range of z, in bar volatilities, over which the volume component rises from 0 to its full value."""
BREACH: Final = 0.5
BREACHES_TO_EXIT: Final = 2


class Readings(NamedTuple):
    """Readings of a symbol, or of the whole market, from external feeds; None if missing."""

    funding_8h: float | None
    """Ratio per 8 h, positive if longs pay."""
    oi_change: float | None
    """24 h change of open interest in coin units, as a ratio; negative if it fell."""
    whale_pressure: float | None
    """Index in [0, 1]."""
    netflow_zscore: float | None
    """Flow into exchanges, in standard deviations."""
    liquidations_ratio: float | None
    """USD liquidated in 24 h over open interest in USD."""
    volume_ratio: float | None
    """Quote volume over its mean of the previous 24 h."""


class Components(NamedTuple):
    """Each indicator as y⁴/(1 + y⁴), where y is in thresholds: one half at the threshold. None if unknown."""

    funding_rate: float | None
    oi_drop: float | None
    volume_spike: float | None
    whale_pressure: float | None
    netflow_zscore: float | None
    price: float | None
    liquidations: float | None


class RawScore(NamedTuple):
    """The score before latching."""

    raw: float
    """R, in [0, 1]."""
    breaches: int
    """Number of components at or above their thresholds."""


class Latch(NamedTuple):
    """The latched score, which decays over time, and its level."""

    score: float
    """R_t = max(raw', R_{t−}·2^(−Δt/half-life)); raw' is R, limited to the EXIT threshold unless two breaches agree."""
    level: int
    """0 MONITOR, 1 REDUCE_50%, 2 REDUCE_75%, 3 EXIT."""
    at_ns: int
    """Time of the last update."""
    raw: float | None
    """R as last computed; None if no component was known."""
    breaches: int
    peak: float
    """The raw' that is decaying. Later scores are computed from it, so their number does not matter."""
    peak_ns: int


UNKNOWN: Final = Readings(None, None, None, None, None, None)


def components(
    readings: Readings | None,
    excursion: float | None,
    volume_ratio: float | None,
    side: int,
    thresholds: CascadeThresholds,
    levels: CascadeLevels,
) -> Components:
    """Return the components of one symbol (or the market) for a side.

    Args:
        readings: from feeds; the caller decides whether to pass their volume_ratio as `volume_ratio`.
        excursion: z of the current bar against the side, in bar volatilities.
        volume_ratio: of the current bar. If z is known, its component rises from nothing to its full value from half a
            volatility below `volume_min_z` to half above, and is missing below: a rally on high volume is no cascade.
        side: 1 long, −1 short.
        thresholds: value at which each component is one half.
        levels: provides `volume_min_z`.
    """
    funding, oi_change, whales, netflow, liquidations, _ = UNKNOWN if readings is None else readings
    counts = 1.0 if excursion is None else _ramp(excursion, levels.volume_min_z)
    return Components(
        None if funding is None else _component(side * funding / thresholds.funding_rate),
        None if oi_change is None else _component(-oi_change / thresholds.oi_drop),
        None if volume_ratio is None or not counts else counts * _component(volume_ratio / thresholds.volume_spike),
        None if whales is None else _component(whales / thresholds.whale_pressure),
        None if netflow is None else _component(side * netflow / thresholds.netflow_zscore),
        None if excursion is None else _component(excursion / thresholds.price),
        None if liquidations is None else _component(liquidations / thresholds.liquidations),
    )


def score(components: Components, weights: CascadeWeights) -> RawScore | None:
    """Return R, the larger of R over price and volume and R over all known components; None if none is known.

    Each R = (Σ w·h³/Σ w)^(1/3) over the known components: missing is not zero, and a calm feed cannot hide a falling
    price.
    """
    funding, oi, volume, whales, netflow, price, liquidations = components
    own = other = own_weight = other_weight = 0.0
    breaches = 0
    for h, weight in ((price, weights.price), (volume, weights.volume_spike)):
        if h is not None and weight:
            own += weight * h * h * h
            own_weight += weight
            breaches += h >= BREACH
    for h, weight in (
        (funding, weights.funding_rate),
        (oi, weights.oi_drop),
        (whales, weights.whale_pressure),
        (netflow, weights.netflow_zscore),
        (liquidations, weights.liquidations),
    ):
        if h is not None and weight:
            other += weight * h * h * h
            other_weight += weight
            breaches += h >= BREACH
    if not own_weight and not other_weight:
        return None
    mean = (own + other) / (own_weight + other_weight)
    if own_weight:
        mean = max(mean, own / own_weight)
    return RawScore(root(mean, 3), breaches)


def step(latch: Latch | None, raw: RawScore | None, now_ns: int, levels: CascadeLevels) -> Latch:
    """Return the latch at now_ns, updated by a new score if there is one.

    A level is entered above its threshold and left `margin` below it. A single breach, such as one bad tick, does not
    reach EXIT.
    """
    last = Latch(0.0, 0, now_ns, None, 0, 0.0, now_ns) if latch is None else latch
    now_ns = max(now_ns, last.at_ns)
    peak, peak_ns = last.peak, last.peak_ns
    latched = peak * half_life((now_ns - peak_ns) / SECOND_NS, levels.half_life_s) if peak else 0.0
    fresh, breaches = (0.0, 0) if raw is None else raw
    if breaches < BREACHES_TO_EXIT:
        fresh = min(fresh, levels.exit)
    if fresh >= latched:
        latched, peak, peak_ns = fresh, fresh, now_ns
    level = _level(latched, last.level, levels)
    return Latch(latched, level, now_ns, None if raw is None else raw.raw, breaches, peak, peak_ns)


def _component(y: float) -> float:
    """Return y⁴/(1 + y⁴); 0 if y is not positive."""
    if y <= 0.0:
        return 0.0
    square = y * y if y < LARGEST else LARGEST * LARGEST
    fourth = square * square
    return fourth / (1.0 + fourth)


def _ramp(z: float, middle: float) -> float:
    """Return how much volume counts at an excursion, in [0, 1]: half of it at the middle."""
    return min(max((z - middle) / VOLUME_RAMP + 0.5, 0.0), 1.0)


def _level(score: float, current: int, levels: CascadeLevels) -> int:
    """Return the highest level entered, or the part of the current level that is not yet left."""
    entered = held = 0
    for threshold in (levels.reduce_50, levels.reduce_75, levels.exit):
        entered += score > threshold
        held += score > threshold - levels.margin
    return max(entered, min(current, held))
