"""Signal → the rules' allocation with a policy that is well, slow, crawling or dead, and none: nobody may wait for it.

well: answers at once. slow: after 5 s, which is the timeout. crawling: after 2 s, so that the breaker never opens and
all places are taken all the time. dead: breaks every connection. off: no decision asks. Each is the reference endpoint
in a process of its own, or none.
"""

import asyncio
import re
import statistics
import sys
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from benchmarks.latency import talking
from benchmarks.rig import broker, contestant, lane, preload, prices, ratios, spread

TARGETS = {"p50": 1.10, "p99": 1.25}
"""Slowest over quickest case, at most."""
PER_SECOND = 100
CASES: Mapping[str, tuple[str, ...] | None] = {
    "well": (),
    "slow": ("--slow", "5"),
    "crawling": ("--slow", "2"),
    "dead": ("--dead",),
    "off": None,
}
"""Case → options of the endpoint; None: nobody is asked."""


async def run(kind: str, *, quick: bool = False) -> dict[str, Any]:
    """Return p50 and p99 in ms by case, and the slowest of the asking cases over the quickest, run by run."""
    runs, seconds = (1, 2.0) if quick else (7, 20.0)
    took: dict[str, list[tuple[float, float]]] = {name: [] for name in CASES}
    async with broker(kind) as (connection, folder):
        for number in range(runs):
            order = list(CASES)
            for name in order[number % len(order) :] + order[: number % len(order)]:
                async with _endpoint(CASES[name]) as url:
                    at = await lane(connection, folder, _asking(url))
                    await preload(at, "journal", [prices(time.time_ns() // 10**9 * 10**9)])
                    async with contestant(at, "worker"), talking(at, PER_SECOND) as client:
                        took[name].append(await client.measure(seconds))
    p50, p99 = ({name: [pair[k] for pair in pairs] for name, pairs in took.items()} for k in (0, 1))
    return {
        "broker": kind,
        "per_second": PER_SECOND,
        "p50_ms": {name: spread(values) for name, values in p50.items()},
        "p99_ms": {name: spread(values) for name, values in p99.items()},
        "over_well": {
            name: {
                "p50": ratios(p50[name], p50["well"]),
                "p99": ratios(p99[name], p99["well"]),
            }
            for name in CASES
            if name != "well"
        },
        "medians_apart": {"p50": _apart(p50), "p99": _apart(p99)},
        "targets": TARGETS,
    }


def _apart(values: Mapping[str, list[float]]) -> float:
    """Return the largest median of the cases of the issue over the least: well, slow, dead."""
    medians = [statistics.median(values[name]) for name in ("well", "slow", "dead")]
    return max(medians) / min(medians)


def _asking(url: str | None) -> dict[str, Any]:
    """Return the settings of decisions that ask at a URL."""
    return {} if url is None else {"rl": {"enabled": True, "endpoint": url}}


async def _drain(stream: asyncio.StreamReader) -> None:
    """Read to the end."""
    while await stream.read(1 << 16):
        pass


@asynccontextmanager
async def _endpoint(options: tuple[str, ...] | None) -> AsyncIterator[str | None]:
    """Serve the reference policy in a process of its own."""
    if options is None:
        yield None
        return
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "streams",
        "rl",
        "serve",
        "--port",
        "0",
        *options,
        stderr=asyncio.subprocess.PIPE,
        cwd=Path(__file__).parents[1],
    )
    if process.stderr is None:
        raise AssertionError
    draining = asyncio.create_task(asyncio.sleep(0))
    try:
        first = (await process.stderr.readline()).decode()
        found = re.search(r"http://[0-9.:]+", first)
        if found is None:
            raise ValueError(first)
        draining = asyncio.create_task(_drain(process.stderr))  # a full pipe would stop it, and `wait` with it
        yield found[0]
    finally:
        process.kill()
        await process.wait()
        draining.cancel()
