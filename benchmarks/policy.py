"""Latency of the rules' allocation with a healthy, slow, crawling, dead or no policy: it must not depend on the policy.

well: answers immediately. slow: after 5 s, the timeout. crawling: after 2 s, so the breaker never opens and all
in-flight slots stay occupied. dead: drops every connection. off: no policy is asked. Each endpoint is the reference
server in its own process.
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
"""Largest allowed ratio of the slowest to the fastest case."""
PER_SECOND = 100
CASES: Mapping[str, tuple[str, ...] | None] = {
    "well": (),
    "slow": ("--slow", "5"),
    "crawling": ("--slow", "2"),
    "dead": ("--dead",),
    "off": None,
}
"""Case → options of the endpoint; None: no policy."""


async def run(kind: str, *, quick: bool = False) -> dict[str, Any]:
    """Return p50 and p99 in ms by case, and the ratios of the cases to `well`, run by run."""
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
    """Return the ratio of the largest to the smallest median among well, slow and dead."""
    medians = [statistics.median(values[name]) for name in ("well", "slow", "dead")]
    return max(medians) / min(medians)


def _asking(url: str | None) -> dict[str, Any]:
    """Return the settings to ask a policy at a URL; none for None."""
    return {} if url is None else {"rl": {"enabled": True, "endpoint": url}}


async def _drain(stream: asyncio.StreamReader) -> None:
    """Read to the end."""
    while await stream.read(1 << 16):
        pass


@asynccontextmanager
async def _endpoint(options: tuple[str, ...] | None) -> AsyncIterator[str | None]:
    """Serve the reference policy in its own process; yield its URL."""
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
        draining = asyncio.create_task(_drain(process.stderr))  # a full pipe would block the server
        yield found[0]
    finally:
        process.kill()
        await process.wait()
        draining.cancel()
