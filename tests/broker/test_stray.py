"""A record on the journal that no worker wrote: workers stop in one line, and earlier decisions stay provable."""

import time

import orjson
import pytest
from broker.cluster import Cluster
from worlds import signal as a_signal

from schemas.errors import AllocationFork
from streams.journal import entries as journal
from streams.reports.allocation_reader import AllocationReader

pytestmark = [pytest.mark.broker]
PLACE = 1
"""The partition with the stray record: that of portfolio `main`."""

DAY_NS = 86_400 * 10**9
STRAYS = {
    "text": (b"hello", "JSONDecodeError"),
    "unknown-kind": (journal.internal("sgnal", {}, 1_700_000_000 * 10**9), "unknown kind 'sgnal'"),
    "far-ahead": (None, "beyond what kafka.max_ahead_s allows"),
}


def made(folder):
    folder.mkdir()
    return folder


def copied(names):
    """Return the names of a copy."""
    return names._replace(prefix=f"{names.prefix}c")


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


async def test_a_copy_without_the_stray_record_publishes_the_same_bytes_and_goes_on(broker, names, tmp_path):
    """The runbook of docs/errors.md: nothing that was learnt, published or sent meanwhile is lost."""
    old, new = Cluster(broker, names, made(tmp_path / "old")), Cluster(broker, copied(names), made(tmp_path / "new"))
    await old.lay()
    async with old.worker() as worker:
        await old.price("BTC-USD", 43_500.0)
        await old.publish("signals", [a_signal(time.time_ns(), signal_id="before", valid_for_s=3600)])
        await old.answered(["before"])
        await old.publish("journal", [b"hello"], partition=PLACE)
        await old.publish("signals", [a_signal(time.time_ns(), signal_id="meanwhile", valid_for_s=3600)])
        told = (await worker.stderr.read()).decode()
        assert await worker.wait() == 1
    offset = told.partition("offset ")[2].partition(":")[0]

    code, _, err = await old.himari("journal", "copy", new.names.prefix)
    assert (code, f"journal partition {PLACE}, offset {offset}: not an entry" in err) == (1, True), err
    code, _, err = await old.himari("journal", "copy", new.names.prefix, "--without", f"{PLACE}:0")
    assert (code, "must be above" in err) == (1, True), err

    code, out, err = await old.himari("journal", "copy", new.names.prefix, "--without", f"{PLACE}:{offset}", "--json")
    assert (code, orjson.loads(out)["left_out"]) == (0, 1), err
    async with new.worker():
        await new.price("BTC-USD", 43_500.0)
        await new.publish("signals", [a_signal(time.time_ns(), signal_id="after", valid_for_s=3600)])
        found = {each["trigger"]["id"]: each for each in await new.answered(["before", "meanwhile", "after"])}
    again = [record.value for record in await new.records("allocations")]
    assert [record.value for record in await old.records("allocations")] == again[:1]
    assert [found[name]["sequence"] for name in ("before", "meanwhile", "after")] == [1, 2, 3]
    code, out, err = await new.himari("audit", "verify")
    assert code == 0, out + err
    code, _, err = await old.himari("journal", "copy", new.names.prefix, "--without", f"{PLACE}:{offset}")
    assert (code > 0, "must be empty" in err) == (True, True), err


async def test_a_forged_allocation_is_named_by_readers_and_by_the_audit_and_workers_go_on(broker, names, tmp_path):
    cluster = Cluster(broker, names, tmp_path)
    await cluster.lay()
    async with cluster.worker():
        await cluster.price("BTC-USD", 43_500.0)
        await cluster.publish("signals", [a_signal(time.time_ns(), signal_id="s-1", valid_for_s=3600)])
        (true,) = await cluster.answered(["s-1"])
        forged = orjson.dumps({**true, "sequence": 2, "value_usd": 1.0})
        await cluster.publish("allocations", [forged], partition=PLACE)
        await cluster.publish("signals", [a_signal(time.time_ns(), signal_id="s-2", valid_for_s=3600)])
        await cluster.answered(["s-1", "s-2"])
    (number,) = [record.offset for record in await cluster.records("allocations") if record.value == forged]
    code, out, err = await cluster.himari("audit", "verify")
    assert (code, f"allocations {PLACE}:{number}: main sequence 2 must follow" in out) == (4, True), out + err
    reader, values = AllocationReader(whole=True), [record.value for record in await cluster.records("allocations")]
    assert reader.take(values[0])
    with pytest.raises(AllocationFork, match="sequence 2 must follow"):
        reader.take(forged)
    async with cluster.worker():
        await cluster.publish("signals", [a_signal(time.time_ns(), signal_id="s-3", valid_for_s=3600)])
        await cluster.answered(["s-1", "s-2", "s-3"])
