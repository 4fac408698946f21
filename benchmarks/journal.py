"""Journal → allocations: one worker beside a bare loop with the same fold, one that forwards, and stock Faust."""

from typing import Any

from benchmarks.rig import broker, entries, lane, preload, rate, ratios, spread

TARGETS = {"bare": 0.7, "forward": 0.15, "stock": 5.0}


async def run(kind: str, count: int = 20_000, runs: int = 3, stock: int = 3_000) -> dict[str, Any]:
    """Return records per second of each contestant, and the worker's ratio to each."""
    found: dict[str, list[float]] = {name: [] for name in ("worker", *TARGETS)}
    async with broker(kind) as (connection, folder):
        for _ in range(runs):
            for name, rates in found.items():
                number = stock if name == "stock" else count
                at = await lane(connection, folder)
                await preload(at, "journal", entries(number))
                rates.append(await rate(at, name, "allocations", number))
    return {
        "broker": kind,
        "entries": count,
        "per_second": {name: spread(rates) for name, rates in found.items()},
        "worker_over": {name: ratios(found["worker"], found[name]) for name in TARGETS},
        "targets": TARGETS,
    }
