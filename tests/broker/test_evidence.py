"""`himari audit explain｜whatif｜bundle` as auditors use them: on a broker, through the command line."""

import asyncio
import stat
import time

import orjson
import pytest
from broker.cluster import Cluster
from worlds import signal as a_signal

from streams.journal.entries import internal

pytestmark = [pytest.mark.broker]


async def test_a_decision_is_explained_bundled_and_asked_about_on_a_broker(broker, names, tmp_path):
    cluster = Cluster(broker, names, tmp_path)
    await cluster.lay()
    async with cluster.worker():
        await cluster.price("BTC-USD", 43_500.0)
        while not [record for record in await cluster.records("journal") if b'"kind":"step"' in record.value]:
            await asyncio.sleep(0.1)
        now_ns = time.time_ns()
        sent = [a_signal(now_ns, signal_id=f"s-{n}", portfolio_id=p, valid_for_s=3600) for n, p in enumerate("abc")]
        await cluster.publish("signals", sent)
        found = await cluster.answered(["s-0", "s-1", "s-2"])
    fields = next(fields for fields in found if fields["trigger"]["id"] == "s-1")
    decision_id = fields["decision_id"]

    page = tmp_path / "page.html"
    code, out, err = await cluster.himari("audit", "explain", decision_id, "--json", "--html", str(page))
    assert (code, f"page in {page}" in err) == (0, True), err
    told = orjson.loads(out)
    assert (told["verification"]["status"], told["verification"]["copies"]) == ("equal", 1)
    (forecast,) = told["decision"]["inputs"]["forecasts"]
    assert forecast["entry"]["source"] == {"topic": "signals", "epoch": 0, "partition": 0, "offset": 1}
    assert decision_id in page.read_text("utf-8")
    code, out, _ = await cluster.himari("audit", "explain", decision_id)
    assert (code, "verified: recomputed from the journal" in out) == (0, True)

    settings = tmp_path / "smaller.yaml"
    settings.write_text("risk_management: {max_position_pct: 0.02}\n")
    code, out, err = await cluster.himari("audit", "whatif", "--config", str(settings), "--json")
    assert code == 0, err
    told = orjson.loads(out)
    assert {row["portfolio_id"]: row["change_cents"] for row in told["by_symbol"]} == dict.fromkeys("abc", -205_139)
    assert told["absolute_change_cents"] == 3 * 205_139
    one = ("--portfolio", "b", "--html", str(page), "--to", str(fields["timestamp_ns"] + 1))
    code, out, err = await cluster.himari("audit", "whatif", "--config", str(settings), *one)
    assert (code, out.splitlines()[0].endswith("1 of 1 decisions change, by 2,051.39 USD in total")) == (0, True), (
        out + err
    )
    assert "<svg" in page.read_text("utf-8")

    proof = tmp_path / "proof.zip"
    code, out, err = await cluster.himari("audit", "bundle", decision_id, "-o", str(proof))
    assert (code, "  verified; to repeat" in out) == (0, True), err
    code, out, err = await cluster.himari("audit", "check", str(proof))
    assert (code, out.startswith("ok: ")) == (0, True), err
    written = (tmp_path / "state", page, proof)
    assert [stat.S_IMODE(place.stat().st_mode) for place in written] == [0o700, 0o600, 0o600]

    await forge_and_name(cluster, fields, proof)


async def forge_and_name(cluster, fields, proof):
    """Publish a copy with other bytes, ask for what nobody knows, and break the journal."""
    decision_id, partition = fields["decision_id"], fields["journal"]["partition"]
    forged = orjson.dumps({**fields, "portfolio_value": 1.0}, option=orjson.OPT_SORT_KEYS)
    await cluster.publish("allocations", [forged], partition)
    code, out, _ = await cluster.himari("audit", "explain", decision_id)
    assert (code, "portfolio_value: published 1.0, computed 100000.0" in out) == (4, True)
    stranger = decision_id.replace(f"-{fields['journal']['offset']}-", "-999999-")
    for unknown in (stranger, decision_id.replace(f"-{partition}-", "-77-", 1), "nothing"):
        code, out, err = await cluster.himari("audit", "explain", unknown)
        assert (code, out, err.count("\n")) == (3, "", 1), err
    code, out, err = await cluster.himari("audit", "bundle", stranger, "-o", str(proof))
    assert (code, out, err.count("\n")) == (3, "", 1), err
    ghost = orjson.dumps({**fields, "decision_id": stranger}, option=orjson.OPT_SORT_KEYS)
    await cluster.publish("allocations", [ghost], partition)
    code, out, _ = await cluster.himari("audit", "explain", stranger)
    assert (code, "published, but journal partition" in out) == (4, True)
    await cluster.publish("journal", [internal("nonsense", {}, time.time_ns())], partition)
    code, out, err = await cluster.himari("audit", "whatif", "--config", str(cluster.config))
    assert (code, out, "cannot be folded" in err) == (4, "", True)
    code, out, err = await cluster.himari("audit", "whatif")
    assert (code, "--config" in err) == (2, True)
