"""Comparison of policy and rules, per portfolio."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from engines.models import policy_gate
from engines.state import policy
from engines.state.partition import State


def rows(states: Iterable[State]) -> list[dict[str, Any]]:
    """Return one row per portfolio that has scored decisions or uses a policy, by portfolio id.

    Means are per window, as ratios of portfolio value, net of costs. `lower` and `upper` bound the advantage with an
    anytime-valid confidence interval.
    """
    found = []
    for state in states:
        known = {**state.gates, **state.questions}
        for (portfolio,) in known:
            asked = state.questions.get((portfolio,))
            compared = policy_gate.comparison(policy.gate_of(state, portfolio), state.params.rl.gate)
            questions = () if asked is None else asked.asked
            found.append(
                {
                    "portfolio_id": portfolio,
                    "mode": policy.mode_of(state, portfolio),
                    **compared._asdict(),
                    "questions": {status: _count(questions, status) for status in _statuses(questions)},
                }
            )
    return sorted(found, key=lambda row: row["portfolio_id"])


def render(found: Sequence[dict[str, Any]]) -> Iterator[str]:
    """Yield the rows as lines of text, in basis points of portfolio value per window."""
    if not found:
        yield "no portfolio uses a policy or has scored decisions (setting rl.enabled)"
        return
    yield (
        f"{'portfolio':<20} {'mode':<7} {'gate':<11} {'scored':>7} {'windows':>7} {'rules':>9} {'policy':>9} "
        f"{'advantage':>10}  95 %"
    )
    for row in found:
        means = " ".join(f"{_points(row[name]):>9}" for name in ("base_mean", "policy_mean"))
        yield (
            f"{row['portfolio_id']:<20} {row['mode']:<7} {row['status']:<11} {row['decisions']:>7} {row['windows']:>7} "
            f"{means} {_points(row['advantage']):>10}  {_points(row['lower'])} to {_points(row['upper'])}"
        )
    yield "means per window, in basis points of portfolio value, net of costs, on the same outcomes"


def _statuses(questions: Sequence[Any]) -> list[str]:
    return sorted(dict.fromkeys(each.status for each in questions))


def _count(questions: Sequence[Any], status: str) -> int:
    return sum(each.status == status for each in questions)


def _points(ratio: float) -> str:
    return f"{1e4 * ratio:+.3f}"
