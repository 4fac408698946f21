"""`himari rl report` and `himari control rl-mode`, beside a worker that asks the mock."""

import asyncio
import json
import time

import orjson
import pytest
from broker.cluster import Cluster
from worlds import signal as a_signal

from config.settings import Settings

pytestmark = [pytest.mark.broker]


@pytest.fixture
def cluster(broker, names, tmp_path):
    found = Cluster(broker, names, tmp_path)
    tree = found.settings.model_dump(exclude_defaults=True) | {
        "rl": {"enabled": True, "protocol": "mock", "seed": 7, "deadline_s": 20.0}
    }
    found.settings = Settings.model_validate(tree)
    found.config.write_text(json.dumps(tree))
    return found


async def until(cluster, kind, count=1):
    async with asyncio.timeout(30):
        while sum(b'"kind":"' + kind in record.value for record in await cluster.records("journal")) < count:
            await asyncio.sleep(0.1)


async def report(cluster, *options):
    code, out, err = await cluster.himari("rl", "report", "--json", *options)
    assert code == 0, err
    return [orjson.loads(line) for line in out.splitlines()]


async def test_the_report_has_what_was_scored_and_the_mode_that_was_ordered(cluster):
    await cluster.lay()
    async with cluster.worker():
        await cluster.price("BTC-USD", 43_500.0)
        await until(cluster, b"step")
        assert await report(cluster) == []
        now_ns = time.time_ns()
        await cluster.publish("signals", [a_signal(now_ns, signal_id="s-0", expected_return=0.01, valid_for_s=3_600)])
        await cluster.answered(["s-0"])
        await until(cluster, b"advice")
        outcome = {
            "strategy_id": "momentum",
            "symbol": "BTC-USD",
            "signal_id": "s-0",
            "side": 1,
            "realized_return": 0.01,
            "timestamp_ns": time.time_ns(),
        }
        await cluster.publish("outcomes", [outcome])
        await until(cluster, b"outcome")
        (row,) = await report(cluster)
        assert (row["portfolio_id"], row["mode"], row["status"], row["decisions"]) == (
            "main",
            "shadow",
            "collecting",
            1,
        )
        assert row["lower"] <= row["advantage"] <= row["upper"]
        assert row["questions"] == {"counted": 1}
        code, out, err = await cluster.himari("control", "rl-mode", "live", "--reason", "trusted", "--wait", "30")
        assert (code, out.count(": applied")) == (0, 2), out + err
        (row,) = await report(cluster, "--portfolio", "main")
        assert row["mode"] == "live"
        code, out, err = await cluster.himari("control", "rl-mode", "off", "--scope", "symbol:X", "--reason", "r")
        assert (code, "scope" in err) == (5, True), out + err
        code, _, err = await cluster.himari("rl", "report", "--portfolio", "nobody")
        assert (code, "nobody" in err) == (3, True)
        code, out, err = await cluster.himari("rl", "report")
        assert (code, "advantage" in out, "basis points" in out) == (0, True, True), err
    assert (await cluster.verify()).ok
