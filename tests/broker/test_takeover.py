"""A journal is handed over to another decision version on a broker: commands, processes, exit codes."""

import asyncio
import os
import signal
import sys
import time
from pathlib import Path

import pytest
from broker.cluster import Cluster
from worlds import signal as a_signal

from engines.allocation import DECISION_VERSION

pytestmark = [pytest.mark.broker]

SUCCESSOR = Path(__file__).with_name("successor.py")
NEXT = DECISION_VERSION + 1
ANOTHER_VERSION = 8


def some(first, count):
    return [
        a_signal(time.time_ns(), signal_id=f"s-{number}", portfolio_id=f"p{number % 5}", valid_for_s=3600)
        for number in range(first, first + count)
    ]


async def successor(cluster):
    return await asyncio.create_subprocess_exec(
        sys.executable,
        str(SUCCESSOR),
        str(cluster.config),
        stderr=asyncio.subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": str(SUCCESSOR.parents[2])},
    )


async def test_a_drained_journal_is_the_next_versions_and_each_proves_its_own_part(broker, names, tmp_path):
    cluster = Cluster(broker, names, tmp_path)
    await cluster.lay()
    async with asyncio.timeout(200):
        async with cluster.worker():
            await cluster.price("BTC-USD", 43_500.0)
            await cluster.publish("signals", some(0, 6))
            await cluster.answered([f"s-{number}" for number in range(6)])
            code, _, err = await cluster.himari("worker", "--drain")
            assert (code, "stop the workers" in err) == (1, True), err
        refused = await successor(cluster)
        _, told = await refused.communicate()
        assert refused.returncode == ANOTHER_VERSION, told
        assert f"run version {DECISION_VERSION} with: himari worker --drain --to {NEXT}" in told.decode()

        while (done := await cluster.himari("worker", "--drain"))[0] == 1 and "still has members" in done[2]:
            await asyncio.sleep(0.5)
        code, _, err = done
        assert code == 0, err
        assert err.count(f"handed over to decision version {NEXT} at entry") == 2
        again = await cluster.himari("worker", "--drain")
        assert again == (0, "", err)

        code, _, err = await cluster.himari("worker")
        assert code == ANOTHER_VERSION, err
        assert f"install version {NEXT}" in err

        heir = await successor(cluster)
        await cluster.publish("signals", some(6, 6))
        found = await cluster.answered([f"s-{number}" for number in range(12)])
        heir.send_signal(signal.SIGTERM)
        await heir.communicate()
        assert heir.returncode == 0
    version_of = {fields["trigger"]["id"]: fields["decision_version"] for fields in found}
    assert {version_of[f"s-{number}"] for number in range(6)} == {DECISION_VERSION}
    assert {version_of[f"s-{number}"] for number in range(6, 12)} == {NEXT}
    code, out, err = await cluster.himari("audit", "verify")
    assert code == ANOTHER_VERSION, err
    mine = sum(fields["decision_version"] == DECISION_VERSION for fields in found)
    assert mine >= 6, "a signal before its price is decided again"
    assert out.startswith(f"verified: {mine} allocations recomputed"), out
    assert out.count(f"is of decision version {NEXT}, this is version {DECISION_VERSION}: install") == 2
