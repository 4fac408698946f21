"""How often the gate errs, how long evidence takes, and what a step costs: many made policies at once.

All runs go side by side, a decision at a time, in numpy's own operations; `tests/engines/models/test_policy_gate.py`
holds that each run opens and closes where the engine does. Differences are normal, sd 28 bp, the bound 2 %.
"""

from collections.abc import Iterator
from statistics import median
from time import perf_counter_ns
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engines.models import policy_gate
from engines.models.policy_gate import Gate
from engines.parameters import GateParams

Floats = NDArray[np.float64]
Counts = NDArray[np.int64]

PARAMS = GateParams()
SD, EDGE, TURNED, AUTOCORRELATION = 0.0028, 0.0004, -0.0008, 0.2
TARGETS = {
    "no_difference": "ever opened: at most .05",
    "edge": "opens after about 900 to 1,000; closed wrongly .10 to .12",
    "turned": "closed after 65 to 72",
    "overlapping": "closed wrongly about .64",
}
NEVER = -1


def run(*, quick: bool = False) -> dict[str, Any]:
    """Return the four simulations with their targets, and the µs per step."""
    runs = 100 if quick else 4_000
    return {
        "runs": runs,
        "no_difference": _no_difference(runs),
        "edge": _edge(runs, 0.0),
        "turned": _turned(runs),
        "overlapping": _edge(runs, AUTOCORRELATION),
        "targets": TARGETS,
        "step_us": _step_us(2_000 if quick else 20_000),
    }


def simulate(differences: Iterator[Floats], params: GateParams = PARAMS) -> tuple[Counts, Counts]:
    """Return after how many decisions each run opened, and closed; −1: never.

    Args:
        differences: at each decision those of all runs, of shape (runs,).
        params: of the gate.
    """
    confidence = np.log(2.0 / params.alpha)
    y_sum = squares = bets = centres = widths = total = lower = cusum = np.zeros(1)
    opened = closed = np.full(1, NEVER)
    for t, difference in enumerate(differences, 1):
        d = np.clip(difference, -params.bound, params.bound)
        if t == 1:
            y_sum, squares, bets, centres, widths, total, cusum = (np.zeros_like(d) for _ in range(7))
            lower, opened, closed = np.full_like(d, -1.0), np.full(d.shape, NEVER), np.full(d.shape, NEVER)
        y = (d + params.bound) / (2.0 * params.bound)
        bet = np.minimum(np.sqrt(2.0 * confidence / ((0.25 + squares) / t * t * np.log(1.0 + t))), params.max_bet)
        widths = widths + 4.0 * (y - (0.5 + y_sum) / t) ** 2 * (-np.log(1.0 - bet) - bet) / 4.0
        y_sum, bets, centres = y_sum + y, bets + bet, centres + bet * y
        squares = squares + (y - (0.5 + y_sum) / (t + 1)) ** 2
        lower = np.maximum(lower, 2.0 * (centres - confidence - widths) / bets - 1.0)
        total = total + d * d
        open_ = (opened != NEVER) & (closed == NEVER)
        deviation = np.sqrt(total / t)
        loss = np.divide(-d, deviation, out=np.zeros_like(d), where=deviation > 0.0)
        cusum = np.where(open_, np.maximum(0.0, cusum + loss - params.cusum_slack), cusum)
        closed = np.where(open_ & (cusum > params.cusum_threshold), t, closed)
        opened = np.where((opened == NEVER) & (lower > 0.0), t, opened)
    return opened, closed


def made(seed: int, runs: int, decisions: int, mean: float, autocorrelation: float = 0.0) -> Iterator[Floats]:
    """Yield normally distributed differences of all runs, decision by decision."""
    rng = np.random.default_rng(seed)
    fresh = np.sqrt(1.0 - autocorrelation * autocorrelation)
    noise = rng.standard_normal(runs)
    for _ in range(decisions):
        yield mean + SD * noise
        noise = autocorrelation * noise + fresh * rng.standard_normal(runs)


def _no_difference(runs: int) -> dict[str, float]:
    opened, _ = simulate(made(1, runs, 5_000, 0.0))
    return {"decisions": 5_000, "ever_opened": float((opened != NEVER).mean())}


def _edge(runs: int, autocorrelation: float) -> dict[str, float]:
    opened, closed = simulate(made(2, runs, 6_000, EDGE, autocorrelation))
    return {
        "decisions": 6_000,
        "opened": float((opened != NEVER).mean()),
        "opened_after": float(np.median(opened[opened != NEVER])),
        "closed_wrongly": float((closed != NEVER).mean()),
    }


def _turned(runs: int, before: int = 3_000, after: int = 600) -> dict[str, float]:
    """Return how soon the gates that were open when the edge reversed close."""

    def both() -> Iterator[Floats]:
        yield from made(3, runs, before, EDGE)
        yield from made(4, runs, after, TURNED)

    opened, closed = simulate(both())
    running = (opened != NEVER) & (opened <= before) & ((closed == NEVER) | (closed > before))
    took = np.where(closed == NEVER, before + after, closed)[running] - before
    return {"running": int(running.sum()), "closed_after": float(np.median(took)), "all_closed_after": int(took.max())}


def _step_us(steps: int, block: int = 100) -> float:
    """Return the median over blocks of steps, which is robust to other load on the machine."""
    differences = np.random.default_rng(5).normal(EDGE, SD, steps).tolist()
    now, took = Gate(), []
    for start in range(0, steps, block):
        began = perf_counter_ns()
        for each in differences[start : start + block]:
            now = policy_gate.step(now, 0.0, each, PARAMS)
        took.append((perf_counter_ns() - began) / block / 1e3)
    return median(took)
