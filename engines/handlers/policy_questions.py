"""Questions: what the policy is asked about a decision, what it answered, and until when an answer counts.

A question is about one cell of one decision. It is open until its first answer, its deadline (journal time), or a newer
decision for the cell. Beside the questions lies the book as the caps left it, so that an answer runs stages 12 to 14 on
the very sizes that it was asked about. A cut since then replaces those sizes: an answer never brings back what was cut.

Source: docs/pipeline.md, triggers.
"""

from collections.abc import Sequence
from typing import Any

from engines.handlers.effects import FoldResult
from engines.handlers.policy_request import forecast_of, request
from engines.pipeline import cache, caps
from engines.pipeline.decide import Decision, Trigger
from engines.pipeline.sizing_modes import levels
from engines.state import policy
from engines.state.partition import State
from engines.state.records import CappedCell, PolicyQuestion, Questions

__all__ = ["answered", "close_overdue", "keep", "revise_all", "withdraw"]

SECOND_NS = 1_000_000_000
OPEN = "open"
BREAKER_OPEN = "breaker_open"
"""Status of a question that was not asked because the breaker was open; the answer's word for it is `open` too."""


def keep(state: State, decision: Decision, claimed: Sequence[tuple[str, str]], offset: int, folded: FoldResult) -> None:
    """Take a decision: open the questions of its signals, and keep the book that an answer would nudge.

    A full decision replaces the book and drops questions about forecasts that have ended. A decision that scales down
    replaces the cells that it changed, and drops their questions. One on an answer changes neither.
    """
    portfolio = decision.portfolio_id
    before = state.questions.get((portfolio,))
    if not state.params.rl.enabled:
        if before is not None:
            state.questions.drop((portfolio,))
        return
    mode = decision.trigger.mode
    book: tuple[CappedCell, ...] = ()
    asked: list[PolicyQuestion] = []
    if mode == "full":
        opened = _opened(state, decision, claimed, offset)
        asked = [*_still_meant(state, portfolio, before, opened), *opened]
        book = _book(decision) if asked else ()
        folded.requests += [request(state, decision, each) for each in opened]
    elif before is not None:
        changed = _changed(decision) if mode == "scale_down" else {}
        book = tuple(changed.get((row.strategy_id, row.symbol), row) for row in before.book)
        asked = [each for each in before.asked if (each.strategy_id, each.symbol) not in changed]
    if asked:
        awaited = any(each.status == OPEN and policy.may_act(state, portfolio, each.strategy_id) for each in asked)
        state.put_questions(portfolio, Questions(book, tuple(asked), awaited))
    elif before is not None:
        state.questions.drop((portfolio,))


def answered(state: State, body: dict[str, Any], folded: FoldResult) -> None:
    """Fold an answer, or why there is none (`reason`); the first one to an open question counts, others are noted."""
    portfolio = body["portfolio_id"]
    record = state.questions.get((portfolio,))
    index = _index(state, portfolio, record, body["strategy_id"], body["symbol"], body["decision_id"])
    if record is None or index is None:
        folded.note("advice", "stale")
        return
    asked = record.asked[index]
    if asked.status != OPEN:
        folded.note("advice", "late" if asked.status == "deadline" else "repeated")
        return
    if "reason" in body:
        reason = body["reason"]
        closed = asked._replace(status=BREAKER_OPEN if reason == OPEN else reason)
    else:
        counts = body["confidence"] >= state.params.rl.min_confidence
        closed = asked._replace(
            status=policy.COUNTED if counts else "low_confidence",
            nudge=float(body["nudge"]),
            confidence=float(body["confidence"]),
            model_version=body["model_version"],
        )
        if counts:
            _remember(state, portfolio, record, closed)
    _close(state, portfolio, index, closed, "advice", folded)


def withdraw(state: State, portfolio: str, cell: tuple[str, str]) -> None:
    """Forget the questions about a cell, and its place in the book that an answer would nudge."""
    before = state.questions.get((portfolio,))
    if before is None:
        return
    book = tuple(row for row in before.book if (row.strategy_id, row.symbol) != cell)
    asked = tuple(each for each in before.asked if (each.strategy_id, each.symbol) != cell)
    if not asked:
        state.questions.drop((portfolio,))
    elif len(book) < len(before.book) or len(asked) < len(before.asked):
        state.put_questions(portfolio, before._replace(book=book, asked=asked))


def close_overdue(state: State, folded: FoldResult) -> None:
    """Close the questions whose deadline has passed."""
    for portfolio, strategy, symbol, offset in state.overdue(state.now_ns):
        record = state.questions.get((portfolio,))
        index = _index(state, portfolio, record, strategy, symbol, state.decision_id(portfolio, offset))
        if record is not None and index is not None and record.asked[index].status == OPEN:
            closed = record.asked[index]._replace(status="deadline")
            _close(state, portfolio, index, closed, "deadline", folded)


def revise_all(state: State, control_id: str, concerned: Sequence[str], folded: FoldResult) -> None:
    """Let portfolios decide again on what they keep, because an operator has changed the policy's mode."""
    for portfolio in concerned:
        if state.questions.get((portfolio,)) is not None:
            folded.call_for(portfolio, Trigger("control", control_id, mode="reuse", cell=None))


def _index(
    state: State, portfolio: str, record: Questions | None, strategy: str, symbol: str, decision_id: str
) -> int | None:
    """Return the place of the question about a cell of a decision, or None where it is not known any more."""
    for index, asked in enumerate(() if record is None else record.asked):
        known = (asked.strategy_id, asked.symbol, state.decision_id(portfolio, asked.offset))
        if known == (strategy, symbol, decision_id):
            return index
    return None


def _close(state: State, portfolio: str, index: int, closed: PolicyQuestion, kind: str, folded: FoldResult) -> None:
    """Store what became of a question; call for a decision where the last one was not final."""
    record = state.questions[(portfolio,)]
    asked = (*record.asked[:index], closed, *record.asked[index + 1 :])
    state.put_questions(portfolio, record._replace(asked=asked))
    folded.note("advice", closed.status)
    if record.awaited:
        name = state.decision_id(portfolio, closed.offset)
        folded.call_for(portfolio, Trigger(kind, name, mode="reuse", cell=(closed.strategy_id, closed.symbol)))


def _opened(state: State, decision: Decision, claimed: Sequence[tuple[str, str]], offset: int) -> list[PolicyQuestion]:
    """Return the questions about a decision's signals: of each cell that the caps left anything of."""
    deadline_ns = state.now_ns + int(state.params.rl.deadline_s * SECOND_NS)
    found = []
    for cell in dict.fromkeys(claimed):
        index = decision.holdings.cells.index(cell)
        size = decision.capped[index]
        if not size or decision.sizes[index] is None or policy.mode_of(state, decision.portfolio_id, cell[0]) == "off":
            continue
        forecast = forecast_of(state, decision.portfolio_id, cell)
        weight = size / (100.0 * decision.book.value_usd)
        found.append(PolicyQuestion(*cell, offset, forecast.signal_id, forecast.timestamp_ns, deadline_ns, weight))
    return found


def _still_meant(
    state: State, portfolio: str, before: Questions | None, opened: Sequence[PolicyQuestion]
) -> list[PolicyQuestion]:
    """Return the questions about live forecasts, without those about cells that are asked about again."""
    asked_again = [(each.strategy_id, each.symbol) for each in opened]
    return [
        asked
        for asked in (() if before is None else before.asked)
        if (asked.strategy_id, asked.symbol) not in asked_again and policy.is_current(state, portfolio, asked)
    ]


def _book(decision: Decision) -> tuple[CappedCell, ...]:
    rows = zip(decision.holdings.cells, decision.capped, decision.targets, strict=True)
    return tuple(CappedCell(*cell, cents, target.cut, target.cap_factor) for cell, cents, target in rows)


def _changed(decision: Decision) -> dict[tuple[str, str], CappedCell]:
    """Return the cells that a decision changed by scaling down, as an answer would find them."""
    rows = zip(decision.holdings.cells, decision.cents, decision.holdings.intended, decision.targets, strict=True)
    return {
        cell: CappedCell(*cell, cents, target.cut, target.cap_factor)
        for cell, cents, intended, target in rows
        if cents != intended
    }


def _remember(state: State, portfolio: str, record: Questions, asked: PolicyQuestion) -> None:
    """Keep with the decision's claim the rules' size, that with the whole nudge, and the window that scores both."""
    key = (portfolio, asked.strategy_id, asked.symbol)
    cell = state.predictions.get(key)
    claims = () if cell is None else cell.claims
    for index in range(len(claims) - 1, -1, -1):
        if cell is not None and claims[index].offset == asked.offset:
            advised = (asked.base_weight, _with_whole_nudge(state, portfolio, record, asked))
            window_ns = policy.window_of(state, portfolio, claims[index], claims)
            claim = claims[index]._replace(advised=advised, window_ns=window_ns)
            advised_claims = (*claims[:index], claim, *claims[index + 1 :])
            state.predictions.put(key, cell._replace(claims=advised_claims))
            return


def _with_whole_nudge(state: State, portfolio: str, record: Questions, asked: PolicyQuestion) -> float:
    """Return the cell's share of V with the nudge at full weight, within the caps."""
    cells = [(row.strategy_id, row.symbol) for row in record.book]
    cents = [row.cents for row in record.book]
    place = cells.index((asked.strategy_id, asked.symbol))
    changes = [0.0] * len(cells)
    changes[place] = policy.clipped(asked.nudge, state.params.rl)
    value_usd = state.book(portfolio).value_usd
    nudged, _ = policy.blend(cents, changes, levels(state, cells, cents, cents))
    factors = [row.cap_factor for row in record.book]
    capped = caps.caps(cells, nudged, factors, value_usd, cache.limits(state))
    return capped.cents[place] / (100.0 * value_usd)
