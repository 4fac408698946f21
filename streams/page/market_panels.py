"""Panels 5 and 6: cascade levels and regimes by symbol, and the grid of correlations."""

from collections.abc import Mapping
from typing import Any, Final

from streams.page.scene import MILLISECOND_NS, Scene

ROWS_MAX: Final = 200

PageRow = dict[str, Any]


def markets(scene: Scene) -> PageRow:
    """Return a row of each symbol: the worker's, or as of the last decision about it."""
    found = scene.part.get("markets")
    if found is None:
        rows = [_decided(symbol, seen) for symbol, seen in scene.model.symbols.items()]
        return {"rows": sorted(rows, key=_name)[:ROWS_MAX], "rows_total": len(rows), "source": "decisions"}
    regimes: dict[str, list[Mapping[str, Any]]] = {}
    for each in scene.part["regimes"]:
        regimes.setdefault(each["symbol"], []).append(each)
    rows = [_watched(symbol, market, regimes.get(symbol, [])) for symbol, market in found.items()]
    return {"rows": rows[:ROWS_MAX], "rows_total": scene.part["markets_total"], "source": "worker"}


def _name(row: PageRow) -> str:
    return str(row["symbol"])


def _watched(symbol: str, market: Mapping[str, Any], regimes: list[Mapping[str, Any]]) -> PageRow:
    words = sorted(dict.fromkeys(each["confirmed"] for each in regimes))
    changing = max(regimes, key=lambda each: each["progress"], default=None)
    return {
        "symbol": symbol,
        "price": market["price"],
        "price_ms": market["price_ms"],
        "suspect": market["suspect"],
        "long": market["long"],
        "short": market["short"],
        "readings": market["readings"],
        "regimes": words,
        "candidate": None if changing is None else changing["candidate"],
        "confirmation_ratio": None if changing is None else changing["progress"],
        "as_of_ms": None,
    }


def _decided(symbol: str, seen: Any) -> PageRow:
    side = {1: "long", -1: "short"}.get(seen.side)
    latch = {"score": seen.score, "level": seen.recommendation, "raw": None, "breaches": None}
    return {
        "symbol": symbol,
        "price": seen.price,
        "price_ms": None,
        "suspect": None,
        "long": latch if side == "long" else None,
        "short": latch if side == "short" else None,
        "readings": {},
        "regimes": [seen.regime] if seen.regime else [],
        "candidate": None,
        "confirmation_ratio": None,
        "as_of_ms": seen.timestamp_ns // MILLISECOND_NS,
    }


def correlations(scene: Scene) -> PageRow:
    """Return the grid, and each portfolio's diversification and penalties."""
    portfolios = [
        {
            "portfolio_id": name,
            "diversification": each.fields.get("diversification"),
            "penalties": {symbol: share for symbol, share in each.fields["correlation_penalties"].items() if share},
        }
        for name, each in scene.newest()
    ]
    grid = scene.part.get("correlation")
    if grid is not None and grid["symbols"]:
        missing = ""
    elif grid is not None:
        missing = "no bar has closed for two symbols yet"
    elif scene.part:
        missing = "no full decision since this worker started"
    else:
        missing = "correlations are with the workers: open the page of one"
    return {"grid": grid, "missing": missing, "portfolios": portfolios[:ROWS_MAX]}
