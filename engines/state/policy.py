"""Policy: how far an outside policy may nudge a size, and what evidence there is that it should.

It is asked and scored always, but it acts only where an operator lets it (`mode`) and the evidence has opened its gate;
then its nudge is bounded, weighted by its confidence, and below every rule: caps again after it, no side flips, what
a cascade has cut it cannot lift.

Source: docs/methods.md, section 10; docs/pipeline.md, stage 12.
"""

from collections.abc import Sequence

from engines.models import policy_gate
from engines.models.policy_gate import Gate
from engines.parameters import RlParams
from engines.state.partition import POLICY, State
from engines.state.records import Claim, PolicyQuestion
from schemas.vocabulary import PolicyMode

__all__ = [
    "COUNTED",
    "awaits",
    "blend",
    "clipped",
    "gate_of",
    "is_current",
    "may_act",
    "mode_of",
    "nudges",
    "score",
    "window_of",
]

SECOND_NS = 1_000_000_000
COUNTED = "counted"
"""Status of an answer that may nudge."""
RANK: dict[PolicyMode, int] = {"off": 0, "shadow": 1, "live": 2}


def mode_of(state: State, portfolio: str, strategy: str | None = None) -> PolicyMode:
    """Return the mode in force: the portfolio's, else that for all, else the settings'; a strategy's can only restrict.

    Args:
        state: read only.
        portfolio: whose mode.
        strategy: of which strategy, or None for the portfolio's own.
    """
    params = state.params.rl
    if not params.enabled:
        return "off"
    scopes: dict[str, PolicyMode] = dict(state.ordered(POLICY))  # type: ignore[arg-type]
    wide = scopes.get(f"portfolio:{portfolio}") or scopes.get("all") or params.mode
    own = scopes.get(f"strategy:{strategy}", wide)
    return min(wide, own, key=RANK.__getitem__)


def gate_of(state: State, portfolio: str) -> Gate:
    """Return a portfolio's evidence; a portfolio that was never scored has none."""
    return state.gates.get((portfolio,)) or Gate()


def may_act(state: State, portfolio: str, strategy: str) -> bool:
    """Return whether an answer about one of the strategy's cells may move it now."""
    return mode_of(state, portfolio, strategy) == "live" and gate_of(state, portfolio).status == "open"


def awaits(state: State, portfolio: str) -> bool:
    """Return whether an answer may still revise what was last published."""
    record = state.questions.get((portfolio,))
    return record is not None and record.awaited


def nudges(state: State, portfolio: str, cells: Sequence[tuple[str, str]]) -> list[float]:
    """Return the relative change of each cell that is in force now, weighted by confidence; empty: of none."""
    record = state.questions.get((portfolio,))
    if record is None or gate_of(state, portfolio).status != "open":
        return []
    params = state.params.rl
    found = {
        (asked.strategy_id, asked.symbol): clipped(asked.nudge, params) * asked.confidence
        for asked in record.asked
        if asked.status == COUNTED
        and is_current(state, portfolio, asked)
        and mode_of(state, portfolio, asked.strategy_id) == "live"
    }
    return [found.get(cell, 0.0) for cell in cells] if found else []


def is_current(state: State, portfolio: str, asked: PolicyQuestion) -> bool:
    """Return whether the forecast that a question is about is still the cell's."""
    cell = state.predictions.get((portfolio, asked.strategy_id, asked.symbol))
    if cell is None or cell.forecast is None:
        return False
    return (cell.forecast.signal_id, cell.forecast.timestamp_ns) == (asked.signal_id, asked.signal_ns)


def clipped(nudge: float, params: RlParams) -> float:
    """Return a nudge within its bounds."""
    return max(-params.max_nudge, min(params.max_nudge, nudge))


def blend(cents: Sequence[int], changes: Sequence[float], levels: Sequence[int]) -> tuple[list[int], dict[int, str]]:
    """Return the sizes after the policy's nudges, and why, by cell; a cell under a cascade cut cannot grow.

    Args:
        cents: signed sizes within the caps.
        changes: relative change of each, within ±max_nudge.
        levels: cascade level of each, 0 MONITOR.
    """
    after = list(cents)
    reasons: dict[int, str] = {}
    for index, (size, change, level) in enumerate(zip(cents, changes, levels, strict=True)):
        if not change or not size:
            continue
        if level and change > 0.0:
            reasons[index] = "a cascade cut is not lifted"
            continue
        after[index] = int(size * (1.0 + change))
        reasons[index] = f"nudged by {change:+.4g}"
    return after, reasons


def window_of(state: State, portfolio: str, claim: Claim, open_claims: Sequence[Claim]) -> int:
    """Return the window of the gate that scores an answered decision, 0 where none does; the gate takes it.

    A cell has one open decision in a window: a second one would count what the first holds again.

    Args:
        state: changed in place.
        portfolio: whose evidence.
        claim: what the decision claimed.
        open_claims: those of its cell whose outcome has not come.
    """
    gate = gate_of(state, portfolio)
    after, window_ns = policy_gate.admit(gate, claim.timestamp_ns, int(claim.horizon_s * SECOND_NS))
    if not window_ns or any(each.window_ns == window_ns for each in open_claims):
        return 0
    state.gates.put((portfolio,), after)
    return window_ns


def score(state: State, portfolio: str, claim: Claim, realised: float) -> tuple[Gate, Gate]:
    """Take what the rules' size and the policy's made of the same outcome; return the evidence before and after.

    Args:
        state: changed in place.
        portfolio: whose evidence.
        claim: that the outcome settles.
        realised: return of the asset over the holding time.
    """
    before = gate_of(state, portfolio)
    if claim.advised is None:
        return before, before
    costs = state.params.position_sizing.costs
    round_trip = 2.0 * (costs.fee_ratio + costs.slippage_ratio)
    rules, advised = (weight * realised - round_trip * abs(weight) for weight in claim.advised)
    after = policy_gate.score(before, claim.window_ns, rules, advised, state.params.rl.gate)
    if after is not before:
        state.gates.put((portfolio,), after)
    return before, after
