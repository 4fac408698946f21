"""The code of decision version 3 runs on a broker and hands over; this code goes on from what it left."""

import asyncio
import io
import subprocess
import tarfile
import time

import pytest
from broker.cluster import ROOT, Cluster
from worlds import signal as a_signal

from engines.allocation import DECISION_VERSION

pytestmark = [pytest.mark.broker, pytest.mark.long]

COMMIT = "1065b10"
"""The last commit whose decisions are of version 3."""
ANOTHER_VERSION = 8
PORTFOLIOS = [f"p{number}" for number in range(4)]


@pytest.fixture
def version_3(tmp_path):
    """Return a checkout of version 3."""
    done = subprocess.run(["git", "archive", COMMIT], cwd=ROOT, check=False, capture_output=True)
    if done.returncode:
        pytest.skip(f"{COMMIT} is not in this clone: {done.stderr.decode().strip()}")
    folder = tmp_path / "version-3"
    with tarfile.open(fileobj=io.BytesIO(done.stdout)) as tar:
        tar.extractall(folder, filter="data")
    return folder


def signals(round_, **given):
    return [
        a_signal(
            time.time_ns(),
            signal_id=f"{round_}-{portfolio}",
            portfolio_id=portfolio,
            valid_for_s=3600,
            expected_return=0.02,
            confidence=0.9,
            **given,
        )
        for portfolio in PORTFOLIOS
    ]


def outcomes(round_):
    return [
        {
            "portfolio_id": portfolio,
            "strategy_id": "momentum",
            "symbol": "BTC-USD",
            "signal_id": f"{round_}-{portfolio}",
            "side": 1,
            "realized_return": 0.012,
            "holding_s": 60,
            "timestamp_ns": time.time_ns(),
        }
        for portfolio in PORTFOLIOS
    ]


def newest(allocations):
    """Return the last allocation of each portfolio."""
    return {fields["portfolio_id"]: fields for fields in sorted(allocations, key=lambda fields: fields["sequence"])}


async def drained(cluster, to):
    while (done := await cluster.himari("worker", "--drain", "--to", str(to)))[0] == 1 and "members" in done[2]:
        await asyncio.sleep(0.5)
    return done


async def test_version_4_goes_on_from_the_books_and_posteriors_that_version_3_left(broker, names, tmp_path, version_3):
    old = Cluster(broker, names, tmp_path, code=version_3)
    new = Cluster(broker, names, tmp_path)
    async with asyncio.timeout(300):
        assert (await old.himari("topics", "apply"))[0] == 0
        async with old.worker():
            await old.price("BTC-USD", 43_500.0)
            for round_ in range(3):
                await old.publish("signals", signals(round_))
                await old.answered([f"{round_}-{portfolio}" for portfolio in PORTFOLIOS])
                await old.publish("outcomes", outcomes(round_))
            await old.price("BTC-USD", 43_510.0)
            await old.publish("signals", signals("last"))
            before = newest(await old.answered([f"last-{portfolio}" for portfolio in PORTFOLIOS]))
        assert {fields["decision_version"] for fields in before.values()} == {3}
        assert all(fields["allocations"]["BTC-USD"] > 0 for fields in before.values())

        code, _, err = await new.himari("worker")
        assert (code, "pools-changelog" in err, "run: himari topics apply" in err) == (6, True, True), err
        assert (await new.himari("topics", "apply"))[0] == 0
        code, _, err = await new.himari("worker")
        assert code == ANOTHER_VERSION, err
        assert f"himari worker --drain --to {DECISION_VERSION}" in err
        code, _, err = await drained(old, DECISION_VERSION)
        assert code == 0, err
        async with new.worker():
            await new.price("BTC-USD", 43_520.0)
            await new.publish("signals", signals("v4", strategy_id="momentum"))
            found = await new.answered([f"v4-{portfolio}" for portfolio in PORTFOLIOS])
    after = newest(found)
    ours = [fields for fields in found if fields["decision_version"] == DECISION_VERSION]
    assert {fields["trigger"]["id"] for fields in ours} == {f"v4-{portfolio}" for portfolio in PORTFOLIOS}, (
        "a change of version trades nothing by itself"
    )
    for portfolio, fields in after.items():
        assert fields["sequence"] == before[portfolio]["sequence"] + 1
        assert fields["previous_hash"] is not None
        assert fields["diagnostics"]["kelly"]["win_rate"] > 0.5, "what was learnt is known"
    code, out, err = await new.himari("audit", "verify")
    assert code == ANOTHER_VERSION, err
    assert out.startswith(f"verified: {len(ours)} allocations recomputed"), out
    assert out.count("have decision version 3: not checked here") == 2
    code, out, err = await old.himari("audit", "verify")
    assert code == ANOTHER_VERSION, err
    assert f"verified: {len(found) - len(ours)} allocations" in out
