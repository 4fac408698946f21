"""`himari control` as operators use it: a kill switch, who has answered, and what is in force."""

import asyncio
import time

import orjson
import pytest
from broker.cluster import Cluster
from worlds import signal as a_signal

from streams.journal.entries import SourcePlace
from streams.kafka import orders
from streams.processing.memory_cluster import Stored
from streams.stages.control import trading_order
from streams.stages.ingest import ingest

pytestmark = [pytest.mark.broker]


@pytest.fixture
def cluster(broker, names, tmp_path):
    return Cluster(broker, names, tmp_path)


async def sized(cluster, signal_id):
    """Publish a signal; return what it was given."""
    message = a_signal(time.time_ns(), signal_id=signal_id, valid_for_s=3_600)
    await cluster.publish("signals", [message])
    found = await cluster.answered([signal_id])
    return next(fields for fields in found if fields["trigger"]["id"] == signal_id)["position_size_usd"]


async def test_the_kill_switch_halts_everything_outlives_a_kill_and_is_listed_with_who_and_why(cluster):
    await cluster.lay()
    worker = await cluster.start_worker()
    await cluster.price("BTC-USD", 43_500.0)
    while not [record for record in await cluster.records("journal") if b'"kind":"step"' in record.value]:
        await asyncio.sleep(0.1)
    assert await sized(cluster, "s-0") == 3_851.39
    halt = ("--scope", "all", "--reason", "exchange is down", "--by", "ops", "--wait", "60", "--json")
    code, out, err = await cluster.himari("control", "halt", *halt)
    assert code == 0, out + err
    told = orjson.loads(out)
    assert (told["answers"], told["missing"]) == ({"0": "applied", "1": "applied"}, [])
    assert await sized(cluster, "s-1") == 0.0
    worker.kill()
    await worker.wait()
    async with cluster.worker():
        assert await sized(cluster, "s-2") == 0.0
        code, out, err = await cluster.himari("control", "list", "--json")
        assert code == 0, err
        row = orjson.loads(out)
        assert (row["scope"], row["state"], row["by"], row["reason"], row["missing"]) == (
            "all",
            "HALTED",
            "ops",
            "exchange is down",
            [],
        )
        assert (row["control_id"], row["cells"]) == (told["order"]["control_id"], 1)
        code, out, err = await cluster.himari("control", "resume", "--scope", "all", "--reason", "it is up", "--wait")
        assert (code, out.count(": applied")) == (0, 2), err
        assert await sized(cluster, "s-3") == pytest.approx(3_851.39, rel=0.02), "renewed after part of its horizon"
        value = ("--portfolio", "main", "--usd", "50000", "--reset-peak", "--reason", "withdrawal", "--wait", "60")
        code, out, err = await cluster.himari("control", "value", *value)
        assert (code, out.count(": applied")) == (0, 1), err
        assert await sized(cluster, "s-4") == pytest.approx(3_851.39 / 2, rel=0.02), "half the value, half the size"
        await forgotten(cluster)
    code, out, err = await cluster.himari("control", "list")
    assert (code, out, err) == (0, "", "all ACTIVE\n")
    code, out, _ = await cluster.himari("control", "list", "--history")
    assert [line.split()[1] for line in out.splitlines()] == [
        "trading_state",
        "trading_state",
        "portfolio_value",
        "forget",
        "forget",
    ]
    assert "by ops: exchange is down" in out
    assert (await cluster.verify()).ok


async def forgotten(cluster):
    """Forget a strategy that has nothing, and try to forget one that has a claim."""
    idle = a_signal(time.time_ns(), strategy_id="stranger", action="hold", signal_id="s-5")
    await cluster.publish("signals", [idle])
    await cluster.answered(["s-5"])
    words = ("control", "forget", "--portfolio", "main", "--reason", "a stranger", "--wait", "60", "--scope")
    code, out, err = await cluster.himari(*words, "strategy:stranger")
    assert (code, out.count(": applied")) == (0, 1), err
    code, _, err = await cluster.himari(*words, "strategy:momentum")
    assert (code, "must have neither a live claim nor a position" in err) == (1, True), err


async def test_partitions_that_do_not_answer_are_named_with_exit_6(embedded_broker, names, tmp_path):
    cluster = Cluster(embedded_broker, names, tmp_path)
    code, _, err = await cluster.himari("control", "halt", "--scope", "all", "--reason", "x", "--no-wait")
    assert (code, "run: himari topics apply" in err) == (6, True)
    code, _, err = await cluster.himari("control", "halt", "--scope", "all", "--reason", "x")
    assert (code, "run: himari topics apply" in err) == (6, True)
    await cluster.lay()
    halt = ("control", "halt", "--scope", "all", "--reason", "nobody runs")
    code, out, err = await cluster.himari(*halt, "--wait", "0.5")
    assert (code, err) == (6, "no answer from journal partitions 0, 1\n")
    assert out.startswith("order halt-")
    code, out, err = await cluster.himari(*halt, "--no-wait", "--json")
    assert (code, orjson.loads(out)["waited"], err) == (0, False, "")
    code, out, err = await cluster.himari(*halt, "--no-wait", "--wait", "60")
    assert (code, out, err.endswith("--wait and --no-wait are mutually exclusive\n")) == (2, "", True)
    assert len(await cluster.records("control")) == 2


async def test_a_halt_waits_by_itself_says_where_it_is_refused_and_all_is_halted_beside_a_thousand(
    embedded_broker, names, tmp_path
):
    cluster = Cluster(embedded_broker, names, tmp_path)
    await cluster.lay()
    many = [
        trading_order("halt", f"symbol:X{number}", "an automaton", "ops", time.time_ns()) for number in range(1_000)
    ]
    await cluster.publish("control", many)
    async with cluster.worker():
        await cluster.until("alerts", 2_000)
        for word in ("halt", "reduce"):
            code, out, err = await cluster.himari("control", word, "--scope", "symbol:one-more", "--reason", "x")
            told = "rejected: scope must be one of at most 1000 symbol scopes that are halted or reducing, was "
            assert code == 1, out + err
            assert err == f"not in force on journal partitions 0, 1: {told}'symbol:one-more', a new one\n"
        for word in ("halt", "reduce", "resume"):
            waits = () if word != "resume" else ("--wait",)
            code, out, err = await cluster.himari("control", word, "--scope", "all", "--reason", "x", *waits)
            assert (code, out.count(": applied"), err) == (0, 2, "")


async def test_who_halted_is_found_however_long_ago_it_was(embedded_broker, names, tmp_path, monkeypatch):
    cluster = Cluster(embedded_broker, names, tmp_path)
    await cluster.lay()
    now_ns = time.time_ns()
    for number in range(40):
        order = trading_order("halt", f"symbol:S{number % 2}", f"reason {number}", "ops", now_ns)
        stored = Stored(number, None, orjson.dumps(order))
        for send in ingest(SourcePlace("control", 0, 0, number), stored, now_ns, 2):
            await cluster.publish("journal", [send.value], send.partition)
    monkeypatch.setattr(orders, "WINDOW", 1)
    found = await orders.orders_behind(embedded_broker, names, 1, {"symbol:S0": "HALTED", "symbol:S1": "HALTED"})
    assert {scope: each.body["reason"] for scope, each in found.items()} == {
        "symbol:S0": "reason 38",
        "symbol:S1": "reason 39",
    }
    assert await orders.orders_behind(embedded_broker, names, 1, {"all": "HALTED"}) == {}
