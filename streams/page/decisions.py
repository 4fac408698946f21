"""Panel 4: the last decisions, and the waterfall of one."""

from typing import Any, Final

import orjson

from streams.page.model import ShownDecision
from streams.page.scene import MILLISECOND_NS, Scene, command

DETAIL: Final = (
    "waterfall",
    "portfolio_waterfall",
    "targets",
    "totals",
    "reasons",
    "bound",
    "kept",
    "diagnostics",
    "rl",
    "cells",
    "strategy_weights",
    "valid_until_ns",
    "inputs_hash",
    "previous_hash",
    "settings_hash",
    "decision_version",
    "revises",
)


def decisions(scene: Scene, portfolio: str | None = None) -> dict[str, Any]:
    """Return the last decisions, newest first."""
    chosen = [each for each in reversed(scene.model.decisions) if portfolio in {None, each.fields["portfolio_id"]}]
    broken = [
        {"portfolio_id": name, "chain": known.chain.word, "text": known.chain.text}
        for name, known in sorted(scene.model.portfolios.items())
        if known.chain.word != "intact"
    ]
    return {"decisions": [_row(each) for each in chosen], "broken": broken, "unreadable": scene.model.unreadable}


def _row(decision: ShownDecision) -> dict[str, Any]:
    fields = decision.fields
    return {
        "decision_id": decision.decision_id,
        "portfolio_id": fields["portfolio_id"],
        "sequence": fields["sequence"],
        "decided_ms": decision.timestamp_ns // MILLISECOND_NS,
        "trigger": fields["trigger"],
        "strategy_id": fields.get("strategy_id"),
        "symbol": fields.get("symbol"),
        "position_size_usd": fields.get("position_size_usd"),
        "gross_usd": fields["totals"]["gross_usd"],
        "net_usd": fields["totals"]["net_usd"],
        "bound": fields["bound"],
        "final": fields["final"],
        "partition": decision.partition,
        "offset": decision.offset,
        "linked": decision.linked,
    }


def detail(decision: ShownDecision) -> dict[str, Any]:
    """Return one decision with its waterfall, as published."""
    fields = orjson.loads(decision.value)
    return {
        **_row(decision),
        **{name: fields.get(name) for name in DETAIL},
        "journal": fields["journal"],
        "commands": {
            "explain": command("audit", "explain", decision.decision_id),
            "bundle": command("audit", "bundle", decision.decision_id, "-o", "evidence.zip"),
        },
    }
