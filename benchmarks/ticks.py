"""Ticks → steps: the worker's market beside a bare loop with the same fold, per tick, 1 and 100 ticks a message."""

from typing import Any

import orjson

from benchmarks.rig import START_NS, SYMBOLS, broker, lane, preload, rate, ratios, spread

TARGET = 0.5
TICKS_PER_STEP = 100


def messages(count: int, each: int) -> list[bytes]:
    """Return price messages of `each` ticks, a hundred ticks to a step of one second."""
    found = []
    for first in range(0, count, each):
        ticks = [
            {
                "symbol": SYMBOLS[number % 5],
                "price": 100.0 + number % 7,
                "timestamp_ns": START_NS + (number // TICKS_PER_STEP) * 10**9 + number % TICKS_PER_STEP + 1,
                "volume": 1.5,
            }
            for number in range(first, first + each)
        ]
        found.append(orjson.dumps({"ticks": ticks} if each > 1 else ticks[0]))
    return found


async def run(kind: str, runs: int = 3) -> dict[str, Any]:
    """Return ticks per second of worker and bare loop, and their ratio, by ticks a message."""
    report: dict[str, Any] = {"broker": kind, "target": TARGET}
    async with broker(kind) as (connection, folder):
        for each, count in ((1, 60_000), (100, 400_000)):
            found: dict[str, list[float]] = {"worker": [], "ticks": []}
            for _ in range(runs):
                for name, rates in found.items():
                    at = await lane(connection, folder)
                    await preload(at, "prices", messages(count, each))
                    steps = count // TICKS_PER_STEP - 1
                    rates.append(TICKS_PER_STEP * await rate(at, name, "journal", steps, skip=1))
            report[f"{each}_a_message"] = {
                "per_second": {"worker": spread(found["worker"]), "bare": spread(found["ticks"])},
                "worker_over_bare": ratios(found["worker"], found["ticks"]),
            }
    return report
