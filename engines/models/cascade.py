"""Cascade: is a wave of forced selling (or buying) running against a position, and how far to cut for it.

Up to seven readings become components in [0, 1), these a score, the score a latched level with a size multiplier. It
is coincident, not predictive. It costs O(1) a step.

Signs, by the position's side: a long is threatened by a low price, by funding that longs pay (they are the crowd then),
by coins that flow into exchanges; a short by the opposites. Open interest that falls, liquidations, volume and whale
pressure threaten both.

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
"""An indicator of more thresholds than these counts as these: its component is 1 in every digit."""
VOLUME_RAMP: Final = 1.0
"""Bar volatilities of z over which volume comes to count."""
BREACH: Final = 0.5
BREACHES_TO_EXIT: Final = 2


class Readings(NamedTuple):
    """What feeds say of a symbol, or of the market; None where they say nothing."""

    funding_8h: float | None
    """Ratio per 8 h, positive where longs pay."""
    oi_change: float | None
    """Change of open interest in 24 h, in coins, as a ratio; negative where it fell."""
    whale_pressure: float | None
    """An index in [0, 1]."""
    netflow_zscore: float | None
    """Flow into exchanges, in standard deviations."""
    liquidations_ratio: float | None
    """USD liquidated in 24 h over open interest in USD."""
    volume_ratio: float | None
    """Quote volume over its mean of the previous 24 h."""


class Components(NamedTuple):
    """Each indicator as y⁴/(1 + y⁴), y in thresholds: one half at its threshold. None where it is not known."""

    funding_rate: float | None
    oi_drop: float | None
    volume_spike: float | None
    whale_pressure: float | None
    netflow_zscore: float | None
    price: float | None
    liquidations: float | None


class RawScore(NamedTuple):
    """The score of one moment."""

    raw: float
    """R, in [0, 1]."""
    breaches: int
    """Components at their thresholds or above."""


class Latch(NamedTuple):
    """The score that stays in force while it decays, and its level."""

    score: float
    """R_t = max(raw', R_{t−}·2^(−Δt/half-life)), raw' = R, at most the EXIT threshold without a second breach."""
    level: int
    """0 MONITOR, 1 REDUCE_50%, 2 REDUCE_75%, 3 EXIT."""
    at_ns: int
    """When score and level were computed."""
    raw: float | None
    """R as last computed, None where there was nothing to compute it from."""
    breaches: int
    peak: float
    """The raw' that is decaying: all later scores come from it, however often they are computed."""
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
        readings: of feeds; their volume_ratio is the caller's to prefer.
        excursion: z of the running bar against the side, in bar volatilities.
        volume_ratio: of the running bar. Where z is known its component grows from nothing to all within half a
            volatility on either side of `volume_min_z`, and is missing below: a rally on volume is no cascade.
        side: 1 long, −1 short.
        thresholds: where each component is one half.
        levels: gives `volume_min_z`.
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
    """Return R, the larger of R over price and volume and R over all that is known; None where nothing is.

    Each R = (Σ w·h³/Σ w)^(1/3) over the components that are known: missing is not zero, and a calm feed cannot hide a
    falling price.
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
    """Return the latch at now_ns, with a new score where there is one.

    A level is entered above its threshold and left `margin` below it. A bad tick alone, one breach, does not reach
    EXIT.
    """
    last = Latch(0.0, 0, now_ns, None, 0, 0.0, now_ns) if latch is None else latch
    now_ns = max(now_ns, last.at_ns)
    peak, peak_ns = last.peak, last.peak_ns
    standing = peak * half_life((now_ns - peak_ns) / SECOND_NS, levels.half_life_s) if peak else 0.0
    fresh, breaches = (0.0, 0) if raw is None else raw
    if breaches < BREACHES_TO_EXIT:
        fresh = min(fresh, levels.exit)
    if fresh >= standing:
        standing, peak, peak_ns = fresh, fresh, now_ns
    level = _level(standing, last.level, levels)
    return Latch(standing, level, now_ns, None if raw is None else raw.raw, breaches, peak, peak_ns)


def _component(y: float) -> float:
    """Return y⁴/(1 + y⁴); 0 where y is not positive."""
    if y <= 0.0:
        return 0.0
    square = y * y if y < LARGEST else LARGEST * LARGEST
    fourth = square * square
    return fourth / (1.0 + fourth)


def _ramp(z: float, middle: float) -> float:
    """Return how much volume counts at an excursion, in [0, 1]: half of it at the middle."""
    return min(max((z - middle) / VOLUME_RAMP + 0.5, 0.0), 1.0)


def _level(score: float, current: int, levels: CascadeLevels) -> int:
    """Return the highest level entered, or the current one as far as it is not left yet."""
    entered = held = 0
    for threshold in (levels.reduce_50, levels.reduce_75, levels.exit):
        entered += score > threshold
        held += score > threshold - levels.margin
    return max(entered, min(current, held))
