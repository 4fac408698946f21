"""Returns: the symbols' bars, gathered into bars of all symbols that move the correlations.

A symbol's return over a bar is known when its next bar begins, or when a little time has passed after the bar's end;
then the bar is closed for all, with those that traded in it. A symbol that comes later is missing in it and blocks
nobody. What is gathered and what is learnt is in the table `correlations`: parts of bytes.

Source: docs/methods.md, section 6 (event-time bars, previous-tick synchronised).
"""

from collections.abc import Mapping

from engines.handlers.effects import FoldResult, alert
from engines.models import correlation, moments
from engines.models.bars import Bars
from engines.numerics.exact import ln
from engines.pipeline import cache
from engines.state.partition import State

__all__ = ["close", "restart", "rolled", "take"]

SECOND_NS = 1_000_000_000
GRACE_S = 10
"""How long after its end a bar waits for the steps of other partitions of `prices`."""


def rolled(state: State, symbol: str, before: Bars | None, after: Bars) -> None:
    """Collect the return of a symbol's bar that a step of a later bar has closed."""
    if before is None or after.bar == before.bar or before.bar <= state.closed_bar:
        return
    change = _change(before)
    if change is not None:
        state.gathered.setdefault(before.bar, {})[symbol] = change
        state.put_gathered()


def close(state: State, end_ns: int, offset: int, folded: FoldResult) -> None:
    """Close the bars that ended `GRACE_S` or more before `end_ns`, the end of a step."""
    width_ns = state.params.market.bar_s * SECOND_NS
    newest = (end_ns - GRACE_S * SECOND_NS) // width_ns - 1
    if newest <= state.closed_bar:
        return
    _gather_still_open(state, newest)
    for bar in sorted(state.gathered):
        if bar <= newest:
            take(state, state.gathered.pop(bar), (bar + 1) * width_ns, offset, folded)
    state.closed_bar = newest
    state.put_gathered()


def take(state: State, returns: Mapping[str, float], end_ns: int, offset: int, folded: FoldResult) -> None:
    """Let one bar of log returns by symbol move the correlations; the first partition alone raises alerts."""
    params = state.params.risk_management.correlation
    moments.observe(state.moments, end_ns, returns, params)
    crossings = correlation.alerts(state.moments, correlation.raw(state.moments, params), params)
    raised = [each for each in crossings if each.above]
    if raised and state.partition == 0:
        folded.note("correlation_alert", "", float(len(raised)))
        strongest = max(raised, key=lambda each: (abs(each.correlation), each.first, each.second))
        alert(
            state,
            folded,
            offset,
            "correlation",
            f"{strongest.first}/{strongest.second}",
            severity="warning",
            value=strongest.correlation,
            threshold=params.alert_threshold,
            result=f"{len(raised)} of {len(state.moments.symbols)} symbols' pairs rose above the threshold",
        )
    state.put_moments()
    folded.note("correlation_mean", str(len(state.moments.symbols)), cache.correlations(state).mean)


def restart(state: State) -> None:
    """Forget what is gathered: bars of another width do not continue the old ones."""
    state.gathered.clear()
    state.closed_bar = -1
    state.put_gathered()


def _gather_still_open(state: State, newest: int) -> None:
    """Gather the returns of the symbols whose newest bar is one that is to be closed now."""
    for (symbol,), market in sorted(state.markets.items()):
        bars = market.bars
        if bars is not None and state.closed_bar < bars.bar <= newest:
            change = _change(bars)
            if change is not None:
                state.gathered.setdefault(bars.bar, {})[symbol] = change


def _change(bars: Bars) -> float | None:
    """Return the log return of the running bar so far; None where there is no close before it."""
    return None if bars.previous_close is None else ln(bars.last_price / bars.previous_close)
