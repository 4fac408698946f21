"""The library's hybrid: the rules' allocation stands whatever the policy does, and an answer that counts nudges it."""

import asyncio
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import orjson
import pytest
from aiohttp import web
from worlds import PRICES, START_NS, signal

from engines.models.policy_gate import Gate
from schemas.allocation import Allocation
from schemas.errors import ConfigurationException, InvalidPriceException
from streams.library import Layer3Phase2Portfolio, Layer3Phase3Hybrid

OPEN = Gate(status="open", windows=40, lower=0.1, difference_square_sum=0.01)
ANSWER = {
    "position_pct": 0.05,
    "confidence": 1.0,
    "predicted_return": 0.01,
    "predicted_volatility": 0.02,
    "model_version": "served",
}


def layer3(gate=OPEN, **given_):
    found = Layer3Phase3Hybrid(**{"enable_metrics": False, "enable_rl": True, "rl_mode": "live", **given_})
    if gate is not None:
        found._core.state.gates.put(("main",), gate)
    return found


def ask(number=0, **given_):
    now_ns = START_NS + number * 1_000_000_000
    return signal(now_ns, **{"signal_id": f"s-{number}", "expected_return": 0.01, **given_})


@contextmanager
def served(answer) -> Iterator[str]:
    """Serve the mission's endpoint on a thread of its own; yield its URL. `answer` is a coroutine of the question."""
    loop, ready, places = asyncio.new_event_loop(), threading.Event(), []

    async def handle(request):
        return await answer(await request.json())

    async def begin():
        application = web.Application()
        application.router.add_post("/predict", handle)
        runner = web.AppRunner(application, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        places.append(runner.addresses[0][1])
        ready.set()
        return runner

    def run():
        asyncio.set_event_loop(loop)
        runner = loop.run_until_complete(begin())
        loop.run_forever()
        loop.run_until_complete(runner.cleanup())
        loop.close()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    ready.wait(10)
    try:
        yield f"http://127.0.0.1:{places[0]}/predict"
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)


async def good(_question):
    return web.json_response(ANSWER)


# -- the three options of the mission --------------------------------------------------------------------------------
def test_without_rl_it_is_the_portfolio_to_the_byte():
    signals, prices = [ask(), ask(strategy_id="carry", symbol="ETH-USD", signal_id="e")], PRICES
    plain = Layer3Phase2Portfolio(enable_metrics=False).process_multi_strategy_signals(signals, None, prices)
    hybrid = Layer3Phase3Hybrid(enable_rl=False, enable_metrics=False).process_signals(signals, None, prices)
    assert hybrid.value == plain.value


def test_the_mock_answers_in_process_and_the_same_each_time():
    def play():
        with layer3(use_mock_rl=True) as library:
            return [library.process_signals([ask(number)], None, PRICES).value for number in range(8)]

    values = play()
    assert play() == values
    kinds = [orjson.loads(value)["trigger"]["kind"] for value in values]
    assert set(kinds) == {"advice"}
    for value in values:
        assert Allocation.model_validate_json(value).final


def test_shadow_is_the_default_and_changes_nothing():
    signals = [ask(number) for number in range(5)]
    with layer3(rl_mode=None, use_mock_rl=True) as shadow, layer3(enable_rl=False) as off:
        for each in signals:
            asked = shadow.process_signals([each], None, PRICES)
            assert asked.allocations == off.process_signals([each], None, PRICES).allocations
            assert asked.rl["mode"] == "shadow"
            assert asked.trigger["kind"] == "signal"


def test_a_real_endpoint_nudges_the_size():
    with served(good) as url, layer3(rl_endpoint=url) as library, layer3(enable_rl=False) as rules:
        base = rules.process_signals([ask()], None, PRICES).allocations["BTC-USD"]
        found = library.process_signals([ask()], None, PRICES)
        nudge = 0.05 / (base / 100_000.0) - 1.0
        assert 0.2 < nudge < 0.3
        assert found.allocations["BTC-USD"] == pytest.approx(base * (1.0 + nudge), abs=0.05)
        assert found.rl["cells"][0]["model_version"] == "served"
        assert found.revises is not None


async def slow(_question):
    await asyncio.sleep(30)
    return web.json_response(ANSWER)


async def broken(_question):
    return web.Response(status=500)


async def nonsense(_question):
    return web.json_response({**ANSWER, "position_pct": 4.0})


@pytest.mark.parametrize(("answer", "status"), [(slow, "timeout"), (broken, "refused"), (nonsense, "invalid")])
def test_whatever_the_endpoint_does_the_rules_stand_and_the_reason_is_told(answer, status):
    with served(answer) as url, layer3(rl_endpoint=url, rl_timeout_sec=0.2) as library, layer3(enable_rl=False) as off:
        found = library.process_signals([ask()], None, PRICES)
        assert found.allocations == pytest.approx(off.process_signals([ask()], None, PRICES).allocations, abs=0.011)
        assert found.rl["cells"][0]["status"] == status
        assert found.final is True


def test_five_failures_open_the_breaker_and_the_endpoint_is_left_alone():
    asked = []

    async def count(question):
        asked.append(question["symbol"])
        return web.Response(status=500)

    with served(count) as url, layer3(rl_endpoint=url) as library:
        for number in range(8):
            found = library.process_signals([ask(number)], None, PRICES)
        assert len(asked) == 5
        assert found.rl["cells"][0]["status"] == "breaker_open"
        assert library.get_performance_comparison()["breaker"] == "open"


# -- sync and async --------------------------------------------------------------------------------------------------
def test_other_tasks_go_on_while_the_policy_is_asked_and_several_questions_wait_together():
    asked_at = []

    async def after_a_while(_question):
        asked_at.append(time.monotonic())
        await asyncio.sleep(0.3)
        return web.json_response(ANSWER)

    signals = [ask(), ask(symbol="ETH-USD", signal_id="e"), ask(symbol="SOL-USD", signal_id="s")]

    async def both(library):
        beats = 0
        found = asyncio.ensure_future(library.process_signals_async(signals, None, PRICES))
        while not found.done():
            beats += 1
            await asyncio.sleep(0.01)
        return beats, await found

    with served(after_a_while) as url, layer3(rl_endpoint=url) as library:
        beats, found = asyncio.run(both(library))
        again = library.process_signals([ask(9)], None, PRICES)
    assert beats > 5
    assert max(asked_at[:3]) - min(asked_at[:3]) < 0.3
    assert {cell["status"] for cell in found.rl["cells"]} == {"counted"}
    assert found.final is True
    assert again.sequence > found.sequence


def test_stop_gives_up_at_once_what_is_being_asked():
    with served(slow) as url:
        library = layer3(rl_endpoint=url, rl_timeout_sec=20.0)
        failed = []

        def call():
            try:
                library.process_signals([ask()], None, PRICES)
            except BaseException as error:  # noqa: BLE001 whatever it is, the call is over
                failed.append(type(error).__name__)

        caller = threading.Thread(target=call)
        caller.start()
        while not library._own._loop.is_running() or not asyncio.all_tasks(library._own._loop):
            time.sleep(0.01)
        time.sleep(0.1)
        began = time.monotonic()
        library.stop()
        caller.join(5)
        assert not caller.is_alive()
        assert time.monotonic() - began < 2
        assert failed == ["CancelledError"]
        library.stop()


# -- modes, evidence, bad input --------------------------------------------------------------------------------------
def test_an_order_takes_the_policys_hand_off():
    with layer3(use_mock_rl=True) as library, layer3(enable_rl=False) as rules:
        library.process_signals([ask()], None, PRICES)
        library.set_rl_mode("off", "enough")
        found = library.process_signals([ask(1)], None, PRICES)
        rules.process_signals([ask()], None, PRICES)
        assert found.rl["mode"] == "off"
        assert found.allocations == pytest.approx(rules.process_signals([ask(1)], None, PRICES).allocations, abs=0.02)


def test_the_comparison_counts_what_was_scored():
    with layer3(None, use_mock_rl=True, rl_mode="shadow") as library:
        for number in range(4):
            library.process_signals([ask(10 * number)], None, PRICES)
            library.record_outcome(
                {
                    "strategy_id": "momentum",
                    "symbol": "BTC-USD",
                    "signal_id": f"s-{10 * number}",
                    "side": 1,
                    "realized_return": 0.01,
                    "holding_s": 1.0,
                    "timestamp_ns": START_NS + (10 * number + 5) * 1_000_000_000,
                }
            )
        found = library.get_performance_comparison()
        assert (found["decisions"], found["windows"], found["status"], found["breaker"]) == (
            4,
            0,
            "collecting",
            "closed",
        )
        assert found["lower"] <= found["advantage"] <= found["upper"]
        assert Layer3Phase2Portfolio(enable_metrics=False).get_performance_comparison()["decisions"] == 0


def test_bad_input_takes_nothing_and_asks_nobody():
    asked = []

    async def count(question):
        asked.append(question)
        return web.json_response(ANSWER)

    with served(count) as url, layer3(rl_endpoint=url) as library:
        with pytest.raises(InvalidPriceException, match="price of BTC-USD must be a positive finite number"):
            library.process_signals([ask()], None, {"BTC-USD": float("nan")})
        assert asked == []
    with pytest.raises(ConfigurationException, match="endpoint"):
        layer3(rl_endpoint="ftp://nowhere")
