"""Cost of one event by number of portfolios: the fold alone, and the whole worker."""

import statistics
from time import perf_counter_ns
from typing import Any

from benchmarks.rig import START_NS, Course, entries, race, ratios, spread
from engines.parameters import DecisionParams
from streams.journal.genesis import genesis, new_journal_id
from streams.processing.memory_cluster import Stored
from streams.stages.sizing import SizingFold

CURVE = (1, 10, 100, 1_000)


def fold_us(portfolios: int, count: int = 6_000) -> float:
    """Return the median µs to fold one signal, over the second half of the signals."""
    fold = SizingFold(0)
    fold.fold(Stored(0, None, genesis(new_journal_id(1), 1, DecisionParams(), START_NS)))
    took = []
    for offset, value in enumerate(entries(max(count, 6 * portfolios), portfolios), start=1):
        record = Stored(offset, None, value)
        began = perf_counter_ns()
        fold.fold(record)
        took.append(perf_counter_ns() - began)
    return statistics.median(took[len(took) // 2 :]) / 1e3


async def run(kind: str, *, quick: bool = False) -> dict[str, Any]:
    """Return µs per fold and worker events/s by number of portfolios, and both relative to one portfolio."""
    runs, count = (1, 3_000) if quick else (3, 15_000)
    courses = {
        str(portfolios): Course("worker", "journal", entries(count, portfolios), "allocations", count)
        for portfolios in CURVE
    }
    folds = {name: [fold_us(int(name), count // 3) for _ in range(runs)] for name in courses}
    rates = await race(kind, runs, courses)
    curve = {
        name: {
            "fold_us": spread(folds[name]),
            "worker_per_second": spread(rates[name]),
            "fold_over_one": ratios(folds[name], folds["1"])["median"],
            "worker_over_one": ratios(rates[name], rates["1"])["median"],
        }
        for name in courses
    }
    return {"broker": kind, "curve": curve}
