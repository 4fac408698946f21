"""Settings of a running worker: a file that is emptied, what is applied on purpose, and who is based on what."""

import asyncio
import json
import time

import aiohttp
import orjson
import pytest
from broker.cluster import Cluster
from worlds import signal as a_signal

from config.settings import Settings
from streams.kafka.broker import free_port

pytestmark = [pytest.mark.broker]

LIMIT = {"max_position_pct": 0.005}


class Limited(Cluster):
    """A cluster whose settings limit what one symbol may hold, and a worker with a file of its own."""

    def __init__(self, connection, names, folder):
        super().__init__(connection, names, folder)
        self.port, self.sent = free_port(), 0
        tree = self.settings.model_dump(exclude_defaults=True)
        tree["monitoring"]["web_port"] = self.port
        tree |= {"hot_reload": {"poll_interval_sec": 0.2}, "risk_management": LIMIT}
        self.tree, self.settings = tree, Settings.model_validate(tree)
        self.file, self.commands = folder / "worker.yaml", self.config
        self.file.write_text(json.dumps(tree))

    async def start_worker(self):
        self.config = self.file
        try:
            return await super().start_worker()
        finally:
            self.config = self.commands

    def write(self, **risk):
        self.file.write_text(json.dumps(self.tree | {"risk_management": LIMIT | risk}))

    async def sized(self):
        """Publish a price and a signal; return what it was given."""
        await self.price("BTC-USD", 43_500.0)
        while not [record for record in await self.records("journal") if b'"kind":"step"' in record.value]:
            await asyncio.sleep(0.1)
        self.sent += 1
        name = f"s-{self.sent}"
        await self.publish("signals", [a_signal(time.time_ns(), signal_id=name)])
        found = await self.answered([name])
        return next(each["position_size_usd"] for each in found if each["trigger"]["id"] == name)

    async def alert(self, begins, kind="control_applied"):
        """Return the first alert of a kind whose result begins so, once it is there."""
        while True:
            alerts = [orjson.loads(record.value) for record in await self.records("alerts")]
            for each in alerts:
                if each["kind"] == kind and each["result"].startswith(begins):
                    return each
            await asyncio.sleep(0.1)

    async def state(self):
        async with aiohttp.ClientSession() as session, session.get(f"http://127.0.0.1:{self.port}/state") as answer:
            return orjson.loads(await answer.read())


@pytest.fixture
def cluster(broker, names, tmp_path):
    return Limited(broker, names, tmp_path)


async def test_an_emptied_file_lifts_no_limit_until_that_is_applied_on_purpose(cluster, tmp_path):
    await cluster.lay()
    empty = tmp_path / "empty.yaml"
    empty.write_text("")
    async with cluster.worker(), asyncio.timeout(120):
        limited = await cluster.sized()
        assert 0.0 < limited <= 500.0
        cluster.file.write_text("")
        told = (await cluster.alert(str(cluster.file), "config_rejected"))["result"]
        assert "risk_management.max_position_pct" in told
        assert told.endswith(f"run: himari config apply {cluster.file} --allow-removals")
        assert await cluster.sized() == pytest.approx(limited, abs=0.02)
        assert (await cluster.state())["restart_required"] == {}, "the page stands where it stood"
        code, out, err = await cluster.himari("config", "apply", str(empty))
        assert (code, out) == (5, "")
        assert err.startswith(
            f"himari: {empty}: risk_management.max_position_pct: must not vanish: the file has no settings"
        )
        code, out, err = await cluster.himari("config", "apply", str(empty), "--allow-removals", "--wait")
        assert (code, out.count(": applied")) == (0, 2), err
        assert await cluster.sized() > 5 * limited
        while "monitoring.web_port" not in (found := (await cluster.state())["restart_required"]):
            await asyncio.sleep(0.1)
        assert found["monitoring.web_port"]["running"] == cluster.port


async def test_a_file_that_changes_after_something_else_was_applied_overrides_nothing(cluster, tmp_path):
    await cluster.lay()
    other = tmp_path / "other.yaml"
    other.write_text("risk_management: {max_position_pct: 0.01}\n")
    async with cluster.worker(), asyncio.timeout(120):
        cluster.write(max_position_pct=0.03)
        assert (await cluster.alert("applied"))["subject"].startswith("settings-")
        code, out, err = await cluster.himari("config", "apply", str(other), "--wait")
        assert (code, out.count(": applied")) == (0, 2), err
        cluster.write(max_position_pct=0.15, max_drawdown_pct=0.25)
        await cluster.alert("conflict: based on ")
        assert 0.0 < await cluster.sized() <= 1_000.0
