"""Gate: whether there is evidence that a policy's sizes earn more than the rules' own.

Each decision gives a paired difference. A confidence sequence, valid at every moment however often it is looked at,
opens the gate when its lower bound is above nothing. Since a running intersection never falls again, Page's CUSUM
closes it; then an operator has to begin anew. It costs O(1) a step.

Source: docs/methods.md, section 10; Waudby-Smith and Ramdas 2024 (predictable plug-in empirical Bernstein); Page
1954 (cumulative sums).
"""

from functools import lru_cache
from math import sqrt
from typing import NamedTuple

from engines.numerics.exact import ln
from engines.parameters import GateParams

__all__ = ["Comparison", "Gate", "comparison", "interval", "step"]


class Gate(NamedTuple):
    """The evidence so far; the defaults are none."""

    status: str = "collecting"
    """collecting, open or closed."""
    decisions: int = 0
    y_sum: float = 0.0
    """Σ of the differences, scaled to [0, 1]."""
    square_sum: float = 0.0
    """Σ (y − μ̂)²."""
    bet_sum: float = 0.0
    """Σ λ."""
    centre_sum: float = 0.0
    """Σ λy."""
    width_sum: float = 0.0
    """Σ vψ."""
    lower: float = -1.0
    """Lower end of the running intersection, of the mean difference in units of the bound."""
    upper: float = 1.0
    cusum: float = 0.0
    """Page's sum since the gate opened, in standard deviations."""
    difference_square_sum: float = 0.0
    """Σ d²."""
    base_return: float = 0.0
    """Σ of what the rules' sizes earned, as shares of V."""
    policy_return: float = 0.0
    """The same of the policy's sizes."""


class Comparison(NamedTuple):
    """Policy against rules, on the same outcomes, net of costs; per decision, as shares of V."""

    decisions: int
    base_mean: float
    policy_mean: float
    advantage: float
    lower: float
    """Lower end of the interval of the advantage, with the clipped differences."""
    upper: float
    status: str


def step(gate: Gate, base_return: float, policy_return: float, params: GateParams) -> Gate:
    """Take one outcome as the rules' size and as the policy's would have earned it.

    Args:
        gate: before.
        base_return: net return of the rules' size, as a share of V.
        policy_return: the same of the policy's size.
        params: bound of the differences, error rate, and when to close.
    """
    bound = params.bound
    difference = max(-bound, min(bound, policy_return - base_return))
    y = (difference + bound) / (2.0 * bound)
    t = gate.decisions + 1
    mean_before = (0.5 + gate.y_sum) / t
    variance_before = (0.25 + gate.square_sum) / t
    confidence = _confidence(params.alpha)
    bet = min(sqrt(2.0 * confidence / (variance_before * t * ln(1.0 + t))), params.max_bet)
    psi = (-ln(1.0 - bet) - bet) / 4.0
    miss = y - mean_before
    y_sum = gate.y_sum + y
    mean = (0.5 + y_sum) / (t + 1)
    bet_sum = gate.bet_sum + bet
    centre_sum = gate.centre_sum + bet * y
    width_sum = gate.width_sum + 4.0 * miss * miss * psi
    centre, half = centre_sum / bet_sum, (confidence + width_sum) / bet_sum
    lower = max(gate.lower, 2.0 * (centre - half) - 1.0)
    upper = min(gate.upper, 2.0 * (centre + half) - 1.0)
    squares = gate.difference_square_sum + difference * difference
    status, cusum = _watched(gate, difference, squares, t, lower, params)
    return Gate(
        status,
        t,
        y_sum,
        gate.square_sum + (y - mean) * (y - mean),
        bet_sum,
        centre_sum,
        width_sum,
        lower,
        upper,
        cusum,
        squares,
        gate.base_return + base_return,
        gate.policy_return + policy_return,
    )


def interval(gate: Gate, params: GateParams) -> tuple[float, float]:
    """Return the confidence interval of the mean difference, as shares of V."""
    return gate.lower * params.bound, gate.upper * params.bound


def comparison(gate: Gate, params: GateParams) -> Comparison:
    """Return what the policy's sizes have earned beside the rules'."""
    n = gate.decisions
    base, policy = (gate.base_return / n, gate.policy_return / n) if n else (0.0, 0.0)
    return Comparison(n, base, policy, policy - base, *interval(gate, params), gate.status)


def _watched(
    gate: Gate, difference: float, squares: float, t: int, lower: float, params: GateParams
) -> tuple[str, float]:
    """Return status and CUSUM after a difference."""
    if gate.status == "open":
        deviation = sqrt(squares / t)
        loss = -difference / deviation if deviation else 0.0
        cusum = max(0.0, gate.cusum + loss - params.cusum_slack)
        return ("closed" if cusum > params.cusum_threshold else "open"), cusum
    if gate.status == "collecting" and lower > 0.0:
        return "open", 0.0
    return gate.status, gate.cusum


@lru_cache(maxsize=16)
def _confidence(alpha: float) -> float:
    """Return ln(2/α). Cached: pure, but slow."""
    return ln(2.0 / alpha)
