"""Inputs that stop: an alert for prices, reports and outcomes that no longer come, once until they come again.

Silence looks like health, so each input that is expected is missed: the price of a symbol after `max_price_age_s`, a
report of positions `report_due_s` after a change of a target, and the outcome of a claim once a second horizon has
passed. Reports and outcomes are only missed where there were some before.

Source: docs/alerts.md.
"""

from engines.handlers.effects import FoldResult, alert
from engines.state.partition import NEVER_NS, State
from engines.state.records import Book, CellRecord

SECOND_NS = 1_000_000_000


def of_prices(state: State, offset: int, folded: FoldResult) -> None:
    """Raise an alert for each symbol whose price is too old to size with; first partition alone.

    Nothing is looked at before the oldest price that was fresh at the last look can be too old.
    """
    max_age_s = state.params.validation_criteria.max_price_age_s
    limit_ns = state.now_ns - int(max_age_s * SECOND_NS)
    if state.partition != 0 or state.oldest_price_ns >= limit_ns:
        return
    oldest_ns = state.now_ns
    for (symbol,), market in sorted(state.markets.items()):
        if market.bars is None or market.stale:
            continue
        if market.bars.last_ns >= limit_ns:
            oldest_ns = min(oldest_ns, market.bars.last_ns)
            continue
        state.put_market(symbol, market._replace(stale=True))
        age_s = (state.now_ns - market.bars.last_ns) / SECOND_NS
        alert(state, folded, offset, "stale_price", symbol, severity="warning", value=age_s, threshold=max_age_s)
    state.oldest_price_ns = oldest_ns


def of_reports(state: State, offset: int, folded: FoldResult) -> None:
    """Raise an alert for each portfolio that reports its positions, but has not since a target changed.

    Nothing is looked at before the oldest change that was unreported at the last look can be overdue.
    """
    due_s = state.params.portfolio.report_due_s
    limit_ns = state.now_ns - int(due_s * SECOND_NS)
    if state.oldest_change_ns >= limit_ns:
        return
    oldest_ns = NEVER_NS
    for (portfolio,), book in sorted(state.books.items()):
        if book.silent or not _is_awaited(book):
            continue
        if book.changed_ns >= limit_ns:
            oldest_ns = min(oldest_ns, book.changed_ns)
            continue
        state.put_book(portfolio, book._replace(silent=True))
        age_s = (state.now_ns - book.changed_ns) / SECOND_NS
        alert(state, folded, offset, "missing_report", portfolio, severity="warning", value=age_s, threshold=due_s)
    state.oldest_change_ns = oldest_ns


def of_outcomes(
    state: State, offset: int, folded: FoldResult, key: tuple[str, str, str], cell: CellRecord
) -> CellRecord:
    """Return the cell, marked as silent if an alert was raised: it has learnt before, and an outcome is overdue."""
    if cell.silent or not cell.claims or state.posteriors.get(key) is None:
        return cell
    oldest = cell.claims[0]
    age_s, due_s = (state.now_ns - oldest.timestamp_ns) / SECOND_NS, 2.0 * oldest.horizon_s
    if age_s <= due_s:
        return cell
    alert(state, folded, offset, "missing_outcome", "/".join(key), severity="warning", value=age_s, threshold=due_s)
    return cell._replace(silent=True)


def _is_awaited(book: Book) -> bool:
    """Return whether a portfolio that reports has not reported its newest change of a target."""
    if book.positions is None or not book.changed_sequence:
        return False
    reported = book.reported_sequence if book.as_of_sequence is None else book.as_of_sequence
    return reported < book.changed_sequence
