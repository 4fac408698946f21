"""Publish: a decision becomes bytes, and the state remembers what was published.

Source: docs/pipeline.md, stage 14; docs/reading_allocations.md.
"""

from typing import NamedTuple

from engines.allocation import render
from engines.pipeline import cache
from engines.pipeline.claims import compare_forecasts, keep_claims
from engines.pipeline.decide import Decision
from engines.state.partition import State

__all__ = ["Published", "publish"]


class Published(NamedTuple):
    """One allocation, with the decision behind it."""

    decision: Decision
    sequence: int
    value: bytes


def publish(
    state: State, offset: int, journaled_at_ns: int, decision: Decision, claimed: list[tuple[str, str]]
) -> Published:
    """Return a decision's bytes, and remember targets, claims and the book that they leave.

    Args:
        state: changed in place.
        offset: of the journal entry.
        journaled_at_ns: its time.
        decision: what to publish.
        claimed: (strategy, symbol) of each cell that a signal of the entry gave a forecast.
    """
    value, value_hash = render(state, decision, offset)
    portfolio, book = decision.portfolio_id, decision.book
    idle = False
    for (strategy, symbol), target in zip(decision.holdings.cells, decision.targets, strict=True):
        key = (portfolio, strategy, symbol)
        if target.cents or state.targets.get(key) is not None:
            state.put_target(key, target)
        idle = idle or not target.cents
    keep_claims(state, offset, journaled_at_ns, decision, claimed)
    compare_forecasts(state, decision, claimed)
    watches = _watches(state, decision.quantities, decision.headroom)
    sequence = book.sequence + 1
    moved = decision.moved
    after = book._replace(
        sequence=sequence,
        last_hash=value_hash,
        watches=watches,
        changed_sequence=sequence if moved else book.changed_sequence,
        changed_ns=state.now_ns if moved else book.changed_ns,
        managed=tuple(sorted((*book.managed, *decision.newly_managed))),
        unmanaged=tuple(sorted(decision.unmanaged)),
        waiting=tuple(want.symbol for want in decision.wants if want.forecast)
        if decision.trigger.full
        else book.waiting,
        breached=book.breached and decision.holdings.basis == "positions",
    )
    state.put_book(portfolio, after)
    state.oldest_change_ns = min(state.oldest_change_ns, after.changed_ns)
    if idle:
        state.forget_idle_cells(portfolio)
    return Published(decision, sequence, value)


def _watches(state: State, quantities: dict[str, float], headroom: float) -> tuple[tuple[str, float], ...]:
    """Return the price of each held symbol below which no cap of the portfolio is exceeded by the tolerance."""
    reach = headroom * (1.0 + cache.limits(state).tolerance) * (1.0 - 1e-9)
    watches = []
    for symbol, quantity in quantities.items():
        market = state.markets.get((symbol,))
        if quantity and market is not None and market.bars is not None:
            watches.append((symbol, market.bars.last_price * reach))
    return tuple(watches)
