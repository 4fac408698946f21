"""The policy beside a worker process, on a broker: well, dead, replaced while it runs, and a worker that is killed."""

import asyncio
import json
import time

import aiohttp
import orjson
import pytest
from broker.cluster import Cluster
from worlds import signal as a_signal

from config.settings import Settings
from schemas.rl import Advice, NoAdvice
from streams.kafka.broker import free_port
from streams.policy.reference_server import Endpoint, Serving, Switches, serve

pytestmark = [pytest.mark.broker]


class Asking(Cluster):
    """A cluster whose decisions ask a policy."""

    def __init__(self, connection, names, folder):
        super().__init__(connection, names, folder)
        self.page = free_port()
        self.tree = self.settings.model_dump(exclude_defaults=True)

    def configure(self, endpoint: Serving, protocol: str = "oip", **breaker) -> None:
        """Write the settings file: this endpoint, and looks that are quick."""
        url = endpoint.url + ("/predict" if protocol == "predict" else "")
        tree = self.tree | {
            "hot_reload": {"poll_interval_sec": 0.2},
            "rl": {"enabled": True, "endpoint": url, "protocol": protocol, "deadline_s": 20.0, "timeout_sec": 5.0},
            "circuit_breaker": breaker,
            "monitoring": self.tree["monitoring"] | {"metrics_port": self.page},
        }
        self.settings = Settings.model_validate(tree)
        self.config.write_text(json.dumps(tree))

    async def signal(self, name: str) -> dict:
        """Publish a signal; return the first allocation on it."""
        await self.publish("signals", [a_signal(time.time_ns(), signal_id=name, valid_for_s=3600)])
        found = await self.answered([name])
        return next(each for each in found if each["trigger"]["id"] == name)

    async def entries(self, *kinds: str) -> list[dict]:
        found = [orjson.loads(record.value) for record in await self.records("journal")]
        return [orjson.loads(each["value"]) for each in found if each["kind"] in kinds]

    async def until_told(self, count: int) -> list[dict]:
        """Return the journaled answers, or why there are none, once there are so many."""
        async with asyncio.timeout(30):
            while len(found := await self.entries("advice", "no_advice")) < count:
                await asyncio.sleep(0.05)
        return found

    async def shown(self, name: str) -> bytes:
        async with aiohttp.ClientSession() as session:
            reply = await session.get(f"http://127.0.0.1:{self.page}/metrics")
            lines = (await reply.read()).splitlines()
        return next(line.split()[-1] for line in lines if line.startswith(b"himari_l3_" + name.encode()))

    async def priced(self) -> None:
        await self.price("BTC-USD", 43_500.0)
        while not [record for record in await self.records("journal") if b'"kind":"step"' in record.value]:
            await asyncio.sleep(0.1)


@pytest.fixture
def cluster(broker, names, tmp_path):
    return Asking(broker, names, tmp_path)


async def served(**given) -> Serving:
    return await serve(Endpoint(**given))


async def test_a_policy_is_asked_answers_are_journaled_and_every_byte_comes_out_again(cluster):
    endpoint = await served()
    cluster.configure(endpoint)
    await cluster.lay()
    async with cluster.worker():
        await cluster.priced()
        first = await cluster.signal("s-0")
        (told,) = await cluster.until_told(1)
        answer = Advice(**told)
        assert answer.decision_id == first["decision_id"]
        assert answer.model_version == "untrained-0"
        assert json.loads(answer.raw)["id"] == first["decision_id"]
        assert first["rl"]["mode"] == "shadow"
        second = await cluster.signal("s-1")
        await cluster.until_told(2)
        assert second["sequence"] > first["sequence"]
        assert await cluster.shown('rl_requests_total{status="advice"}') == b"2.0"
    verdict = await cluster.verify()
    assert verdict.ok, verdict
    await endpoint.runner.cleanup()


async def test_a_dead_policy_delays_no_decision_opens_its_breaker_and_is_replaced_while_the_worker_runs(cluster):
    slow, well = await served(switches=Switches(slow_s=30.0)), await served(seed=7)
    cluster.configure(slow, "predict", failure_threshold=2)
    await cluster.lay()
    async with cluster.worker():
        await cluster.priced()
        for number in range(2):
            await cluster.signal(f"s-{number}")
            assert await cluster.entries("advice", "no_advice") == [], "decided while the policy was still being asked"
        timeouts = await cluster.until_told(2)
        assert [NoAdvice(**each).reason for each in timeouts] == ["timeout", "timeout"]
        await cluster.signal("s-2")
        (*_, third) = await cluster.until_told(3)
        assert third["reason"] == "open"
        assert await cluster.shown("circuit_breaker_state") == b"2.0"
        (opened,) = [
            each
            for each in map(orjson.loads, (r.value for r in await cluster.records("alerts")))
            if each["kind"] == "breaker"
        ]
        assert (opened["severity"], opened["result"]) == ("warning", "open, was closed")
        cluster.configure(well, "oip", failure_threshold=2)
        async with asyncio.timeout(20):
            while await cluster.shown("circuit_breaker_state") != b"0.0":
                await asyncio.sleep(0.1)
        await cluster.signal("s-3")
        (*_, fourth) = await cluster.until_told(4)
        assert fourth["model_version"] == "untrained-7"
    assert (await cluster.verify()).ok
    for each in (slow, well):
        await each.runner.cleanup()


async def test_answers_that_are_journaled_stay_the_truth_though_the_worker_is_killed(cluster):
    endpoint = await served()
    cluster.configure(endpoint)
    await cluster.lay()
    worker = await cluster.start_worker()
    await cluster.priced()
    for number in range(5):
        await cluster.signal(f"s-{number}")
    before = await cluster.until_told(4)
    worker.kill()
    await worker.wait()
    async with cluster.worker():
        await cluster.price("BTC-USD", 43_500.0)
        await cluster.signal("later")
        after = await cluster.until_told(len(before) + 1)
    assert after[: len(before)] == before
    verdict = await cluster.verify()
    assert verdict.ok, verdict
    assert verdict.pending == 0
    await endpoint.runner.cleanup()
