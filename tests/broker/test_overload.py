"""More than a worker can do at once is a backlog: it is folded fairly, and never ends the worker."""

import asyncio
import json
import re
import signal as signals
import time

import aiohttp
import pytest
from broker.cluster import PARTITIONS, PATIENCE_S, Cluster
from worlds import control, signal

from config.settings import Settings
from streams.kafka.broker import free_port
from streams.processing.partitioner import partition_of

pytestmark = [pytest.mark.broker, pytest.mark.long]

PORTFOLIOS = 100
SYMBOLS = ("A-USD", "B-USD", "C-USD", "D-USD", "E-USD")
BURST = 8_000
"""Signals of one burst: a worker decides some hundreds of them a second."""
STOP_S = 10.0
LAG = re.compile(r'^himari_l3_journal_lag\{partition="(\d+)"\} (\S+)$', re.MULTILINE)


class Busy(Cluster):
    """A cluster whose worker counts as stuck after two seconds, the least that can be set."""

    def __init__(self, connection, names, folder):
        super().__init__(connection, names, folder)
        self.port = free_port()
        tree = self.settings.model_dump(exclude_defaults=True)
        tree["monitoring"] |= {"metrics_port": self.port, "stuck_after_s": 2.0}
        self.settings = Settings.model_validate(tree)
        self.config.write_text(json.dumps(tree))

    async def lags(self) -> list[int]:
        """Return how many records wait in each partition of the journal."""
        async with aiohttp.ClientSession() as session, session.get(f"http://127.0.0.1:{self.port}/metrics") as answer:
            found = dict(LAG.findall(await answer.text()))
        return [int(float(found.get(str(partition), 0))) for partition in range(PARTITIONS)]

    async def burst(self, count: int) -> None:
        """Publish so many signals at once, in the partitions of their portfolios."""
        for symbol in SYMBOLS:
            await self.price(symbol, 100.0)
        await asyncio.sleep(2.0)
        asked = [
            signal(
                time.time_ns(),
                signal_id=f"s-{number}",
                portfolio_id=f"p-{number % PORTFOLIOS}",
                strategy_id=f"strategy-{number % 3}",
                symbol=SYMBOLS[number % len(SYMBOLS)],
                valid_for_s=3_600,
            )
            for number in range(count)
        ]
        for partition in range(PARTITIONS):
            ours = [each for each in asked if partition_of(each["portfolio_id"].encode(), PARTITIONS) == partition]
            await self.publish("signals", ours, partition)

    async def idle(self) -> None:
        """Return once nothing waits any more."""
        async with asyncio.timeout(PATIENCE_S):
            calm = 0
            while calm < 3:
                calm = calm + 1 if max(await self.lags()) <= PARTITIONS else 0
                await asyncio.sleep(0.5)


@pytest.fixture
def cluster(kafka_broker, names, tmp_path):
    return Busy(kafka_broker, names, tmp_path)


async def test_a_burst_is_folded_fairly_without_the_worker_being_taken_for_stuck(cluster):
    await cluster.lay()
    async with cluster.worker() as process:
        await cluster.burst(BURST)
        seen = []
        while len(seen) < 40 and (not seen or min(seen[-1]) > 100):
            seen.append(await cluster.lags())
            await asyncio.sleep(0.25)
        await cluster.idle()
        assert process.returncode is None
        answered = {json.loads(record.value)["trigger"]["id"] for record in await cluster.records("allocations")}
        assert answered >= {f"s-{number}" for number in range(BURST)}
    backlog = [lags for lags in seen if min(lags) > 100]
    stood = max(stands(lags[partition] for lags in backlog) for partition in range(PARTITIONS))
    assert stood <= 8, f"a partition stood for {stood} looks at {backlog}"


def stands(lags) -> int:
    """Return for how many looks in a row a backlog did not shrink while there was one."""
    longest = run = 0
    before = None
    for lag in lags:
        run = run + 1 if before is not None and lag == before else 0
        longest, before = max(longest, run), lag
    return longest


async def test_orders_in_alternation_are_a_backlog_too(cluster):
    """Each order moves a hundred portfolios: a script gone wild may say a thousand of them."""
    await cluster.lay()
    async with cluster.worker() as process:
        await cluster.burst(PORTFOLIOS * 2)
        await cluster.idle()
        states = ("REDUCING", "ACTIVE")
        payloads = [{"scope": "all", "state": states[number % 2]} for number in range(400)]
        orders = [control(time.time_ns(), "trading_state", each, f"c-{n}") for n, each in enumerate(payloads)]
        last = control(time.time_ns(), "trading_state", {"scope": "all", "state": "HALTED"}, "c-last")
        await cluster.publish("control", [*orders, last])
        async with asyncio.timeout(PATIENCE_S):
            while True:
                alerts = [json.loads(record.value) for record in await cluster.records("alerts")]
                if sum(each["subject"] == "c-last" for each in alerts) == PARTITIONS:
                    break
                await asyncio.sleep(0.5)
        assert process.returncode is None


async def test_a_worker_stops_in_time_in_the_middle_of_a_backlog_and_goes_on_where_it_was(cluster):
    await cluster.lay()
    process = await cluster.start_worker()
    await cluster.burst(BURST)
    while min(await cluster.lags()) < 500:
        await asyncio.sleep(0.1)
    process.send_signal(signals.SIGTERM)
    assert await asyncio.wait_for(process.wait(), STOP_S) == 0
    async with cluster.worker():
        await cluster.idle()
    code, out, err = await cluster.himari("audit", "verify", "--json")
    assert code == 0, err
    assert json.loads(out)["checked"] >= BURST
