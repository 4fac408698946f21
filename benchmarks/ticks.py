"""Ticks to steps: the worker's market stage against a bare loop with the same fold, at 1 and 100 ticks per message."""

from typing import Any

import orjson

from benchmarks.rig import START_NS, SYMBOLS, Course, race, ratios, spread

TARGET = 0.5
TICKS_PER_STEP = 100
COUNTS = {1: 60_000, 100: 1_000_000}
"""Ticks per message → number of ticks."""


def messages(count: int, each: int) -> list[bytes]:
    """Return price messages of `each` ticks, with `TICKS_PER_STEP` ticks per one-second step."""
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


async def run(kind: str, *, quick: bool = False) -> dict[str, Any]:
    """Return ticks/s of worker and bare loop, and their ratio, by ticks per message."""
    courses = {}
    for each, count in COUNTS.items():
        ticks = count // 10 if quick else count
        values = messages(ticks, each)
        steps = ticks // TICKS_PER_STEP - 1
        for name in ("worker", "ticks"):
            courses[f"{name} {each}"] = Course(name, "prices", values, "journal", steps, skip=1)
    rates = await race(kind, 1 if quick else 5, courses)
    report: dict[str, Any] = {"broker": kind, "target": TARGET}
    for each in COUNTS:
        worker, bare = ([TICKS_PER_STEP * rate for rate in rates[f"{name} {each}"]] for name in ("worker", "ticks"))
        report[f"{each}_a_message"] = {
            "ticks_per_second": {"worker": spread(worker), "bare": spread(bare)},
            "worker_over_bare": ratios(worker, bare),
        }
    return report
