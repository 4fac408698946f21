"""Adapters against real HTTP servers on loopback: each fault has its reason, and nothing follows from it."""

import asyncio
import json
import socket
from contextlib import asynccontextmanager

import pytest
from policies import GOOD, ILL, INFERRED, METADATA, QUESTION, heard, http, listening, question, says, says_json

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
