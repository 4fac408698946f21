"""Policy gate: tests whether a policy's sizes earn more than those of the rules.

Each window of decisions gives one paired difference, summed over its cells: what cells have in common is in the
variance of that sum, and windows do not overlap. The gate opens when the lower bound of an anytime-valid confidence
sequence is above 0. The running intersection never falls again, so Page's CUSUM closes the gate; an operator then has
to restart the test. Cost O(1) per step.

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
from typing import Final, NamedTuple

from engines.numerics.exact import ln
from engines.parameters import GateParams

__all__ = ["Comparison", "Gate", "admit", "comparison", "interval", "score", "step"]

LONGEST_HORIZON_NS: Final = 30 * 86_400 * 1_000_000_000
"""A decision about a longer time is not scored: a slip in one horizon would hold a window open for years."""


class Gate(NamedTuple):
    """The evidence so far; the defaults are those before the first outcome."""

    status: str = "collecting"
    """collecting, open or closed."""
    windows: int = 0
    """Windows in the test; each has given one difference."""
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
    """Σ of net returns of the rules' sizes in these windows, as shares of V."""
    policy_return: float = 0.0
    """Σ of net returns of the policy's sizes, as shares of V."""
    decisions: int = 0
    """Decisions scored, including those of the window that is being summed."""
    opened_ns: int = 0
    """The newest window: its first decision, which also identifies it; 0 before the first one."""
    admits_until_ns: int = 0
    """Its last moment for a decision."""
    closes_ns: int = 0
    """When the last of its decisions is due: the next window may open."""
    summed_ns: int = 0
    """The window whose outcomes are being summed: the newest with an outcome, or the first one."""
    summed_decisions: int = 0
    summed_base: float = 0.0
    summed_policy: float = 0.0


class Comparison(NamedTuple):
    """Policy against rules on the same outcomes, net of costs; means per window, as shares of V."""

    decisions: int
    """Decisions scored, those of the window that is not in the test yet included."""
    windows: int
    base_mean: float
    policy_mean: float
    advantage: float
    lower: float
    """Lower end of the confidence interval of the advantage, from clipped differences."""
    upper: float
    status: str


def admit(gate: Gate, decided_ns: int, horizon_ns: int) -> tuple[Gate, int]:
    """Return the gate after a decision, and the window that will score the decision; 0: none.

    A window takes the decisions of half a horizon, that of its first one, and closes when the last of them is due. The
    decisions between the two overlap it and belong to no window. Whether a decision is scored depends on nothing that
    comes after it.
    """
    if horizon_ns > LONGEST_HORIZON_NS:
        return gate, 0
    due_ns = decided_ns + horizon_ns
    if decided_ns >= gate.closes_ns:
        opened = gate._replace(
            opened_ns=decided_ns,
            admits_until_ns=decided_ns + horizon_ns // 2,
            closes_ns=due_ns,
            summed_ns=gate.summed_ns or decided_ns,
        )
        return opened, decided_ns
    if gate.opened_ns <= decided_ns <= gate.admits_until_ns:
        return gate._replace(closes_ns=max(gate.closes_ns, due_ns)), gate.opened_ns
    return gate, 0


def score(gate: Gate, window_ns: int, base_return: float, policy_return: float, params: GateParams) -> Gate:
    """Return the gate updated by one outcome; the first of a newer window tests the sum of the one before.

    An outcome that comes later than that, or whose window was given up with older evidence, is not scored.

    Args:
        gate: before.
        window_ns: what `admit` gave for the decision.
        base_return: net return of the rules' size, as a share of V.
        policy_return: the same of the policy's size.
        params: as for `step`.
    """
    if not gate.summed_ns <= window_ns <= gate.opened_ns or not window_ns:
        return gate
    if window_ns > gate.summed_ns:
        if gate.summed_decisions:
            gate = step(gate, gate.summed_base, gate.summed_policy, params)
        gate = gate._replace(summed_ns=window_ns, summed_decisions=0, summed_base=0.0, summed_policy=0.0)
    return gate._replace(
        decisions=gate.decisions + 1,
        summed_decisions=gate.summed_decisions + 1,
        summed_base=gate.summed_base + base_return,
        summed_policy=gate.summed_policy + policy_return,
    )


def step(gate: Gate, base_return: float, policy_return: float, params: GateParams) -> Gate:
    """Return the gate updated by one window.

    Args:
        gate: before.
        base_return: net return of the rules' sizes, as a share of V.
        policy_return: the same of the policy's sizes.
        params: bound of the differences, error rate, and when to close.
    """
    bound = params.bound
    difference = max(-bound, min(bound, policy_return - base_return))
    y = (difference + bound) / (2.0 * bound)
    t = gate.windows + 1
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
    return gate._replace(
        status=status,
        windows=t,
        y_sum=y_sum,
        square_sum=gate.square_sum + (y - mean) * (y - mean),
        bet_sum=bet_sum,
        centre_sum=centre_sum,
        width_sum=width_sum,
        lower=lower,
        upper=upper,
        cusum=cusum,
        difference_square_sum=squares,
        base_return=gate.base_return + base_return,
        policy_return=gate.policy_return + policy_return,
    )


def interval(gate: Gate, params: GateParams) -> tuple[float, float]:
    """Return the confidence interval of the mean difference, as shares of V."""
    return gate.lower * params.bound, gate.upper * params.bound


def comparison(gate: Gate, params: GateParams) -> Comparison:
    """Return the mean returns of policy and rules, and the interval of their difference."""
    n = gate.windows
    base, policy = (gate.base_return / n, gate.policy_return / n) if n else (0.0, 0.0)
    return Comparison(gate.decisions, n, base, policy, policy - base, *interval(gate, params), gate.status)


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
