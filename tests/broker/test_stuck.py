"""Workers whose parts are really killed or held: what `/live` and `/ready` say, and how the process ends."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import aiohttp
import pytest
from aiokafka.admin import AIOKafkaAdminClient
from broker.cluster import Cluster

pytestmark = [pytest.mark.broker]

SICK = Path(__file__).with_name("sick.py")
STUCK = 7
PATIENT_S = 150.0
"""For so long a story may take; it waits for what it says, so this matters on a busy machine alone."""
PATIENCE_S = 4.0


class Patient(NamedTuple):
    """A worker that is to fall ill."""

    process: asyncio.subprocess.Process
    port: int

    async def ask(self, page: str) -> tuple[int, Any]:
        """Return status and body of a page."""
        async with aiohttp.ClientSession() as session, session.get(f"http://127.0.0.1:{self.port}/{page}") as answer:
            return answer.status, await answer.json()

    async def until(self, page: str, words: str) -> Any:
        """Return a page's body once it is 503 and its reason has these words."""
        while True:
            status, body = await self.ask(page)
            if status == 503 and words in body["reason"]:
                return body
            await asyncio.sleep(0.05)

    async def end(self) -> tuple[int, str]:
        """Return exit code and stderr."""
        _, err = await self.process.communicate()
        return self.process.returncode, err.decode()


@asynccontextmanager
async def patient(cluster: Cluster, illness: str) -> AsyncIterator[Patient]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        str(SICK),
        str(cluster.config),
        illness,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": str(SICK.parents[2]), "HIMARI__MONITORING__STUCK_AFTER_S": str(PATIENCE_S)},
    )
    assert process.stdout is not None
    port = await process.stdout.readline()
    try:
        yield Patient(process, int(port))
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def fell_ill(sick: Patient) -> None:
    assert sick.process.stdout is not None
    assert await sick.process.stdout.readline() == b"ill\n"


ILLNESSES = [
    ("fold", "journal.v1[0]: has stayed at ", " for 4 s"),
    *(
        pytest.param(illness, f"{part}: {said}", f"{part}: {said}{end}", marks=pytest.mark.long, id=illness)
        for illness, part, said, end in (
            ("agent", "signals.v1-ingest", "has been stopped", " for 10 s"),
            ("publisher", "publisher", "has waited for the acknowledgement of", ""),
            ("consumer", "consumer", "is not a member of its group", " for 4 s"),
            ("recovery", "journal.v1[0]", "its recovery has made no progress", " for 4 s"),
        )
    ),
]


@pytest.mark.parametrize(("illness", "said", "reason"), ILLNESSES)
async def test_a_part_that_is_stuck_is_shown_before_it_ends_the_worker(
    embedded_broker, names, tmp_path, illness, said, reason
):
    cluster = Cluster(embedded_broker, names, tmp_path)
    await cluster.lay()
    async with asyncio.timeout(PATIENT_S), patient(cluster, illness) as sick:
        await fell_ill(sick)
        await sick.until("ready", said)
        assert (await sick.ask("live"))[0] == 200
        code, err = await sick.end()
    assert code == STUCK, err
    assert "WorkerStuck: " in err
    assert reason in err


@pytest.mark.long
@pytest.mark.kafka
async def test_a_worker_that_ends_itself_leaves_its_group_at_once(kafka_broker, names, tmp_path):
    cluster = Cluster(kafka_broker, names, tmp_path)
    await cluster.lay()
    client = AIOKafkaAdminClient(**kafka_broker.options())
    await client.start()
    try:
        async with asyncio.timeout(PATIENT_S), patient(cluster, "agent") as sick:
            await fell_ill(sick)
            before = await members(client, names.application)
            code, err = await sick.end()
            after = await members(client, names.application)
    finally:
        await client.close()
    assert (code, before, after) == (STUCK, 1, 0), err


async def members(client: AIOKafkaAdminClient, group: str) -> int:
    """Return how many members a group has."""
    (reply,) = await client.describe_consumer_groups([group])
    ((_error, _group, _state, _type, _protocol, found, *_),) = reply.groups
    return len(found)


async def test_a_loop_that_hangs_is_shown_by_both_pages_and_ends_the_worker_with_its_stack(
    embedded_broker, names, tmp_path
):
    cluster = Cluster(embedded_broker, names, tmp_path)
    await cluster.lay()
    async with asyncio.timeout(PATIENT_S), patient(cluster, "loop") as sick:
        await fell_ill(sick)
        for page in ("live", "ready"):
            await sick.until(page, "the event loop does not answer")
        code, err = await sick.end()
    assert code == STUCK, err
    assert "himari: worker stuck: event loop: has not run for 4 s" in err
    assert "time.sleep(1_000)" in err


@pytest.mark.long
async def test_a_watchdog_that_dies_ends_the_worker_as_well(embedded_broker, names, tmp_path):
    cluster = Cluster(embedded_broker, names, tmp_path)
    await cluster.lay()
    async with asyncio.timeout(PATIENT_S), patient(cluster, "watchdog") as sick:
        code, err = await sick.end()
    assert code == STUCK, err
    assert "WorkerStuck: the watchdog has stopped" in err


@pytest.mark.long
async def test_a_worker_that_slept_for_longer_than_its_patience_goes_on(embedded_broker, names, tmp_path):
    cluster = Cluster(embedded_broker, names, tmp_path)
    await cluster.lay()
    async with asyncio.timeout(PATIENT_S), patient(cluster, "well") as sick:
        await fell_ill(sick)
        sick.process.send_signal(signal.SIGSTOP)
        await asyncio.sleep(2 * PATIENCE_S)
        sick.process.send_signal(signal.SIGCONT)
        await asyncio.sleep(2 * PATIENCE_S)
        while (await sick.ask("ready"))[0] != 200:
            await asyncio.sleep(0.1)
        sick.process.send_signal(signal.SIGTERM)
        code, err = await sick.end()
    assert code == 0, err
