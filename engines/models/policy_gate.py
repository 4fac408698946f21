"""Policy gate: tests whether a policy's sizes earn more than those of the rules.

Each outcome gives a paired difference. The gate opens when the lower bound of an anytime-valid confidence sequence is
above 0. The running intersection never falls again, so Page's CUSUM closes the gate; an operator then has to restart
the test. Cost O(1) per step.

    >>> gate, params = Gate(), GateParams()
    >>> for _ in range(60):  # the policy earns .5 % of the value more, each time
    ...     gate = step(gate, 0.0, 0.005, params)
    >>> gate.status, comparison(gate, params).lower > 0.0
    ('open', True)

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
    """The evidence so far; the defaults are those before the first outcome."""

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
    """Lower end of the running intersection for the mean difference, in units of the bound."""
    upper: float = 1.0
    cusum: float = 0.0
    """Page's CUSUM since the gate opened, in standard deviations."""
    difference_square_sum: float = 0.0
    """Σ d²."""
    base_return: float = 0.0
    """Σ of net returns of the rules' sizes, as shares of V."""
    policy_return: float = 0.0
    """Σ of net returns of the policy's sizes, as shares of V."""


class Comparison(NamedTuple):
    """Policy against rules on the same outcomes, net of costs; means per decision, as shares of V."""

    decisions: int
    base_mean: float
    policy_mean: float
    advantage: float
    lower: float
    """Lower end of the confidence interval of the advantage, from clipped differences."""
    upper: float
    status: str


def step(gate: Gate, base_return: float, policy_return: float, params: GateParams) -> Gate:
    """Return the gate updated by one outcome.

    Args:
        gate: state before.
        base_return: net return of the rules' size, as a share of V.
        policy_return: net return that the policy's size would have had, as a share of V.
        params: bound of the differences, error rate, and closing rule.
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
    residual = y - mean_before
    y_sum = gate.y_sum + y
    mean = (0.5 + y_sum) / (t + 1)
    bet_sum = gate.bet_sum + bet
    centre_sum = gate.centre_sum + bet * y
    width_sum = gate.width_sum + 4.0 * residual * residual * psi
    centre, half = centre_sum / bet_sum, (confidence + width_sum) / bet_sum
    lower = max(gate.lower, 2.0 * (centre - half) - 1.0)
    upper = min(gate.upper, 2.0 * (centre + half) - 1.0)
    squares = gate.difference_square_sum + difference * difference
    status, cusum = _next_status(gate, difference, squares, t, lower, params)
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
    """Return the mean returns of policy and rules, and the interval of their difference."""
    n = gate.decisions
    base, policy = (gate.base_return / n, gate.policy_return / n) if n else (0.0, 0.0)
    return Comparison(n, base, policy, policy - base, *interval(gate, params), gate.status)


def _next_status(
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
