"""Adapters against real HTTP servers on loopback: each fault has its reason, and nothing follows from it."""

import asyncio
import json
import socket
from contextlib import asynccontextmanager

import pytest
from aiohttp import web
from policies import GOOD, ILL, INFERRED, METADATA, QUESTION, heard, http, listening, question, says, says_json

from config.policy import TensorNames
from streams.policy.adapters import Mock, Nobody, OpenInference, adapter
from streams.policy.answer import NoAnswer
from streams.policy.http_transport import Link, Reply

PATIENCE_S = 0.4
"""Long enough for loopback, short enough for a table of servers that never answer."""


@asynccontextmanager
async def asking(handle, protocol="predict", **given):
    async with listening(handle) as url:
        made = adapter(protocol, url, **given)
        try:
            yield made
        finally:
            await made.close()


async def asked(handle, protocol="predict", timeout_s=5.0, **given):
    async with asking(handle, protocol, **given) as made:
        return await made.ask(question(), timeout_s)


@pytest.mark.parametrize("fault", ILL)
def test_an_ill_endpoint_gives_no_answer_and_the_reason_is_named(fault):
    handle, reason, text = ILL[fault]
    with pytest.raises(NoAnswer) as refused:
        asyncio.run(asked(handle, timeout_s=PATIENCE_S if reason == "timeout" else 5.0))
    assert refused.value.reason == reason
    assert text in str(refused.value)


def test_a_position_becomes_the_nudge_that_leads_to_it():
    answer = asyncio.run(asked(says_json(GOOD)))
    assert answer.nudge == pytest.approx(0.2)
    assert answer[1:5] == (0.8, "m-1", 0.01, 0.02)
    assert json.loads(answer.raw) == GOOD


def test_the_missions_request_goes_out_as_the_mission_has_it():
    seen = []

    async def handle(reader, writer):
        seen.append(json.loads(await heard(reader)))
        writer.write(http(json.dumps(GOOD).encode()))

    asyncio.run(asked(handle))
    (body,) = seen
    mission = ("action", "confidence", "expected_return", "predicted_volatility", "regime", "risk_score", "symbol")
    assert {name: body[name] for name in mission} == {name: QUESTION[name] for name in mission}
    assert body["market_data"]["w_base"] == 0.1
    assert body["market_data"]["price"] == 43_500.0


def test_nobody_listens():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]

    async def ask():
        made = adapter("predict", f"http://127.0.0.1:{port}")
        try:
            await made.ask(question(), 5.0)
        finally:
            await made.close()

    with pytest.raises(NoAnswer) as refused:
        asyncio.run(ask())
    assert refused.value.reason == "refused"
    assert "ClientConnectorError" in str(refused.value)


def test_connections_are_kept_and_used_again():
    connections = []

    async def handle(reader, writer):
        connections.append(writer)
        body = json.dumps(GOOD).encode()
        while True:
            await heard(reader)
            writer.write(f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
            await writer.drain()

    async def ask():
        async with asking(handle) as made:
            for number in range(5):
                await made.ask(question(number), 5.0)

    asyncio.run(ask())
    assert len(connections) == 1


ANSWER = json.dumps(GOOD).encode()


def answering(until, then=b"", *, reset=False, log=None):
    """Answer so many questions on each connection; then say this much of an answer, and close or reset it."""

    async def handle(reader, writer):
        for number in range(until + 1):
            body = await heard(reader)
            if log is not None:
                log.append(body)
            if number < until:
                writer.write(f"HTTP/1.1 200 OK\r\nContent-Length: {len(ANSWER)}\r\n\r\n".encode() + ANSWER)
                await writer.drain()
        writer.write(then)
        await writer.drain()
        if reset:
            writer.transport.abort()

    return handle


@pytest.mark.parametrize("reset", [False, True])
def test_a_kept_connection_that_was_closed_before_an_answer_is_asked_once_more(reset):
    log = []

    async def ask():
        async with asking(answering(1, reset=reset, log=log)) as made:
            for number in range(3):
                assert (await made.ask(question(number), 5.0)).confidence == 0.8

    asyncio.run(ask())
    ids = [json.loads(body)["market_data"]["decision_id"] for body in log]
    assert ids == [f"POLICY22-0-{number}-main" for number in (0, 1, 1, 2)]  # 2 finds no kept one


@pytest.mark.parametrize("then", [b"H", b"HTTP/1.1 20", b"HTTP/1.1 200 OK\r\nContent-Le", b"HTTP/1.1 200 OK\r\n\r\n{"])
def test_an_answer_that_has_begun_is_not_asked_again(then):
    log = []

    async def ask():
        async with asking(answering(1, then, log=log)) as made:
            await made.ask(question(0), 5.0)
            with pytest.raises(NoAnswer):
                await made.ask(question(1), 5.0)

    asyncio.run(ask())
    assert len(log) == 2


def test_a_fresh_connection_that_is_closed_without_an_answer_is_a_failure():
    log = []
    with pytest.raises(NoAnswer, match="ServerDisconnectedError") as refused:
        asyncio.run(asked(answering(0, log=log)))
    assert refused.value.reason == "refused"
    assert len(log) == 1


@pytest.mark.parametrize("gap_s", [0.12, 0.199, 0.2, 0.201, 0.28])
def test_a_server_that_gives_up_idle_connections_loses_no_question(gap_s):
    """A real server with a short keep-alive; questions come as it gives their connection up."""

    async def answer(request):
        await request.read()
        return web.json_response(GOOD)

    async def ask():
        app = web.Application()
        app.router.add_post("/predict", answer)
        runner = web.AppRunner(app, keepalive_timeout=0.2)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        made = adapter("predict", f"http://127.0.0.1:{runner.addresses[0][1]}/predict")
        try:
            for number in range(8):
                await made.ask(question(number), 5.0)
                await asyncio.sleep(gap_s)
        finally:
            await made.close()
            await runner.cleanup()

    asyncio.run(ask())


def test_a_proxy_is_asked_for_the_endpoint():
    heads = []

    async def proxy(reader, writer):
        heads.append((await reader.readuntil(b"\r\n\r\n")).split(b"\r\n")[0])
        writer.write(http(ANSWER))

    async def ask():
        async with listening(proxy) as url:
            made = adapter("predict", "http://policy.invalid/predict", proxy=url)
            try:
                return await made.ask(question(), 5.0)
            finally:
                await made.close()

    assert asyncio.run(ask()).confidence == 0.8
    assert heads == [b"POST http://policy.invalid/predict HTTP/1.1"]


def test_a_proxy_of_the_environment_is_not_used(monkeypatch):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    assert asyncio.run(asked(says_json(GOOD))).confidence == 0.8


def test_a_token_is_sent_and_never_shown():
    heads = []

    async def handle(reader, writer):
        heads.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(http(b"", "401 Unauthorized"))

    with pytest.raises(NoAnswer) as refused:
        asyncio.run(asked(handle, token="s3cret"))
    assert b"Authorization: Bearer s3cret" in heads[0]
    assert "s3cret" not in str(refused.value)


def test_no_redirect_is_followed():
    async def ask():
        visits = []

        async def elsewhere(reader, writer):
            visits.append(await heard(reader))
            writer.write(http(json.dumps(GOOD).encode()))

        async with listening(elsewhere) as url:
            with pytest.raises(NoAnswer, match="was 307"):
                await asked(says(http(b"", "307 Temporary", f"Location: {url}\r\n")))
        return visits

    assert asyncio.run(ask()) == []


# -- Open Inference ----------------------------------------------------------------------------------------------------
def policy_server(metadata=METADATA, inferred=INFERRED, log=None):
    """A model server that says this of itself, and this to every question."""

    async def handle(reader, writer):
        head = await reader.readuntil(b"\r\n\r\n")
        line = head.split(b"\r\n")[0].decode()
        body = b""
        if line.startswith("POST"):
            length = next(part for part in head.lower().split(b"\r\n") if part.startswith(b"content-length"))
            body = await reader.readexactly(int(length.split(b":")[1]))
        if log is not None:
            log.append((line, body))
        told = metadata if line.startswith("GET") else inferred
        writer.write(told if isinstance(told, bytes) else http(json.dumps(told).encode()))
        await writer.drain()

    return handle


def test_the_metadata_is_asked_for_once_and_the_question_carries_the_decisions_id():
    log = []

    async def ask():
        async with asking(policy_server(log=log), "oip") as made:
            return [await made.ask(question(), 5.0) for _ in range(2)]

    first, second = asyncio.run(ask())
    assert first == second
    assert first[:3] == (0.2, 0.8, "1")
    assert [line for line, _ in log] == [
        "GET /v2/models/policy HTTP/1.1",
        "POST /v2/models/policy/infer HTTP/1.1",
        "POST /v2/models/policy/infer HTTP/1.1",
    ]
    body = json.loads(log[1][1])
    assert body["id"] == QUESTION["decision_id"]
    assert body["inputs"] == [
        {"name": "state", "shape": [1, len(QUESTION["state"])], "datatype": "FP64", "data": QUESTION["state"]}
    ]


def test_a_model_that_does_not_fit_is_not_asked():
    log = []
    bad = METADATA | {"inputs": [{"name": "state", "datatype": "FP64", "shape": [1, 3]}]}
    with pytest.raises(NoAnswer) as refused:
        asyncio.run(asked(policy_server(bad, log=log), "oip"))
    assert refused.value.reason == "invalid"
    assert "GET /v2/models/policy: inputs.0.shape: state must be [1," in str(refused.value)
    assert len(log) == 1


def test_after_a_wrong_answer_the_model_is_looked_at_again():
    log = []

    async def ask():
        async with asking(policy_server(inferred=INFERRED | {"id": "another"}, log=log), "oip") as made:
            for _ in range(2):
                with pytest.raises(NoAnswer, match="id: must be POLICY22-0-17-main, was 'another'"):
                    await made.ask(question(), 5.0)

    asyncio.run(ask())
    assert [line.split()[0] for line, _ in log] == ["GET", "POST", "GET", "POST"]


class SlowLink(Link):
    """A way on which each call takes 0.2 s of a clock that is moved by hand."""

    def __init__(self):
        super().__init__("http://nowhere")
        self.now_s, self.timeouts = 0.0, []

    async def call(self, method, path, body, timeout_s):
        self.timeouts.append(timeout_s)
        self.now_s += 0.2
        return Reply(json.dumps(INFERRED if body else METADATA).encode(), f"{method} {path}")


def test_metadata_and_answer_share_one_deadline():
    link = SlowLink()
    asyncio.run(OpenInference(link, "policy", lambda: link.now_s).ask(question(), 0.5))
    assert link.timeouts == pytest.approx([0.5, 0.3])


def test_a_models_name_is_quoted():
    log = []
    name = "a model/2"
    served = policy_server(METADATA | {"name": name}, INFERRED | {"model_name": name}, log)
    asyncio.run(asked(served, "oip", model=name))
    assert log[0][0] == "GET /v2/models/a%20model%2F2 HTTP/1.1"


def test_a_model_is_asked_by_its_own_names():
    log = []
    names = TensorNames(state="INPUT__0", nudge="output__0", confidence="output__1")
    kinds = [{"name": f"output__{k}", "datatype": "FP32", "shape": [-1, 1]} for k in range(2)]
    shape = [-1, len(QUESTION["state"])]
    metadata = METADATA | {
        "inputs": [{"name": "INPUT__0", "datatype": "FP32", "shape": shape}],
        "outputs": kinds,
    }
    values = zip(kinds, (0.1, 0.7), strict=True)
    told = INFERRED | {"outputs": [kind | {"shape": [1, 1], "data": [value]} for kind, value in values]}
    answer = asyncio.run(asked(policy_server(metadata, told, log), "oip", tensors=names))
    assert answer[:2] == (0.1, 0.7)
    body = json.loads(log[1][1])
    assert [each["name"] for each in body["inputs"]] == ["INPUT__0"]
    assert body["outputs"] == [{"name": "output__0"}, {"name": "output__1"}]


# -- in process --------------------------------------------------------------------------------------------------------
def test_the_mock_is_a_function_of_seed_and_question():
    one, other = Mock(1), Mock(2)
    answers = [asyncio.run(one.ask(question(number), 1.0)) for number in range(50)]
    assert answers == [asyncio.run(Mock(1).ask(question(number), 1.0)) for number in range(50)]
    assert answers != [asyncio.run(other.ask(question(number), 1.0)) for number in range(50)]
    assert all(abs(each.nudge) <= 0.3 and 0.5 <= each.confidence <= 1 for each in answers)
    assert len({each.nudge for each in answers}) > 10


def test_nobody_is_asked_without_an_endpoint():
    made = adapter("oip", None)
    assert isinstance(made, Nobody)
    with pytest.raises(NoAnswer, match=r"rl\.endpoint") as refused:
        asyncio.run(made.ask(question(), 1.0))
    assert refused.value.reason == "disabled"
