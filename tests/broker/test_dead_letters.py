"""`himari dlq` as operators use it: what was refused, why, and back once it would be taken."""

import asyncio
import time

import orjson
import pytest
from broker.cluster import Cluster
from worlds import signal as a_signal

from streams.kafka import dead_letters

pytestmark = [pytest.mark.broker]


@pytest.fixture
def cluster(broker, names, tmp_path):
    return Cluster(broker, names, tmp_path)


async def test_a_letter_is_listed_shown_and_replayed_once_it_would_be_taken_and_only_once(cluster):
    await cluster.lay()
    async with cluster.worker():
        await cluster.price("BTC-USD", 43_500.0)
        while not [record for record in await cluster.records("journal") if b'"kind":"step"' in record.value]:
            await asyncio.sleep(0.1)
        early = a_signal(time.time_ns() + 12_000_000_000, signal_id="early", valid_for_s=3_600)
        await cluster.publish("signals", [b'{"confidence": NaN}', early, b"\xff\xfe"])
        await cluster.until("signals.dlq", 3)
        code, out, err = await cluster.himari("dlq", "list", "--topic", "signals", "--json")
        rows = {row["code"]: row for row in map(orjson.loads, out.splitlines())}
        assert (code, rows.keys(), err) == (0, {"not_finite", "in_future", "not_utf8"}, "3 dead letters\n")
        places = {name: (str(row["partition"]), str(row["offset"])) for name, row in rows.items()}
        code, out, _ = await cluster.himari("dlq", "list", "--code", "not_utf8")
        assert (code, out.count("\n"), " not_utf8 -: signals: record must be UTF-8" in out) == (0, 1, True)
        code, out, _ = await cluster.himari("dlq", "show", "signals.dlq", *places["not_finite"])
        assert (code, out.splitlines()[-1]) == (0, '  {"confidence": NaN}'), (
            "indented: no line of a value looks like one of ours"
        )
        code, out, err = await cluster.himari("dlq", "replay", "signals", *places["not_finite"])
        assert (code, "kept: not_finite: " in out, err) == (5, True, "1 kept\n")
        await asyncio.sleep(max(0.0, early["timestamp_ns"] / 1e9 - 5.0 - time.time()))
        code, out, err = await cluster.himari("dlq", "replay", "signals", "--code", "in_future", "--dry-run")
        assert (code, out.count("would be replayed"), err) == (0, 1, "1 would be replayed\n")
        code, out, err = await cluster.himari("dlq", "replay", "signals", "--json")
        assert (code, err) == (5, "1 replayed, 2 kept\n"), out
        found = await cluster.answered(["early"])
        assert next(each for each in found if each["trigger"]["id"] == "early")["position_size_usd"] > 0
        code, out, err = await cluster.himari("dlq", "replay", "signals", *places["in_future"])
        assert (code, "replayed before: as " in out, err) == (1, True, "1 replayed before\n")
        code, _, err = await cluster.himari("dlq", "replay", "signals")
        assert (code, err) == (5, "1 replayed before, 2 kept\n")
    assert len(await cluster.records("signals")) == 4
    known = await dead_letters.replayed_before(cluster.connection, cluster.names, "signals", 0)
    assert list(known) == ["signals.dlq/" + "/".join(places["in_future"])]
    code, out, err = await cluster.himari("dlq", "replay", "signals", *places["in_future"], "--again")
    assert (code, "replayed: as " in out, err) == (0, True, "1 replayed\n")
    assert len(await cluster.records("signals")) == 5
    assert (await cluster.verify()).ok


async def test_what_is_not_there_is_named(embedded_broker, names, tmp_path):
    cluster = Cluster(embedded_broker, names, tmp_path)
    code, _, err = await cluster.himari("dlq", "list")
    assert (code, "run: himari topics apply" in err) == (6, True)
    await cluster.lay()
    assert await cluster.himari("dlq", "list") == (0, "", "0 dead letters\n")
    assert await cluster.himari("dlq", "replay", "control") == (0, "", "no dead letters\n")
    for command in ("show", "replay"):
        code, out, err = await cluster.himari("dlq", command, "signals", "0", "7")
        assert (code, out, err) == (3, "", "himari: signals.dlq/0/7: no such dead letter\n")
    code, _, err = await cluster.himari("dlq", "show", "allocations", "0", "0")
    assert (code, "allocations has no dead letters; choose one of signals" in err) == (3, True)
    assert (await cluster.himari("dlq", "replay", "signals", "0"))[0] == 2


async def test_a_replay_that_its_topic_has_forgotten_is_found_in_the_journal(embedded_broker, names, tmp_path):
    cluster = Cluster(embedded_broker, names, tmp_path)
    await cluster.lay()
    headers = [["himari.replay.of", "c2lnbmFscy5kbHEvMC8z"]]  # signals.dlq/0/3
    await cluster.publish("journal", [{"kind": "signal", "headers": headers, "value": "{}"}], 1)
    known = await dead_letters.replayed_before(embedded_broker, names, "signals", time.time_ns() // 1_000_000)
    assert known == {"signals.dlq/0/3": f"{names.topic('journal')}/1/1"}
