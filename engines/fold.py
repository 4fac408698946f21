"""The fold: one journal entry changes the state and calls for decisions.

`apply` is the whole of sizing. Deterministic: it reads only the state and the entry, and updates the state in place.
Every kind of entry has one handler, which folds and names the portfolios that have to decide.

Source: docs/pipeline.md, stage 0 and triggers.
"""

import hashlib
from collections.abc import Callable

from engines.handlers import policy_questions
from engines.handlers.calls import fold_call
from engines.handlers.controls import fold_control
from engines.handlers.effects import FoldResult, Journaled
from engines.handlers.expiry import expire_forecasts
from engines.handlers.market import fold_readings, fold_step, look_again
from engines.handlers.outcomes import fold_outcome
from engines.handlers.positions import fold_positions
from engines.handlers.signals import fold_signal
from engines.handlers.sources import fold_adopt, is_new
from engines.handlers.versions import belongs, fold_engine, fold_genesis
from engines.pipeline.decide import decide
from engines.pipeline.publish import publish
from engines.state.partition import State
from schemas.errors import AnotherVersion


def apply(state: State, entry: Journaled) -> FoldResult:
    """Fold one entry and decide what it calls for; mutates the state.

    Raises:
        AnotherVersion: another version decides here; the text says what to run.
        ValueError: the journal does not begin with Genesis, or has a kind that this version does not know: the
            journal is not one that this worker may fold.
    """
    folded = FoldResult()
    if entry.kind == "genesis":
        fold_genesis(state, entry)
        return folded
    progress = state.progress
    if progress is None:
        msg = f"journal partition {state.partition}: entry {entry.offset} is a {entry.kind}, Genesis must come first"
        raise ValueError(msg)
    if progress.successor:
        raise AnotherVersion(f"{belongs(state, entry, progress.successor)}: install version {progress.successor}")
    progress.now_ns = max(progress.now_ns, entry.journaled_at_ns)
    progress.inputs_hash = hashlib.sha256(bytes.fromhex(progress.inputs_hash) + entry.value).hexdigest()
    expire_forecasts(state, folded)
    policy_questions.close_overdue(state, folded)
    if entry.topic and not is_new(progress, entry):
        folded.note("duplicate", entry.topic)
    else:
        handler = HANDLERS.get(entry.kind)
        if handler is None:
            msg = f"journal partition {state.partition}: entry {entry.offset} has unknown kind {entry.kind!r}"
            raise ValueError(msg)
        handler(state, entry, folded)
    for portfolio in sorted(folded.triggers):
        decision = decide(state, portfolio, folded.triggers[portfolio])
        if decision.silent:
            continue
        claimed = folded.claimed.get(portfolio, [])
        policy_questions.keep(state, decision, claimed, entry.offset, folded)
        folded.allocations.append(publish(state, entry.offset, entry.journaled_at_ns, decision, claimed))
    return folded


def _signal(state: State, entry: Journaled, folded: FoldResult) -> None:
    fold_signal(state, entry, entry.body, folded)


def _cascade(state: State, entry: Journaled, folded: FoldResult) -> None:
    fold_readings(state, entry, entry.body, folded)


def _tick(state: State, entry: Journaled, folded: FoldResult) -> None:
    look_again(state, entry.offset, folded)


def _answer(state: State, entry: Journaled, folded: FoldResult) -> None:
    policy_questions.answered(state, entry.body, folded)


HANDLERS: dict[str, Callable[[State, Journaled, FoldResult], None]] = {
    "signal": _signal,
    "cascade": _cascade,
    "step": fold_step,
    "tick": _tick,
    "outcome": fold_outcome,
    "positions": fold_positions,
    "control": fold_control,
    "adopt": fold_adopt,
    "engine": fold_engine,
    "call": fold_call,
    "advice": _answer,
    "no_advice": _answer,
}
