"""Journal to allocations: one worker against a bare loop with the same fold, a forwarding loop, and stock Faust."""

from typing import Any

from benchmarks.rig import Course, entries, race, ratios, spread

TARGETS = {"bare": 0.7, "forward": 0.15, "stock": 5.0}
COUNTS = {"worker": 20_000, "bare": 20_000, "forward": 60_000, "stock": 3_000}
"""Entries per contestant: enough for about a second or more, except for the fastest."""


async def run(kind: str, *, quick: bool = False, cells: int = 1, contestants: tuple[str, ...] = tuple(COUNTS)) -> Any:
    """Return records per second of each contestant, and the worker's ratio to each.

    Ten portfolios of `cells` cells each; checkpoints are on.
    """
    counts = {name: COUNTS[name] // 10 if quick else COUNTS[name] for name in contestants}
    journaled = entries(max(counts.values()), cells=cells)
    courses = {
        name: Course(name, "journal", journaled[: count + 1], "allocations", count) for name, count in counts.items()
    }
    found = await race(kind, 1 if quick else 5, courses)
    others = [name for name in contestants if name != "worker"]
    return {
        "broker": kind,
        "entries": counts,
        "cells_a_portfolio": cells,
        "per_second": {name: spread(rates) for name, rates in found.items()},
        "worker_over": {name: ratios(found["worker"], found[name]) for name in others},
        "targets": {name: TARGETS[name] for name in others},
    }
