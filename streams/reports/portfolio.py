"""The current state of a portfolio: its newest allocation, plus what the journal holds by now."""

from collections.abc import Iterator, Mapping
from typing import Any, Final

from engines.pipeline import cache
from engines.pipeline.caps import Limits
from engines.pipeline.sizing_modes import trading_states
from engines.state.partition import State
from streams.reports.weight_history import instant

SECOND_NS: Final = 1_000_000_000
SINCE_VERSION_2: Final = (
    "cells",
    "strategy_weights",
    "drift",
    "drifted_strategies",
    "max_drift_pct",
    "correlation_penalties",
    "diversification",
)
"""Fields absent from allocations of decision version 1."""

ShownFields = Mapping[str, Any]


def view(fields: ShownFields, state: State, now_ns: int) -> dict[str, Any]:
    """Return the state of a portfolio as plain JSON values.

    Args:
        fields: its newest allocation.
        state: its journal partition, folded to the current end.
        now_ns: current time, ns since 1970.
    """
    in_force = fields["settings_hash"] == state.settings_hash
    return {
        "portfolio_id": fields["portfolio_id"],
        "sequence": fields["sequence"],
        "decision_id": fields["decision_id"],
        "decision_version": fields["decision_version"],
        "trigger": fields["trigger"],
        "basis": fields["basis"],
        "final": fields["final"],
        "value_usd": fields["portfolio_value"],
        "totals": fields["totals"],
        "targets": fields["targets"],
        "cells": fields.get("cells"),
        "bound": fields["bound"],
        "strategies": _strategies(fields, state),
        "drift": fields.get("drift"),
        "max_drift_pct": fields.get("max_drift_pct"),
        "correlation_penalties": fields.get("correlation_penalties"),
        "diversification": fields.get("diversification"),
        "budgets": budgets(fields, cache.limits(state)) if in_force else None,
        "settings": {"hash": fields["settings_hash"], "in_force": in_force},
        "trading_states": _trading(fields, state),
        "freshness": _freshness(fields, state, now_ns),
        "absent": [name for name in SINCE_VERSION_2 if name not in fields],
    }


def budgets(fields: ShownFields, limits: Limits) -> dict[str, list[dict[str, Any]]] | None:
    """Return holdings against caps per symbol, per strategy and in total; None if the allocation lists no cells.

    A symbol's cap is the one in the settings; a stage may have applied a smaller one, as in a cascade.
    """
    cells, value = fields.get("cells"), fields["portfolio_value"]
    if cells is None:
        return None
    symbols: dict[str, int] = {}
    strategies: dict[str, int] = {}
    for cell in cells:
        symbols[cell["symbol"]] = symbols.get(cell["symbol"], 0) + abs(cell["cents"])
        strategies[cell["strategy_id"]] = strategies.get(cell["strategy_id"], 0) + abs(cell["cents"])
    return {
        "position": [_budget(name, cents, limits.position * value) for name, cents in sorted(symbols.items())],
        "strategy": [_budget(name, cents, limits.strategy * value) for name, cents in sorted(strategies.items())],
        "portfolio": [_budget("all", sum(symbols.values()), limits.gross * value)],
    }


def _budget(name: str, cents: int, cap_usd: float) -> dict[str, Any]:
    held = cents / 100
    return {"name": name, "held_usd": held, "cap_usd": cap_usd, "ratio": held / cap_usd if cap_usd > 0 else None}


def _strategies(fields: ShownFields, state: State) -> dict[str, dict[str, Any]] | None:
    """Return each strategy's weight in the allocation and as learnt by now, its gross, and whether it drifted.

    `weight` is None if the allocation was scaled by ratio. The result is None if the allocation lists no cells.
    """
    weights, cells = fields.get("strategy_weights"), fields.get("cells")
    if weights is None or cells is None:
        return None
    record = state.strategies.get((fields["portfolio_id"],))
    learnt = {} if record is None else dict(zip(record.names, record.weights, strict=True))
    names = sorted({*weights, *learnt, *(cell["strategy_id"] for cell in cells)})
    return {
        name: {
            "weight": weights.get(name),
            "weight_now": learnt.get(name),
            "gross_usd": sum(abs(cell["cents"]) for cell in cells if cell["strategy_id"] == name) / 100,
            "drifted": name in fields["drifted_strategies"],
        }
        for name in names
    }


def _trading(fields: ShownFields, state: State) -> dict[str, str]:
    """Return the trading state in force for each cell with a holding or a forecast."""
    portfolio = fields["portfolio_id"]
    held = {(cell["strategy_id"], cell["symbol"]) for cell in fields.get("cells", ())}
    cells = sorted({*held, *state.cells(portfolio)})
    return dict(zip(map("/".join, cells), trading_states(state, portfolio, cells), strict=True))


def _freshness(fields: ShownFields, state: State, now_ns: int) -> dict[str, Any]:
    """Return the ages in s of the decision, the journal's last entry, and each target's price."""
    until = fields["valid_until_ns"]
    markets = {symbol: state.markets.get((symbol,)) for symbol in fields["targets"]}
    priced = {symbol: market.bars.last_ns for symbol, market in markets.items() if market and market.bars}
    ages = {symbol: (now_ns - priced[symbol]) / SECOND_NS if symbol in priced else None for symbol in markets}
    oldest = state.params.validation_criteria.max_price_age_s
    return {
        "decided_at": instant(fields["timestamp_ns"]),
        "decision_age_s": (now_ns - fields["timestamp_ns"]) / SECOND_NS,
        "journal_age_s": None if state.progress is None else (now_ns - state.progress.now_ns) / SECOND_NS,
        "valid_until": None if until is None else instant(until),
        "expired": until is not None and until <= now_ns,
        "price_age_s": ages,
        "stale_prices": sorted(symbol for symbol, age in ages.items() if age is None or age > oldest),
    }


# -- text --------------------------------------------------------------------------------------------------------------
def render(shown: ShownFields) -> Iterator[str]:
    """Yield a view as lines of text."""
    fresh, totals, trigger = shown["freshness"], shown["totals"], shown["trigger"]
    yield (
        f"{shown['portfolio_id']}, allocation {shown['sequence']} ({shown['decision_id']}), decided "
        f"{fresh['decided_at']} ({_age(fresh['decision_age_s'])} ago) by {trigger['kind']} {trigger['id']}"
    )
    yield (
        f"value {shown['value_usd']:,.2f} USD, gross {totals['gross_usd']:,.2f}, net {totals['net_usd']:,.2f}, "
        f"{totals['utilization_ratio']:.1%} in use"
    )
    yield from _targets(shown)
    yield from _strategy_lines(shown)
    yield from _correlation(shown)
    yield from _budget_lines(shown)
    halted = {cell: state for cell, state in shown["trading_states"].items() if state != "ACTIVE"}
    yield "trading states: " + (", ".join(f"{cell} {state}" for cell, state in halted.items()) or "all ACTIVE")
    yield from _age_lines(shown)


def _targets(shown: ShownFields) -> Iterator[str]:
    yield "targets:" if shown["targets"] else "targets: nothing is held"
    for symbol, target in shown["targets"].items():
        age = shown["freshness"]["price_age_s"][symbol]
        price = "no price" if age is None else f"price {_age(age)} old"
        stale = ", STALE" if symbol in shown["freshness"]["stale_prices"] else ""
        yield f"  {symbol:<16} {target['notional_usd']:>16,.2f} USD {target['quantity']:>18.8f}   {price}{stale}"


def _strategy_lines(shown: ShownFields) -> Iterator[str]:
    if shown["strategies"] is None:
        yield "strategies: weights not in this allocation"
        return
    drift = shown["drift"]
    yield f"strategies (drift {drift['ratio']:.1%}{', ALERT' if drift['alert'] else ''}):"
    for name, strategy in shown["strategies"].items():
        weight, now = ("–" if strategy[key] is None else f"{strategy[key]:.1%}" for key in ("weight", "weight_now"))
        drifted = "   drifted" if strategy["drifted"] else ""
        yield f"  {name:<16} {strategy['gross_usd']:>16,.2f} USD   weight {weight:>6}, by now {now:>6}{drifted}"
        for cell in shown["cells"]:
            if cell["strategy_id"] == name:
                yield f"    {cell['symbol']:<14} {cell['cents'] / 100:>16,.2f} USD"


def _correlation(shown: ShownFields) -> Iterator[str]:
    """Yield what stage 10 removed from each symbol, and the diversification."""
    penalties, diversified = shown["correlation_penalties"], shown["diversification"]
    if penalties is None:
        return
    taken = ", ".join(f"{symbol} {share:.1%}" for symbol, share in penalties.items() if share)
    yield f"portfolio stage (correlation and caps) removed: {taken or 'nothing'}"
    if diversified is not None:
        yield f"diversification: ratio {diversified['ratio']:.2f}, score {diversified['score']:.2f}"


def _budget_lines(shown: ShownFields) -> Iterator[str]:
    if shown["budgets"] is None:
        reason = "no cells in this allocation" if shown["settings"]["in_force"] else "settings have changed since"
        yield f"budgets: unknown, {reason}"
        return
    yield "budgets:"
    for level, rows in shown["budgets"].items():
        for row in rows:
            ratio = "–" if row["ratio"] is None else f"{row['ratio']:.1%}"
            yield f"  {level:<10} {row['name']:<16} {row['held_usd']:>16,.2f} of {row['cap_usd']:>16,.2f} {ratio:>7}"


def _age_lines(shown: ShownFields) -> Iterator[str]:
    fresh = shown["freshness"]
    if fresh["expired"]:
        yield f"EXPIRED: a forecast was valid until {fresh['valid_until']}, and no decision has followed"
    elif fresh["valid_until"]:
        yield f"valid until {fresh['valid_until']}"
    if fresh["journal_age_s"] is not None:
        yield f"journal: last entry {_age(fresh['journal_age_s'])} ago"


def _age(seconds: float) -> str:
    """Return an age in the unit that fits: 12 s, 5 min, 3 h, 2 d."""
    for unit, length in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"
