"""`himari rl check` and `himari rl serve`: what fits, what does not, and by which exit code one can tell."""

import asyncio
import json
import re
import signal
import socket
import subprocess
import sys
from contextlib import contextmanager

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from policies import INFERRED, METADATA, http, listening, says_json

from streams.policy.conformance import Probe, quantiles
from streams.policy.http_transport import Link
from streams.policy.reference_server import WRONGS, Endpoint, Switches, serve


async def probed(protocol, timeout_s=2.0, **given):
    served = await serve(Endpoint(**given))
    try:
        path = "/predict" if protocol == "predict" else ""
        return await Probe(Link(served.url + path), protocol, timeout_s=timeout_s, count=5).report()
    finally:
        await served.runner.cleanup()


def verdicts(report):
    return {each.name: each.verdict for each in report.findings}


@pytest.mark.parametrize("protocol", ["oip", "predict"])
def test_the_reference_fits(protocol):
    report = asyncio.run(probed(protocol))
    assert report.fits
    assert set(report.latency_ms) == {"p50", "p90", "p99", "max"}
    ids = "fits" if protocol == "oip" else "not tried"
    assert verdicts(report) | {"metadata": "fits"} == {
        "metadata": "fits",
        "answer": "fits",
        "ids": ids,
        "range": "fits",
        "determinism": "fits",
        "together": "fits",
        "latency": "fits",
        "strictness": "fits",
    }


@pytest.mark.parametrize("wrong", WRONGS)
def test_what_is_wrong_does_not_fit_and_is_reachable(wrong):
    report = asyncio.run(probed("oip", switches=Switches(wrong=wrong)))
    assert not report.fits
    assert report.reachable
    assert verdicts(report)["answer"] == "does not fit"


@pytest.mark.parametrize("switches", [Switches(dead=True), Switches(slow_s=9.0)])
def test_a_dead_or_silent_one_is_out_of_reach(switches):
    report = asyncio.run(probed("predict", timeout_s=0.2, switches=switches))
    assert not report.reachable
    assert not report.fits


def test_metadata_of_another_model_does_not_fit():
    async def ask():
        async with listening(says_json(METADATA | {"name": "policy", "inputs": METADATA["inputs"] * 2})) as url:
            return await Probe(Link(url), "oip", count=1).report()

    report = asyncio.run(ask())
    assert [(each.name, each.verdict) for each in report.findings] == [("metadata", "does not fit")]
    assert "inputs: must be state alone (rl.tensors), was state, state" in report.findings[0].detail
    assert report.reachable


def oip_server(metadata, **answer):
    """A model server that says this of itself, and answers each question with its id."""

    async def handle(reader, writer):
        head = await reader.readuntil(b"\r\n\r\n")
        if head.startswith(b"GET"):
            writer.write(http(json.dumps(metadata).encode()))
            return
        length = re.search(rb"content-length: (\d+)", head.lower())[1]
        asked = json.loads(await reader.readexactly(int(length)))
        told = INFERRED | answer | ({"id": asked["id"]} if "id" in asked else {})
        writer.write(http(json.dumps(told).encode()))

    return handle


@pytest.mark.parametrize(
    ("metadata", "verdict"),
    [
        (METADATA | {"versions": None, "platform": ""}, "fits"),
        (METADATA | {"platform": None}, "fits"),
        (METADATA | {"inputs": [], "outputs": [], "versions": []}, "note"),
        (METADATA | {"inputs": None, "outputs": None}, "note"),
    ],
)
def test_the_metadata_of_python_servers_fits(metadata, verdict):
    async def ask():
        async with listening(oip_server(metadata, model_version=None)) as url:
            return await Probe(Link(url), "oip", count=1).report()

    report = asyncio.run(ask())
    assert report.fits, report.findings
    assert verdicts(report)["metadata"] == verdict


def test_an_answer_that_hangs_on_chance_is_noted():
    numbers = iter(range(10_000))

    async def handle(reader, writer):
        fields = {
            "position_pct": 0.1 + next(numbers) * 1e-6,
            "confidence": 0.5,
            "predicted_return": 0.0,
            "predicted_volatility": 0.1,
            "model_version": "dice",
        }
        await says_json(fields)(reader, writer)

    async def ask():
        async with listening(handle) as url:
            return await Probe(Link(url), "predict", count=1).report()

    report = asyncio.run(ask())
    assert verdicts(report)["determinism"] == "note"
    assert verdicts(report)["strictness"] == "note"
    assert report.fits


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=200))
def test_the_quantiles_are_numpys_by_nearest_rank(values):
    wanted = np.quantile(values, [0.5, 0.9, 0.99, 1.0], method="inverted_cdf")
    assert list(quantiles(values).values()) == pytest.approx(list(wanted))


# -- the commands ------------------------------------------------------------------------------------------------------
HIMARI = (sys.executable, "-m", "streams")


@contextmanager
def served(*options):
    """A server in a process of its own; yields its URL, and checks that it ends in peace."""
    command = [*HIMARI, "rl", "serve", "--port", "0", *options]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        first = process.stderr.readline()
        assert "untrained" in first
        yield re.search(r"http://[0-9.:]+", first)[0]
    finally:
        process.send_signal(signal.SIGINT)
        rest = process.communicate(timeout=20)[1]
    assert process.returncode == 0, rest
    assert "questions answered" in rest


def checked(*options):
    return subprocess.run(
        [*HIMARI, "rl", "check", "--count", "3", *options], capture_output=True, text=True, check=False
    )


def test_the_check_of_a_served_policy_says_that_it_fits():
    with served("--seed", "3") as url:
        text, plain = checked("--url", url), checked("--url", f"{url}/predict", "--json")
    assert text.returncode == plain.returncode == 0
    assert text.stdout.splitlines()[0] == f"{url} (oip)"
    assert text.stdout.splitlines()[-1] == "fits"
    told = json.loads(plain.stdout)
    assert told["fits"] is True
    assert told["protocol"] == "predict"
    assert {each["name"] for each in told["findings"]} >= {"answer", "determinism", "latency"}


def test_the_check_of_a_wrong_one_ends_with_1_and_of_none_with_6():
    with served("--wrong", "nan") as url:
        wrong = checked("--url", f"{url}/predict", "--json")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        nobody = checked("--url", f"http://127.0.0.1:{free.getsockname()[1]}", "--timeout", "1")
    assert (wrong.returncode, nobody.returncode) == (1, 6)
    assert "must be finite, was 'NaN'" in wrong.stdout
    assert nobody.stdout.splitlines()[-1] == "unreachable"


def test_a_port_that_is_taken_is_named():
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        told = subprocess.run(
            [*HIMARI, "rl", "serve", "--port", str(port)], capture_output=True, text=True, check=False
        )
    assert told.returncode == 1
    assert f"port {port} on 127.0.0.1 is in use" in told.stderr
