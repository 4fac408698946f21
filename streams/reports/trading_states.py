"""The trading states in force: scope, start, who ordered it and why, and the cells it covers."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from engines.handlers.controls import covers
from engines.state.partition import MARKET_WIDE, State
from streams.reports.weight_history import instant
from streams.stages.control import Ordered

ScopeStates = Mapping[str, str]
"""Scope → its trading state; absent scopes are ACTIVE."""


def scopes(state: State) -> dict[str, str]:
    """Return the trading states in force on a journal partition."""
    return dict(state.ordered(MARKET_WIDE))


def view(states: Sequence[State], found: Mapping[int, Mapping[str, Ordered]]) -> list[dict[str, Any]]:
    """Return the trading states in force as plain JSON values, by scope.

    Args:
        states: each journal partition, folded to its current end.
        found: journal partition → scope → its order.
    """
    everywhere = sorted({item for state in states for item in scopes(state).items()})
    return [_row(scope, word, states, found) for scope, word in everywhere]


def _row(scope: str, word: str, states: Sequence[State], found: Mapping[int, Mapping[str, Ordered]]) -> dict[str, Any]:
    holds = [scopes(state).get(scope) == word for state in states]
    order = next((orders[scope] for partition, orders in found.items() if holds[partition] and scope in orders), None)
    return {
        "scope": scope,
        "state": word,
        **as_dict(order),
        "cells": sum(covers(scope, cell) for state in states for cell in _cells(state)),
        "partitions": [partition for partition, held in enumerate(holds) if held],
        "missing": [partition for partition, held in enumerate(holds) if not held],
    }


def as_dict(order: Ordered | None) -> dict[str, Any]:
    """Return an order's id, author, reason, times and source; all None if the journal no longer holds it."""
    if order is None:
        return dict.fromkeys(("control_id", "by", "reason", "ordered_at", "journaled_at", "source"))
    epoch, partition, offset = order.source
    return {
        "control_id": order.body["control_id"],
        "by": order.body["by"],
        "reason": order.body["reason"],
        "ordered_at": instant(order.body["timestamp_ns"]),
        "journaled_at": instant(order.journaled_at_ns),
        "source": {"topic": "control", "epoch": epoch, "partition": partition, "offset": offset},
    }


def _cells(state: State) -> Iterator[tuple[str, ...]]:
    """Yield each cell with a holding or a forecast."""
    for portfolio, cells in state.cells_of.items():
        for cell in cells:
            yield (portfolio, *cell)


# -- text ------------------------------------------------------------------------------------------------------------
def lines(rows: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """Yield trading states as lines of text."""
    for row in rows:
        who = f"since {row['journaled_at']} by {row['by']}: {row['reason']}" if row["control_id"] else "order expired"
        cells = f"{row['cells']} cell{'' if row['cells'] == 1 else 's'}" if row["cells"] else "no cells yet"
        yield f"{row['state']:<8} {row['scope']:<24} {who} ({cells})"
        if row["missing"]:
            yield f"  NOT in force on journal partitions {', '.join(map(str, row['missing']))}"


def history(rows: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """Yield orders as lines of text."""
    for row in rows:
        what = " ".join(f"{name}={value}" for name, value in row["payload"].items())
        yield f"{row['journaled_at']} {row['kind']} {what} by {row['by']}: {row['reason']} ({row['control_id']})"
