"""Panels 7 and 8: strategies and what was learnt of them, and the policy."""

from typing import Any, Final

from streams.page.positions import missing_parts
from streams.page.scene import MILLISECOND_NS, Scene

ROWS_MAX: Final = 300

PageRow = dict[str, Any]


def strategies(scene: Scene) -> PageRow:
    """Return the weights of each portfolio's strategies, and what was learnt of their cells."""
    newest = list(scene.newest())
    weighed = [(name, known.weighed) for name, known in sorted(scene.model.portfolios.items()) if known.weighed]
    weights = [
        {
            "portfolio_id": name,
            "strategy_id": strategy,
            "weight": weight,
            "gross_usd": _gross_usd(scene, name, strategy),
            "drifted": strategy in fields["drifted_strategies"],
            "weighed_ms": fields["timestamp_ns"] // MILLISECOND_NS,
        }
        for name, fields in weighed
        for strategy, weight in sorted(fields["strategy_weights"].items())
    ]
    drift = [{"portfolio_id": name, **fields["drift"]} for name, fields in weighed]
    return {
        "weights": weights[:ROWS_MAX],
        "weights_total": len(weights),
        "drift": drift[:ROWS_MAX],
        "cells": scene.part.get("cells", []),
        "missing": missing_parts(scene, [each.partition for _, each in newest]),
    }


def _gross_usd(scene: Scene, portfolio: str, strategy: str) -> float | None:
    """Return a strategy's gross in the newest allocation."""
    newest = scene.model.portfolios[portfolio].newest
    if newest is None:
        return None
    cents = sum(abs(int(cell["cents"])) for cell in newest.fields["cells"] if cell["strategy_id"] == strategy)
    return cents / 100


def policy(scene: Scene) -> PageRow:
    """Return mode, gate and advantage by portfolio, and each known circuit breaker."""
    rows = []
    for name, each in scene.newest():
        shown = each.fields["rl"]
        if shown is None:
            continue
        statuses: dict[str, int] = {}
        for cell in shown["cells"]:
            statuses[cell["status"]] = statuses.get(cell["status"], 0) + 1
        rows.append({"portfolio_id": name, "mode": shown["mode"], "gate": shown["gate"], "questions": statuses})
    alerts = [
        {"endpoint": subject, "state": str(alert.get("result")), "since_ms": alert["timestamp_ns"] // MILLISECOND_NS}
        for (kind, subject), alert in scene.model.standing.items()
        if kind == "breaker"
    ]
    return {
        "portfolios": rows[:ROWS_MAX],
        "asked": bool(rows),
        "breaker": scene.part.get("breaker"),
        "breakers": alerts,
        "modes": scene.part.get("modes", {}),
    }
