"""Calls: what one call of the library brings: prices, readings, returns, signals and answers of one moment.

Source: docs/architecture.md, three ways to run it.
"""

from typing import Any

import orjson

from engines.handlers import policy_questions, returns
from engines.handlers.effects import FoldResult, Journaled
from engines.handlers.market import SECOND_NS, fold_price, fold_readings, look_again
from engines.handlers.signals import fold_signal
from engines.state.partition import State


def fold_call(state: State, entry: Journaled, folded: FoldResult) -> None:
    """Fold one library call: prices, readings, returns, signals, and a policy's answers to an earlier call."""
    body = entry.body
    step_s = state.params.market.step_s
    for symbol, price in sorted(body.get("prices", {}).items()):
        end_ns = -(-entry.journaled_at_ns // (step_s * SECOND_NS)) * step_s * SECOND_NS
        fold_price(state, entry, folded, symbol, [price, price, price, price, 0.0, 1], end_ns, 0)
    for readings in body.get("cascade", ()):
        fold_readings(state, entry, readings, folded)
    returns.close(state, entry.journaled_at_ns, entry.offset, folded)
    if "returns" in body:
        returns.take(state, body["returns"], entry.journaled_at_ns, entry.offset, folded)
    look_again(state, entry.offset, folded)
    for signal in sorted(body.get("signals", ()), key=_canonical):
        fold_signal(state, entry, signal, folded)
    for answer in body.get("answers", ()):
        policy_questions.answered(state, answer, folded)


def _canonical(signal: dict[str, Any]) -> tuple[Any, ...]:
    """Return what orders the signals of one call, whose own order must change nothing."""
    cell = (signal.get("portfolio_id", "main"), signal["strategy_id"], signal["symbol"])
    return (*cell, signal["timestamp_ns"], orjson.dumps(signal, option=orjson.OPT_SORT_KEYS))
