"""A record on the journal that no worker wrote: workers stop in one line, and earlier decisions stay provable."""

import time

import orjson
import pytest
from broker.cluster import Cluster
from worlds import signal as a_signal

from streams.journal import entries as journal

pytestmark = [pytest.mark.broker]

DAY_NS = 86_400 * 10**9
STRAYS = {
    "text": (b"hello", "JSONDecodeError"),
    "unknown-kind": (journal.internal("sgnal", {}, 1_700_000_000 * 10**9), "unknown kind 'sgnal'"),
    "far-ahead": (None, "beyond what kafka.max_ahead_s allows"),
}


@pytest.mark.parametrize("name", STRAYS)
async def test_workers_stop_in_one_line_and_nothing_of_it_is_folded(broker, names, tmp_path, name):
    value, reason = STRAYS[name]
    stray = value or journal.internal("tick", {}, time.time_ns() + 3 * DAY_NS)
    cluster = Cluster(broker, names, tmp_path)
    await cluster.lay()
    sent = [a_signal(time.time_ns(), signal_id=f"s-{n}", portfolio_id=f"p{n}", valid_for_s=3600) for n in range(4)]
    async with cluster.worker() as worker:
        await cluster.price("BTC-USD", 43_500.0)
        await cluster.publish("signals", sent)
        found = await cluster.answered([each["signal_id"] for each in sent])
        await cluster.publish("journal", [stray], partition=0)
        told = (await worker.stderr.read()).decode()
        assert await worker.wait() == 1
    line = next(line for line in told.splitlines() if "StrayRecord" in line)
    assert "journal partition 0, offset" in line, told
    assert reason in line, told
    assert "Traceback" not in told
    offset = int(line.partition("offset ")[2].partition(":")[0])
    code, out, err = await cluster.himari("journal", "show", "0", str(offset), "--json")
    assert (code, orjson.loads(out)["value"]) == (0, stray.decode()), err
    code, out, err = await cluster.himari("audit", "verify", "--to", f"0:{offset - 1}")
    assert code == 0, out + err
    again, _, err = await cluster.himari("worker")
    assert (again, "not an entry of a worker" in err, "Traceback" in err) == (1, True, False), err
    assert len(await cluster.records("allocations")) == len(found)
