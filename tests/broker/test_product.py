"""The product as its users run it, on every broker: commands, a worker process, kills, bad records."""

import asyncio
import csv
import io
import json
import os
import signal
import time

import aiohttp
import orjson
import pyarrow.parquet
import pytest
from aiokafka.admin import AIOKafkaAdminClient, NewPartitions
from broker.cluster import Cluster
from worlds import control
from worlds import signal as a_signal

from engines.parameters import MarketParams, tree_hash
from streams.journal.entries import SourcePlace
from streams.kafka.broker import free_port
from streams.processing.memory_cluster import Stored
from streams.stages.ingest import ingest
from streams.worker.worker import prepare

pytestmark = [pytest.mark.broker]

KILLS = int(os.environ.get("HIMARI_TEST_KILLS", "2"))


@pytest.fixture
def cluster(broker, names, tmp_path):
    return Cluster(broker, names, tmp_path)


def some_signals(first: int, count: int):
    portfolios = ("main", "alpha", "beta")
    return [
        a_signal(time.time_ns(), signal_id=f"s-{number}", portfolio_id=portfolios[number % 3], valid_for_s=3600)
        for number in range(first, first + count)
    ]


async def test_without_topics_a_worker_says_what_to_run_and_exits_6(cluster):
    code, _, err = await cluster.himari("worker")
    assert code == 6
    assert "topics apply" in err
    assert len(err.strip().splitlines()) == 1


@pytest.mark.everyday
async def test_signals_go_in_provable_allocations_come_out_and_a_bad_record_harms_no_neighbour(cluster):
    code, out, _ = await cluster.himari("topics", "apply")
    assert code == 0
    assert "journal initialised" in out
    assert (await cluster.himari("topics", "check"))[0] == 0
    async with cluster.worker() as worker:
        await cluster.price("BTC-USD", 43_500.0)
        steps = [record for record in await cluster.until("journal", 2 * 2) if b'"step"' in record.value]
        while not steps:
            await asyncio.sleep(0.1)
            steps = [record for record in await cluster.records("journal") if b'"kind":"step"' in record.value]
        good = some_signals(0, 3)
        await cluster.publish("signals", [good[0], b'{"confidence": NaN}', good[1], b"\xff\xfe", good[2]])
        found = await cluster.answered(["s-0", "s-1", "s-2"])
        assert {fields["position_size_usd"] for fields in found if fields["trigger"]["kind"] == "signal"} == {3_851.39}
        letters = await cluster.until("signals.dlq", 2)
        assert {letter.value for letter in letters} == {b'{"confidence": NaN}', b"\xff\xfe"}
        assert {dict(letter.headers)["himari.error.code"] for letter in letters} == {b"not_finite", b"not_utf8"}
        worker.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(worker.wait(), 30) == 0
    code, out, _ = await cluster.himari("audit", "verify", "--json")
    assert code == 0
    assert orjson.loads(out)["checked"] == len(await cluster.records("allocations"))


async def test_a_bad_line_is_named_and_nothing_is_sent(cluster):
    await cluster.lay()
    lines = orjson.dumps(a_signal(time.time_ns())) + b'\n{"strategy_id": "m", "confidence": 2}\n'
    code, _, err = await cluster.himari("publish", "signals", stdin=lines)
    assert code == 5
    assert err.startswith("line 2: ")
    assert await cluster.records("signals") == []


async def test_settings_are_applied_through_the_journal_and_every_partition_answers(cluster, tmp_path):
    await cluster.lay()
    wanted = tmp_path / "wanted.yaml"
    wanted.write_text("risk_management: {max_position_pct: 0.02}\n")
    async with cluster.worker():
        code, out, err = await cluster.himari("config", "apply", str(wanted), "--wait")
        assert code == 0, out + err
        assert out.count(": applied") == 2
        await cluster.price("BTC-USD", 43_500.0)
        while not [record for record in await cluster.records("journal") if b'"kind":"step"' in record.value]:
            await asyncio.sleep(0.1)
        await cluster.publish("signals", some_signals(0, 1))
        (found,) = await cluster.answered(["s-0"])
        assert found["position_size_usd"] == 1_800.0


async def test_a_killed_worker_loses_nothing_and_doubles_nothing(cluster):
    await cluster.lay()
    sent = 0
    for _ in range(KILLS):
        worker = await cluster.start_worker()
        await cluster.price("BTC-USD", 43_500.0)
        for _ in range(10):
            await cluster.publish("signals", some_signals(sent, 40))
            sent += 40
        await cluster.answered([f"s-{sent - 300}"])
        worker.kill()
        await worker.wait()
    async with cluster.worker():
        found = await cluster.answered([f"s-{number}" for number in range(sent)])
    answers = [fields["trigger"]["id"] for fields in found if fields["trigger"]["kind"] == "signal"]
    identities = {(fields["portfolio_id"], fields["sequence"]) for fields in found}
    assert len(set(answers)) == sent, "every signal is answered"
    verdict = await cluster.verify()
    assert verdict.ok, verdict
    assert verdict.pending == 0
    assert len(identities) == verdict.checked
    lost, twice = sent - len(set(answers)), len(found) - len(identities)
    print(f"kills {KILLS}, signals {sent}, lost {lost}, published twice {twice} (equal bytes), {verdict}")  # noqa: T201


@pytest.mark.parametrize("topic", ["signals", "prices"])
async def test_a_source_that_was_created_anew_is_refused_until_it_is_adopted(cluster, topic):
    await cluster.lay()
    async with cluster.worker():
        await cluster.price("BTC-USD", 43_500.0)
        await cluster.publish("signals", some_signals(0, 5))
        await cluster.answered([f"s-{number}" for number in range(5)])
        code, _, err = await cluster.himari("topics", "adopt", topic)
        assert (code, "stop the workers" in err) == (1, True)
    await cluster.create_anew(topic)
    code, _, err = await cluster.himari("worker")
    assert code == 1
    assert f"himari topics adopt {topic}" in err
    code, out, err = await cluster.himari("topics", "adopt", topic)
    assert (code, "epoch 1" in out) == (0, True), err
    async with cluster.worker():
        await cluster.price("BTC-USD", 43_500.0)
        await cluster.publish("signals", some_signals(5, 2))
        await cluster.answered(["s-5", "s-6"])
    verdict = await cluster.verify()
    assert verdict.ok
    assert verdict.checked >= 7


async def page(port: int, path: str) -> bytes:
    async with aiohttp.ClientSession() as session, session.get(f"http://127.0.0.1:{port}{path}") as answer:
        return await answer.read()


async def test_a_change_of_the_file_acts_in_a_running_worker_or_is_named(cluster):
    await cluster.lay()
    web, metrics = free_port(), free_port()
    quick = {"hot_reload": {"poll_interval_sec": 0.2}}

    def write(kafka, monitoring):
        tree = cluster.settings.model_dump(exclude_defaults=True)
        cluster.config.write_text(
            json.dumps(tree | quick | {"kafka": tree["kafka"] | kafka, "monitoring": tree["monitoring"] | monitoring})
        )

    write({}, {"web_port": web})
    async with cluster.worker(), asyncio.timeout(60):
        changed = {"chunk_records": 50, "checkpoint_entries": 3, "fetch_max_wait_ms": 60, "session_timeout_s": 9.0}
        write(changed, {"web_port": web, "metrics_port": metrics})
        state = {}
        while not state.get("restart_required"):
            state = orjson.loads(await page(web, "/state"))
        wanted = {"do": "restart the worker", "file": 9.0, "running": 6.0}
        assert state["restart_required"] == {"kafka.session_timeout_s": wanted}
        assert b"himari_l3_config_restart_required 1.0" in await page(metrics, "/metrics")
        await cluster.price("BTC-USD", 43_500.0)
        await cluster.publish("signals", some_signals(0, 120))
        await cluster.answered([f"s-{number}" for number in range(120)])
        write({}, {"web_port": web})
        while state["restart_required"]:
            state = orjson.loads(await page(web, "/state"))
        with pytest.raises(aiohttp.ClientError):
            await page(metrics, "/metrics")


async def test_prices_may_grow_between_two_runs(kafka_broker, names, tmp_path):
    cluster = Cluster(kafka_broker, names, tmp_path)
    await cluster.lay()
    async with cluster.worker():
        await cluster.price("BTC-USD", 43_500.0)
        await cluster.publish("signals", some_signals(0, 3))
        await cluster.answered(["s-0", "s-1", "s-2"])
    client = AIOKafkaAdminClient(**kafka_broker.options())
    await client.start()
    await client.create_partitions({names.topic("prices"): NewPartitions(4)})
    await client.close()
    code, _, err = await cluster.himari("worker")
    assert (code, "partitions must be 4, was 2" in err, "run: himari topics apply" in err) == (6, True, True)
    code, out, _ = await cluster.himari("topics", "apply")
    assert (code, out.count("added partitions to"), "0 topics created, 2 grown" in out) == (0, 2, True)
    async with cluster.worker():
        quote = {"symbol": "ETH-USD", "price": 2_280.0, "timestamp_ns": time.time_ns()}
        await cluster.publish("prices", [quote], 3)
        async with asyncio.timeout(60):
            while not [
                r for r in await cluster.records("journal") if b'\\"ETH-USD\\"' in r.value and b'"step"' in r.value
            ]:
                await asyncio.sleep(0.1)
        await cluster.publish("signals", [a_signal(time.time_ns(), signal_id="moved", symbol="ETH-USD")])
        found = await cluster.answered(["moved"])
        assert next(each for each in found if each["trigger"]["id"] == "moved")["position_size_usd"] > 0
    assert (await cluster.verify()).ok


async def test_decisions_and_weights_are_exported_and_a_portfolio_is_shown(cluster, tmp_path):
    await cluster.lay()
    async with cluster.worker():
        await cluster.price("BTC-USD", 43_500.0)
        while not [record for record in await cluster.records("journal") if b'"kind":"step"' in record.value]:
            await asyncio.sleep(0.1)
        await cluster.publish("signals", some_signals(0, 30))
        await cluster.answered([f"s-{number}" for number in range(30)])
        halt = {"scope": "portfolio:beta", "state": "HALTED"}
        await cluster.publish("control", [control(time.time_ns(), "trading_state", halt)])
        await cluster.until("alerts", 2)
        code, out, err = await cluster.himari("portfolio", "show", "beta", "--json")
        assert code == 0, err
        assert set(orjson.loads(out)["trading_states"].values()) == {"HALTED"}
    code, out, _ = await cluster.himari("portfolio", "show", "main", "--json")
    shown = orjson.loads(out)
    records = [orjson.loads(record.value) for record in await cluster.records("allocations")]
    newest = max((each for each in records if each["portfolio_id"] == "main"), key=lambda each: each["sequence"])
    assert (code, shown["sequence"], shown["targets"]) == (0, newest["sequence"], newest["targets"])
    assert shown["budgets"]["portfolio"][0]["cap_usd"] == 80_000.0
    code, out, _ = await cluster.himari("portfolio", "show", "main")
    assert (code, out.splitlines()[0].startswith("main, allocation ")) == (0, True)
    for command in (("portfolio", "show", "stranger"), ("export", "decisions", "--portfolio", "stranger")):
        code, _, err = await cluster.himari(*command)
        assert (code, "portfolio stranger has no allocation" in err) == (3, True)
    code, out, err = await cluster.himari("export", "decisions")
    rows = list(csv.DictReader(io.StringIO(out, newline="")))
    assert (code, f"{len(rows)} rows of {len(records)} allocations" in err) == (0, True)
    times = [each["timestamp_ns"] for each in records for _ in each["targets"] or [0]]
    assert [int(row["timestamp_ns"]) for row in rows] == sorted(times)
    code, out, err = await cluster.himari("export", "weights", "--parquet", str(tmp_path / "w.parquet"), "--json")
    assert code == 0, err
    report = orjson.loads(out)
    rows_there = pyarrow.parquet.read_table(tmp_path / "w.parquet").num_rows
    assert (report["rows"], report["allocations"]) == (rows_there, len(records))
    assert report["rows"] == sum(len(each["cells"]) for each in records if each["strategy_weights"]) > 0


async def test_a_worker_begins_with_the_width_in_force_and_not_that_of_genesis(embedded_broker, names, tmp_path):
    cluster = Cluster(embedded_broker, names, tmp_path)
    await cluster.lay()
    base = cluster.settings.decision()
    wanted = base.model_copy(update={"market": MarketParams(step_s=10)})
    payload = {"base_hash": tree_hash(base), "hash": tree_hash(wanted), "tree": wanted.model_dump()}
    now_ns = time.time_ns()
    order = Stored(0, None, orjson.dumps(control(now_ns, "settings", payload)))
    entries = ingest(SourcePlace("control", 0, 0, 0), order, now_ns, 2)
    assert {send.partition for send in entries} == {0, 1}
    for send in entries:
        await cluster.publish("journal", [send.value], send.partition)
    made = await prepare(cluster.settings, embedded_broker, time.time_ns)
    assert (made.began.params.market.step_s, made.params.market.step_s) == (1, 10)
