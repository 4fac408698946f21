"""Positions: what a portfolio reports to hold, and its equity. A report moves no target by itself.

An equity further from the last reported one than any market moves it between two reports is suspect: the report counts
without it until another one agrees (`market.collar`: `doubt_ratio`, `agreement`, `doubt_s`). After such a leap upwards
the portfolio only reduces for `probation_s`, unless an operator states its value.

Source: docs/pipeline.md, triggers.
"""

from engines.handlers.effects import FoldResult, Journaled, alert
from engines.handlers.market import watch_caps
from engines.models.collar import distance
from engines.numerics.exact import ln
from engines.parameters import CollarParams
from engines.pipeline.decide import Trigger
from engines.state import capacity
from engines.state.partition import State
from engines.state.records import Book

SECOND_NS = 1_000_000_000


def fold_positions(state: State, entry: Journaled, folded: FoldResult) -> None:
    """Take a report; the newest timestamp wins. Equity, caps and unmanaged positions may call for a decision."""
    body, rule = entry.body, state.params.market.collar
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
    stated = body.get("equity")
    believed = stated is not None and _is_believed(book, stated, body["timestamp_ns"], rule)
    after = book._replace(positions=positions, positions_ns=body["timestamp_ns"], as_of_sequence=as_of)
    after = after._replace(reported_sequence=book.sequence, silent=False)
    state.oldest_change_ns = min(state.oldest_change_ns, book.changed_ns)
    if stated is not None and believed:
        value = float(stated)
        leapt = book.known_usd and value > book.known_usd * rule.doubt_ratio
        after = after._replace(
            value_usd=value,
            peak_usd=max(book.peak_usd, value),
            known_usd=value,
            suspect_usd=0.0,
            suspect_ns=0,
            leapt_ns=state.now_ns if leapt else book.leapt_ns,
        )
    elif stated is not None and not _agrees(book, stated, rule):
        if not book.suspect_usd:
            _warn(state, entry, folded, book, stated)
        after = after._replace(suspect_usd=float(stated), suspect_ns=body["timestamp_ns"])
    state.put_book(portfolio, after)
    for symbol, quantity in positions:
        if quantity:
            state.holders.setdefault(symbol, {})[portfolio] = None
    strays = any(quantity and symbol not in book.managed for symbol, quantity in positions)
    if after.value_usd != book.value_usd or strays or book.unmanaged:
        folded.call_for(portfolio, Trigger("value", "positions", mode="scale_down", cell=None, quiet=True))
    watch_caps(state, entry.offset, portfolio, folded)


def _is_believed(book: Book, stated: float, at_ns: int, rule: CollarParams) -> bool:
    """Return whether an equity counts: within `doubt_ratio` of the last known one, or confirmed by a later report.

    The first equity is always believed.
    """
    if not book.known_usd or distance(stated, book.known_usd) <= ln(rule.doubt_ratio):
        return True
    return _agrees(book, stated, rule) and at_ns - book.suspect_ns >= rule.doubt_s * SECOND_NS


def _agrees(book: Book, stated: float, rule: CollarParams) -> bool:
    """Return whether an equity is near the suspect one."""
    return book.suspect_usd > 0.0 and distance(stated, book.suspect_usd) <= rule.agreement


def _warn(state: State, entry: Journaled, folded: FoldResult, book: Book, stated: float) -> None:
    ratio = state.params.market.collar.doubt_ratio
    alert(
        state,
        folded,
        entry.offset,
        "suspect_equity",
        entry.body["portfolio_id"],
        severity="warning",
        value=stated,
        threshold=book.known_usd * (ratio if stated > book.known_usd else 1.0 / ratio),
    )


def _not_published(book: Book, as_of: int | None) -> capacity.Broken:
    """Return why a report that names an allocation which was never published is not taken, None where it is."""
    if as_of is None or as_of <= book.sequence:
        return None
    return "as_of_sequence", f"must be at most {book.sequence}, the newest allocation's sequence, was {as_of}"
