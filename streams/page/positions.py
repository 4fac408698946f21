"""Panels 2 and 3: each portfolio's targets and holdings, and its budgets."""

from collections.abc import Iterator, Mapping
from heapq import nlargest
from typing import Any, Final

from streams.page.model import ShownDecision
from streams.page.scene import MILLISECOND_NS, Scene, command
from streams.reports.portfolio import budgets

ROWS_MAX: Final = 500
"""Rows in the stream, the largest; the API gives all rows of one portfolio."""
PORTFOLIOS_MAX: Final = 200

PageRow = dict[str, Any]


def view(scene: Scene, portfolio: str | None = None) -> PageRow:
    """Return portfolios and rows, of all portfolios or of one; with rows of budgets."""
    chosen = [(name, each) for name, each in scene.newest() if portfolio in {None, name}]
    rows = [row for name, each in chosen for row in _rows(scene, name, each)]
    shown = rows if portfolio is not None else nlargest(ROWS_MAX, rows, key=_size)
    portfolios = [_portfolio(scene, name, each) for name, each in _largest(chosen)]
    return {
        "portfolios": portfolios,
        "portfolios_total": len(chosen),
        "left_out": scene.model.left_out,
        "rows": sorted(shown, key=lambda row: (row["portfolio_id"], row["symbol"])),
        "rows_total": len(rows),
        "complete": scene.complete,
        "missing": missing_parts(scene, [each.partition for _, each in chosen]),
        "try": "" if rows or portfolios else FIRST_STEP,
    }


FIRST_STEP: Final = command("publish", "signals", "signals.jsonl")
"""What to try when there is no allocation yet."""


def missing_parts(scene: Scene, partitions: list[int]) -> list[PageRow]:
    """Return the journal partitions whose worker state is not here, and who owns them."""
    return [
        {"partition": partition, "owner": scene.owner(partition)}
        for partition in sorted(dict.fromkeys(partitions))
        if scene.owner(partition) != "here"
    ]


def _largest(chosen: list[tuple[str, ShownDecision]]) -> list[tuple[str, ShownDecision]]:
    if len(chosen) <= PORTFOLIOS_MAX:
        return chosen
    largest = nlargest(PORTFOLIOS_MAX, chosen, key=lambda each: float(each[1].fields["totals"]["gross_usd"]))
    return sorted(largest, key=lambda each: each[0])


def _size(row: PageRow) -> float:
    return abs(float(row["target_usd"] or 0.0))


def _portfolio(scene: Scene, name: str, decision: ShownDecision) -> PageRow:
    fields, known = decision.fields, scene.model.portfolios[name]
    book = scene.book(name)
    until = fields.get("valid_until_ns")
    limits = scene.limits.get(fields["settings_hash"])
    return {
        "portfolio_id": name,
        "sequence": fields["sequence"],
        "decision_id": decision.decision_id,
        "decided_ms": decision.timestamp_ns // MILLISECOND_NS,
        "valid_until_ms": None if until is None else until // MILLISECOND_NS,
        "value_usd": fields["portfolio_value"],
        "gross_usd": fields["totals"]["gross_usd"],
        "net_usd": fields["totals"]["net_usd"],
        "utilization_ratio": fields["totals"]["utilization_ratio"],
        "drawdown_ratio": None if book is None else book["drawdown"],
        "basis": fields["basis"],
        "final": fields["final"],
        "bound": fields["bound"],
        "partition": decision.partition,
        "owner": scene.owner(decision.partition),
        "chain": known.chain.word,
        "chain_text": known.chain.text,
        "chain_since": known.chain.since,
        "settings_hash": fields["settings_hash"],
        "budgets": None if limits is None else budgets(fields, limits),
        "budgets_unknown": "" if limits is not None else f"settings {fields['settings_hash'][:12]} are not known here",
        "commands": {
            "show": command("portfolio", "show", name),
            "halt": command("control", "halt", "--scope", f"portfolio:{name}", "--reason", "WHY"),
            "explain": command("audit", "explain", decision.decision_id),
        },
    }


def _rows(scene: Scene, name: str, decision: ShownDecision) -> Iterator[PageRow]:
    """Yield a row of each symbol that is targeted, was targeted before, or is held."""
    fields, before = decision.fields, scene.model.portfolios[name].before
    book = scene.book(name)
    held = None if book is None else book["positions"]
    targets = fields["targets"]
    symbols = dict.fromkeys([*targets, *(held or {}), *((before or {}) if held is None else {})])
    for symbol in sorted(symbols):
        target = targets.get(symbol)
        unit = _unit_usd(scene, symbol, target, (before or {}).get(symbol))
        row = _row(fields, symbol, target)
        row |= _held(symbol, fields, held, before, unit, row)
        if symbol in targets or row["held_quantity"]:
            yield {"portfolio_id": name, "symbol": symbol, **row, **_freshness(scene, symbol)}


def _row(fields: Mapping[str, Any], symbol: str, target: Mapping[str, Any] | None) -> PageRow:
    reasons = [each["text"] for each in fields["reasons"] if each["symbol"] == symbol]
    return {
        "target_usd": 0.0 if target is None else target["notional_usd"],
        "quantity": 0.0 if target is None else target["quantity"],
        "weight_ratio": 0.0 if target is None else target["weight"],
        "bound": [each for each in fields["bound"] if _binds(each, symbol, fields["cells"])],
        "kept": symbol in fields["kept"],
        "unmanaged": symbol in fields["unmanaged"],
        "reasons": reasons,
    }


def _binds(cap: str, symbol: str, cells: list[Mapping[str, Any]]) -> bool:
    """Return whether a binding cap limits a symbol: its own, its strategy's, or the portfolio's."""
    level, _, name = cap.partition(":")
    if level == "symbol":
        return name == symbol
    if level == "cell":
        return name.endswith(f"/{symbol}")
    if level == "strategy":
        return any(cell["strategy_id"] == name and cell["symbol"] == symbol for cell in cells)
    return True


def _held(
    symbol: str,
    fields: Mapping[str, Any],
    held: Mapping[str, float] | None,
    before: Mapping[str, Any] | None,
    unit: float | None,
    row: PageRow,
) -> PageRow:
    """Return what is held, how that is known, and what is left to trade.

    known: the last reported positions. assumed: the targets before the newest decision. unknown: positions are
    reported, but to a worker whose state is not here, or the decision before was not read.
    """
    quantity: float | None = None
    basis = "unknown"
    if held is not None:
        quantity, basis = held.get(symbol, 0.0), "known"
    elif fields["basis"] == "targets" and before is not None:
        quantity, basis = (before.get(symbol) or {}).get("quantity", 0.0), "assumed"
    usd = 0.0 if quantity == 0.0 else None if quantity is None or unit is None else quantity * unit
    trade = None if usd is None or row["target_usd"] is None else row["target_usd"] - usd
    if row["kept"] or row["unmanaged"]:
        trade = 0.0
    return {"held_quantity": quantity, "held_usd": usd, "held_basis": basis, "to_trade_usd": trade}


def _unit_usd(scene: Scene, symbol: str, *targets: Mapping[str, Any] | None) -> float | None:
    """Return the value of one coin or contract: at the worker's price, or as a target was computed."""
    market = scene.part.get("markets", {}).get(symbol)
    if market is not None and market["unit_usd"] is not None:
        return float(market["unit_usd"])
    for target in targets:
        if target and target["quantity"] and target["notional_usd"] is not None:
            return float(target["notional_usd"] / target["quantity"])
    return None


def _freshness(scene: Scene, symbol: str) -> PageRow:
    market = scene.part.get("markets", {}).get(symbol)
    at = None if market is None else market["price_ms"]
    oldest = scene.part.get("max_price_age_s")
    stale = None if at is None or oldest is None else scene.now_ms - at > 1000 * oldest
    return {"price": None if market is None else market["price"], "price_ms": at, "stale": stale}
