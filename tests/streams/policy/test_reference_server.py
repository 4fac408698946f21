"""The reference endpoint: well by default, ill in a way of one's choice; and the untrained policy behind it."""

import asyncio
import subprocess
import sys
from contextlib import asynccontextmanager

import aiohttp
import numpy as np
import pytest
from policies import STATE, question

from streams.policy.adapters import adapter
from streams.policy.answer import NoAnswer
from streams.policy.reference_server import WRONGS, Endpoint, Switches, serve
from streams.policy.transformer import Transformer


@asynccontextmanager
async def serving(**given):
    listening = await serve(Endpoint(**given))
    try:
        yield listening
    finally:
        await listening.runner.cleanup()


@asynccontextmanager
async def asking(protocol, **given):
    async with serving(**given) as listening:
        made = adapter(protocol, listening.url + ("/predict" if protocol == "predict" else ""))
        try:
            yield made
        finally:
            await made.close()


async def asked(protocol, timeout_s=5.0, **given):
    async with asking(protocol, **given) as made:
        return await made.ask(question(), timeout_s)


def test_both_protocols_say_the_same():
    inferred, predicted = (asyncio.run(asked(protocol)) for protocol in ("oip", "predict"))
    assert inferred.nudge == pytest.approx(predicted.nudge)
    assert inferred[1:5] == predicted[1:5]
    assert inferred.model_version == "untrained-0"
    assert inferred[:2] == Transformer(0).opinion(STATE)[:2]


@pytest.mark.parametrize("protocol", ["oip", "predict"])
@pytest.mark.parametrize("wrong", WRONGS)
def test_every_wrong_answer_is_no_answer(protocol, wrong):
    with pytest.raises(NoAnswer) as refused:
        asyncio.run(asked(protocol, switches=Switches(wrong=wrong)))
    assert refused.value.reason == ("refused" if wrong in {"redirect", "status"} else "invalid")


def test_a_slow_one_is_late_and_a_dead_one_breaks_the_connection():
    with pytest.raises(NoAnswer) as slow:
        asyncio.run(asked("predict", timeout_s=0.2, switches=Switches(slow_s=5.0)))
    with pytest.raises(NoAnswer) as dead:
        asyncio.run(asked("predict", switches=Switches(dead=True)))
    assert (slow.value.reason, dead.value.reason) == ("timeout", "refused")


def test_the_error_rate_is_drawn_by_the_seed():
    async def outcomes(seed):
        found = []
        async with asking("predict", seed=seed, switches=Switches(error_rate=0.3)) as made:
            for number in range(100):
                try:
                    await made.ask(question(number), 5.0)
                    found.append(True)
                except NoAnswer as error:
                    found.append(error.reason)
        return found

    first = asyncio.run(outcomes(1))
    assert first == asyncio.run(outcomes(1))
    assert first != asyncio.run(outcomes(2))
    assert 15 < first.count("refused") < 45


def test_one_protocol_can_be_left_out():
    async def statuses(protocol):
        async with serving(protocol=protocol) as listening, aiohttp.ClientSession() as session:
            inferred = await session.get(f"{listening.url}/v2/models/policy")
            predicted = await session.post(f"{listening.url}/predict", data=b"{}")
            return inferred.status, predicted.status

    assert asyncio.run(statuses("both")) == (200, 400)
    assert asyncio.run(statuses("oip")) == (200, 404)
    assert asyncio.run(statuses("predict")) == (404, 400)


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"id": "x", "inputs": [{"name": "state", "shape": [1, 3], "datatype": "FP64", "data": [1, 2, 3]}]}, 400),
        ({"id": "x", "inputs": [{"name": "mask", "shape": [1, 23], "datatype": "FP64", "data": STATE}]}, 400),
        ({"id": "x", "inputs": [{"name": "state", "shape": [1, len(STATE)], "datatype": "FP64", "data": ["a"]}]}, 400),
        ({"id": "x"}, 400),
        ({"id": "x", "inputs": [{"name": "state", "shape": [1, len(STATE)], "datatype": "FP64", "data": STATE}]}, 200),
        (
            {"id": "x", "inputs": [{"name": "state", "shape": [1, len(STATE)], "datatype": "FP64", "data": [STATE]}]},
            200,
        ),
    ],
)
def test_a_question_that_is_none_is_refused(body, status):
    async def ask():
        async with serving() as listening, aiohttp.ClientSession() as session:
            found = await session.post(f"{listening.url}/v2/models/policy/infer", json=body)
            unknown = await session.post(f"{listening.url}/v2/models/another/infer", json=body)
            return found.status, unknown.status, sorted(await found.json())

    found, unknown, keys = asyncio.run(ask())
    assert (found, unknown) == (status, 404)
    assert keys == (["error"] if status == 400 else ["id", "model_name", "model_version", "outputs"])


def test_the_missions_own_question_is_enough():
    body = {"symbol": "BTC", "action": "sell", "confidence": 0.8, "risk_score": 0.2, "regime": "ranging"}

    async def ask():
        async with serving() as listening, aiohttp.ClientSession() as session:
            reply = await session.post(f"{listening.url}/predict", json=body)
            return reply.status, await reply.json()

    status, told = asyncio.run(ask())
    assert status == 200
    assert -1 <= told["position_pct"] <= 1
    assert told["model_version"].startswith("untrained")


# -- the policy itself -------------------------------------------------------------------------------------------------
def slow_opinion(policy, state):
    """The same network, a token and a head at a time, in plain loops over vectors."""
    tokens = [policy._class_token[0]]
    for number, value in enumerate(state):
        tokens.append(np.tanh(value) * policy._direction[number] + policy._embedding[number])
    for layer in policy._layers:
        normed = [norm(token) for token in tokens]
        mixed = [np.concatenate([head(normed, token, layer, h) for h in range(4)]) @ layer.out for token in normed]
        tokens = [token + more for token, more in zip(tokens, mixed, strict=True)]
        tokens = [token + gelu(norm(token) @ layer.up) @ layer.down for token in tokens]
    return norm(tokens[0]) @ policy._answers


def norm(token):
    return (token - token.mean()) / np.sqrt(token.var() + 1e-6)


def gelu(x):
    return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


def head(normed, token, layer, number):
    part = slice(8 * number, 8 * number + 8)
    scores = np.array([(token @ layer.query)[part] @ (other @ layer.key)[part] for other in normed]) / np.sqrt(8)
    weights = np.exp(scores) / np.exp(scores).sum()
    return sum(weight * (other @ layer.value)[part] for weight, other in zip(weights, normed, strict=True))


def test_the_transformer_is_the_network_that_it_says_it_is():
    policy = Transformer(3)
    state = list(np.linspace(-2, 2, len(STATE)))
    nudge, sure, mean, wide = slow_opinion(policy, state)
    assert policy.opinion(state) == pytest.approx(
        (
            0.3 * np.tanh(nudge),
            0.5 + 0.5 / (1 + np.exp(-sure)),
            0.01 * np.tanh(mean),
            0.01 + 0.01 / (1 + np.exp(-wide)),
        ),
        abs=2e-6,
    )


def test_the_transformer_depends_on_the_state_and_on_the_seed():
    low, high = [0.1] * len(STATE), [0.9] * len(STATE)
    assert Transformer(0).opinion(low) != Transformer(0).opinion(high)
    assert Transformer(0).opinion(low) != Transformer(1).opinion(low)


def test_the_transformer_says_the_same_in_another_process_with_another_blas_kernel():
    script = f"from streams.policy.transformer import Transformer; print(Transformer(0).opinion({STATE}))"
    env = {"OPENBLAS_CORETYPE": "Sandybridge", "PYTHONHASHSEED": "7"}
    told = subprocess.run([sys.executable, "-c", script], env=env, capture_output=True, text=True, check=True)
    assert told.stdout.strip() == str(Transformer(0).opinion(STATE))


def test_extreme_states_have_finite_answers():
    for value in (-1e6, 1e6, 0.0):
        opinion = Transformer(0).opinion([value] * len(STATE))
        assert abs(opinion.nudge) <= 0.3
        assert 0.5 <= opinion.confidence <= 1.0
        assert opinion.predicted_volatility >= 0.01
