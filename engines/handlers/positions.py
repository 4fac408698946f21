"""Positions: what a portfolio reports to hold, and its equity. A report moves no target by itself.

Source: docs/pipeline.md, triggers.
"""

from engines.handlers.effects import FoldResult, Journaled
from engines.handlers.market import watch_caps
from engines.pipeline.decide import Trigger
from engines.state import capacity
from engines.state.partition import State
from engines.state.records import Book


def fold_positions(state: State, entry: Journaled, folded: FoldResult) -> None:
    """Take a report; the newest timestamp wins. Equity, caps and unmanaged positions may call for a decision."""
    body = entry.body
    portfolio = body["portfolio_id"]
    book = state.book(portfolio)
    if book.positions is not None and body["timestamp_ns"] <= book.positions_ns:
        folded.note("older_positions", portfolio)
        return
    as_of = body.get("as_of_sequence")
    broken = capacity.no_room_for_portfolio(state, portfolio) or _not_published(book, as_of)
    if broken is not None:
        folded.refuse(entry, *broken)
        return
    positions = tuple(sorted((symbol, float(quantity)) for symbol, quantity in body["quantities"].items()))
    value = body.get("equity")
    value = book.value_usd if value is None else float(value)
    after = book._replace(
        positions=positions,
        positions_ns=body["timestamp_ns"],
        as_of_sequence=as_of,
        value_usd=value,
        peak_usd=max(book.peak_usd, value),
    )
    state.put_book(portfolio, after)
    for symbol, quantity in positions:
        if quantity:
            state.holders.setdefault(symbol, {})[portfolio] = None
    strays = any(quantity and symbol not in book.managed for symbol, quantity in positions)
    if value != book.value_usd or strays or book.unmanaged:
        folded.call_for(portfolio, Trigger("value", "positions", mode="scale_down", cell=None, quiet=True))
    watch_caps(state, entry.offset, portfolio, folded)


def _not_published(book: Book, as_of: int | None) -> capacity.Broken:
    """Return why a report that names an allocation which was never published is not taken, None where it is."""
    if as_of is None or as_of <= book.sequence:
        return None
    return "as_of_sequence", f"must be at most {book.sequence}, the newest allocation's sequence, was {as_of}"
