"""What one event costs as portfolios grow: the fold alone, and the whole worker."""

import statistics
from time import perf_counter_ns
from typing import Any

from benchmarks.rig import START_NS, broker, entries, lane, preload, rate
from engines.parameters import DecisionParams
from streams.genesis import genesis, new_journal_id
from streams.memory import Stored
from streams.sizing import SizingFold

CURVE = (1, 10, 100, 1_000)


def fold_us(portfolios: int, count: int = 6_000) -> float:
    """Return the median µs that the fold of one signal takes, the second half of them."""
    fold = SizingFold(0)
    fold.fold(Stored(0, None, genesis(new_journal_id(1), 1, DecisionParams(), START_NS)))
    took = []
    for offset, value in enumerate(entries(max(count, 6 * portfolios), portfolios), start=1):
        record = Stored(offset, None, value)
        began = perf_counter_ns()
        fold.fold(record)
        took.append(perf_counter_ns() - began)
    return statistics.median(took[len(took) // 2 :]) / 1e3


async def run(kind: str, count: int = 15_000) -> dict[str, Any]:
    """Return, by number of portfolios, µs a fold and events a second of a worker."""
    curve: dict[str, Any] = {}
    async with broker(kind) as (connection, folder):
        for portfolios in CURVE:
            at = await lane(connection, folder)
            await preload(at, "journal", entries(count, portfolios))
            through = await rate(at, "worker", "allocations", count)
            curve[str(portfolios)] = {"fold_us": fold_us(portfolios), "worker_per_second": through}
    return {"broker": kind, "curve": curve}
