"""The side agent: so many at once, each question once, and whatever happens is journaled with a reason."""

import asyncio
import json

import orjson
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from policies import GOOD, ILL, NOW, QUESTION, heard, http, listening, question, says_json

from engines.models.circuit_breaker import BreakerParams
from schemas.rl import Advice, NoAdvice
from streams.monitoring.metrics import Metrics
from streams.monitoring.policy import PolicyMetrics
from streams.policy.adapters import Mock, Nobody, adapter
from streams.policy.agent import WAITING_MAX, SideAgent, entry_of
from streams.policy.answer import Answer, NoAnswer
from streams.policy.client import PolicyClient, no_advice
from streams.processing.partitioner import partition_of

SECOND_NS = 1_000_000_000
ANSWER = Answer(0.1, 0.8, "m-1", None, None, "{}")


class Times:
    """Journal time and the breaker's, moved by hand."""

    def __init__(self):
        self.now_ns = NOW
        self.mono_ns = 0

    def pass_(self, seconds):
        self.now_ns += int(seconds * SECOND_NS)
        self.mono_ns += int(seconds * SECOND_NS)


class Script:
    """A policy in process that answers when it is told to."""

    def __init__(self, result=ANSWER):
        self.result = result
        self.asked, self.closed = [], 0
        self.now, self.most = 0, 0
        self.gate = asyncio.Event()
        self.gate.set()

    async def ask(self, request, timeout_s):
        self.asked.append((request.decision_id, timeout_s))
        self.now += 1
        self.most = max(self.most, self.now)
        try:
            await self.gate.wait()
        finally:
            self.now -= 1
        if isinstance(self.result, BaseException):
            raise self.result
        return self.result

    async def check(self, timeout_s):
        pass

    async def close(self):
        self.closed += 1


def desk(policy, times=None, *, timeout_s=5.0, **breaker):
    times = times or Times()
    return PolicyClient(
        policy,
        timeout_s=timeout_s,
        params=BreakerParams(**breaker),
        clock=lambda: times.now_ns,
        breaker_clock=lambda: times.mono_ns,
    )


class Bench:
    """An agent whose entries are kept."""

    def __init__(self, policy, times=None, *, max_in_flight=8, partitions=2, watcher=None, **given):
        self.times = times or Times()
        self.sends = []
        self.batches = 0
        self.agent = SideAgent(
            desk(policy, self.times, **given),
            max_in_flight=max_in_flight,
            partitions=partitions,
            clock=lambda: self.times.now_ns,
            send=self._keep,
            watcher=watcher,
        )
        self._writing = asyncio.ensure_future(self.agent.run())

    async def _keep(self, sends):
        self.batches += 1
        self.sends += sends

    def take(self, *requests):
        self.agent.take([orjson.dumps(each.model_dump()) for each in requests])

    async def settle(self):
        """Let everything go as far as it can."""
        while self.agent.in_flight or self.agent.waiting:
            await asyncio.sleep(0)
        await asyncio.sleep(0)
        await asyncio.sleep(0)

    async def stop(self):
        self._writing.cancel()
        await asyncio.gather(self._writing, return_exceptions=True)
        await self.agent.stop()

    @property
    def entries(self):
        return [(each["kind"], json.loads(each["value"])) for each in map(orjson.loads, (s.value for s in self.sends))]

    @property
    def reasons(self):
        return [body.get("reason", kind) for kind, body in self.entries]


# -- one question ------------------------------------------------------------------------------------------------------
def test_an_answer_is_journaled_on_its_portfolios_partition_with_its_question():
    async def story():
        bench = Bench(Script(), partitions=7)
        bench.take(question(), question(18, portfolio_id="second"))
        await bench.settle()
        await bench.stop()
        return bench

    bench = asyncio.run(story())
    (kind, body), (_, other) = bench.entries
    assert kind == "advice"
    named = ("decision_id", "portfolio_id", "strategy_id", "symbol")
    assert {name: body[name] for name in named} == {name: QUESTION[name] for name in named}
    assert (body["nudge"], body["confidence"], body["model_version"], body["raw"]) == (0.1, 0.8, "m-1", "{}")
    assert other["portfolio_id"] == "second"
    assert [send.partition for send in bench.sends] == [partition_of(b"main", 7), partition_of(b"second", 7)]
    entry = orjson.loads(bench.sends[0].value)
    assert entry["source"] is None
    assert entry["journaled_at_ns"] == NOW
    Advice(**body)


def test_without_an_endpoint_the_reason_is_disabled_and_the_breaker_is_not_asked():
    async def story():
        bench = Bench(Nobody())
        bench.take(question())
        await bench.settle()
        await bench.stop()
        return bench.entries, bench.agent.desk.breaker.status

    ((kind, body),), status = asyncio.run(story())
    assert (kind, body["reason"], status) == ("no_advice", "disabled", "closed")
    assert body["detail"] == "rl.endpoint: must be a URL, was null"
    NoAdvice(**body)


def test_nobody_is_asked_even_where_the_breaker_would_let_nobody_ask():
    """Without an endpoint there is nothing to break: no ticket is taken, and nothing counts as a failure."""
    nobody = desk(Nobody(), failure_threshold=1, mode="force_open")
    outcome = asyncio.run(nobody.answer(question()))
    assert (outcome.result.reason, outcome.asked) == ("disabled", False)
    assert nobody.breaker.failures_ns == ()


def test_a_question_past_its_deadline_is_late_and_not_asked():
    async def story():
        policy = Script()
        bench = Bench(policy)
        bench.times.pass_(5.0)
        bench.take(question())
        await bench.settle()
        await bench.stop()
        return bench.reasons, policy.asked

    assert asyncio.run(story()) == (["late"], [])


def test_an_answer_past_the_deadline_is_late_though_the_endpoint_did_well():
    async def story():
        policy = Script()
        policy.gate.clear()
        bench = Bench(policy)
        bench.take(question())
        await asyncio.sleep(0)
        bench.times.pass_(6.0)
        policy.gate.set()
        await bench.settle()
        await bench.stop()
        return bench.entries, bench.agent.desk.breaker

    ((_, body),), breaker = asyncio.run(story())
    assert body["reason"] == "late"
    assert body["detail"] == "answered 1.000 s past the deadline"
    assert breaker.status == "closed"


@pytest.mark.parametrize(("left_s", "timeout_s", "patience_s"), [(5.0, 2.0, 2.0), (1.5, 2.0, 1.5), (5.0, 9.0, 5.0)])
def test_patience_ends_at_the_timeout_or_the_deadline(left_s, timeout_s, patience_s):
    async def story():
        policy = Script()
        bench = Bench(policy, timeout_s=timeout_s)
        bench.take(question(deadline_ns=NOW + int(left_s * SECOND_NS)))
        await bench.settle()
        await bench.stop()
        return policy.asked[0][1]

    assert asyncio.run(story()) == pytest.approx(patience_s)


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (NoAnswer("timeout", "x"), "timeout"),
        (NoAnswer("refused", "x"), "refused"),
        (NoAnswer("invalid", "x" * 2000), "invalid"),
        (RuntimeError("a fault of the adapter"), "refused"),
    ],
)
def test_whatever_goes_wrong_is_a_reason_and_a_failure(error, reason):
    async def story():
        bench = Bench(Script(error), failure_threshold=1)
        bench.take(question())
        await bench.settle()
        await bench.stop()
        return bench.entries[0][1], bench.agent.desk.breaker.status

    body, status = asyncio.run(story())
    assert body["reason"] == reason
    assert body["detail"]
    NoAdvice(**body)
    assert status == "open"


# -- many questions ----------------------------------------------------------------------------------------------------
def test_a_hundred_and_more_are_in_flight_and_no_more_than_allowed():
    async def story():
        policy = Script()
        policy.gate.clear()
        bench = Bench(policy, max_in_flight=128)
        bench.take(*map(question, range(500)))
        for _ in range(5):
            await asyncio.sleep(0)
        held = policy.now, bench.agent.waiting, list(bench.sends)
        policy.gate.set()
        await bench.settle()
        await bench.stop()
        return held, policy.most, bench.reasons

    held, most, reasons = asyncio.run(story())
    assert held == (128, 372, [])
    assert most == 128
    assert reasons == ["advice"] * 500


@settings(max_examples=25)
@given(
    st.integers(1, 5),
    st.lists(st.sampled_from(["take", "again", "open", "shut", "wider", "narrower"]), max_size=20),
)
@example(2, ["shut", "take", "take", "narrower", "open"])
def test_the_bound_holds_and_every_question_is_answered_once_whatever_happens(bound, events):
    async def story():
        policy = Script()
        bench = Bench(policy, max_in_flight=bound)
        asked = under_way = 0
        allowed = bound
        for event in events:
            if event == "take":
                bench.take(question(asked))
                asked += 1
            elif event == "again" and asked:
                bench.take(question(asked - 1), question(asked // 2))
            elif event in {"open", "shut"}:
                (policy.gate.set if event == "open" else policy.gate.clear)()
            elif event in {"wider", "narrower"}:
                allowed = 6 if event == "wider" else 1
                under_way = len(bench.agent._asking)  # begun under the bound before, whether or not it has arrived
                bench.agent.replace(bench.agent.desk, allowed)
                policy.most = policy.now
            await asyncio.sleep(0)
            assert policy.most <= max(allowed, under_way, policy.now)
        policy.gate.set()
        await bench.settle()
        await bench.stop()
        return asked, [body["decision_id"] for _, body in bench.entries]

    asked, answered = asyncio.run(story())
    assert sorted(answered) == sorted(f"POLICY22-0-{number}-main" for number in range(asked))


def test_what_waits_too_long_in_line_is_late():
    async def story():
        policy = Script()
        policy.gate.clear()
        bench = Bench(policy, max_in_flight=1)
        bench.take(question(1), question(2, deadline_ns=NOW + SECOND_NS))
        await asyncio.sleep(0)
        bench.times.pass_(2.0)
        policy.gate.set()
        await bench.settle()
        await bench.stop()
        return bench.reasons

    assert asyncio.run(story()) == ["advice", "late"]


def test_taking_never_waits_and_what_overflows_is_refused():
    async def story():
        policy = Script()
        policy.gate.clear()
        bench = Bench(policy, max_in_flight=1)
        raw = [orjson.dumps(question(number).model_dump()) for number in range(WAITING_MAX + 3)]
        bench.agent.take(raw)
        held = bench.agent.in_flight, bench.agent.waiting
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        refused = bench.entries
        await bench.stop()
        return held, refused

    (in_flight, waiting), refused = asyncio.run(story())
    assert (in_flight, waiting) == (1, WAITING_MAX - 1)
    assert [body["reason"] for _, body in refused] == ["refused"] * 3
    assert "questions are queued" in refused[0][1]["detail"]


def test_a_question_that_comes_again_is_not_asked_again_but_another_cell_is():
    async def story():
        policy = Script()
        watched = Metrics()
        bench = Bench(policy, watcher=PolicyMetrics(watched))
        bench.take(question(1), question(1))
        await bench.settle()
        bench.take(question(1), question(1, symbol="ETH-USD"), question(1, strategy_id="carry"))
        await bench.settle()
        await bench.stop()
        return len(policy.asked), len(bench.sends), watched.counts["rl_repeated_requests_total"][()]

    assert asyncio.run(story()) == (3, 3, 2)


def test_a_record_that_is_no_question_is_passed_over(caplog):
    async def story():
        bench = Bench(Script())
        bench.agent.take([b"{", None, b'{"decision_id": 7}', orjson.dumps(question().model_dump())])
        await bench.settle()
        await bench.stop()
        return bench.reasons

    assert asyncio.run(story()) == ["advice"]
    assert len([record for record in caplog.records if "invalid policy request skipped" in record.getMessage()]) == 3


def test_answers_are_written_many_at_once():
    async def story():
        bench = Bench(Script(), max_in_flight=100)
        bench.take(*map(question, range(100)))
        await bench.settle()
        await bench.stop()
        return bench.batches, len(bench.sends)

    batches, sends = asyncio.run(story())
    assert sends == 100
    assert batches < 10


def test_what_cannot_be_written_ends_the_writing_loudly():
    async def story():
        async def fail(_sends):
            raise ConnectionError("no broker")

        agent = SideAgent(desk(Script()), max_in_flight=1, partitions=1, clock=lambda: NOW, send=fail)
        agent.take([orjson.dumps(question().model_dump())])
        with pytest.raises(ConnectionError):
            await agent.run()
        await agent.stop()

    asyncio.run(story())


# -- stopping and changing ---------------------------------------------------------------------------------------------
def test_it_stops_at_once_whatever_is_being_asked():
    async def story():
        policy = Script()
        policy.gate.clear()
        bench = Bench(policy, max_in_flight=100)
        bench.take(*map(question, range(200)))
        await asyncio.sleep(0)
        await bench.stop()
        return policy.now, policy.closed, bench.sends, bench.agent.in_flight, bench.agent.waiting

    assert asyncio.run(story()) == (0, 1, [], 0, 0)


def test_another_desk_takes_over_and_the_old_one_finishes_what_it_was_asked():
    async def story():
        old, new = Script(), Script(ANSWER._replace(model_version="m-2"))
        old.gate.clear()
        bench = Bench(old, max_in_flight=2)
        bench.take(*map(question, range(3)))
        await asyncio.sleep(0)
        bench.agent.replace(desk(new, bench.times), 4)
        bench.take(question(3))
        for _ in range(5):
            await asyncio.sleep(0)
        early = [body["model_version"] for _, body in bench.entries], old.closed
        old.gate.set()
        await bench.settle()
        await bench.stop()
        return early, [body["model_version"] for _, body in bench.entries], len(old.asked), old.closed, new.closed

    early, versions, asked, closed, new_closed = asyncio.run(story())
    assert early == (["m-2", "m-2"], 0), "those that waited go to the new one, and the old one is not closed yet"
    assert sorted(versions) == ["m-1", "m-1", "m-2", "m-2"]
    assert (asked, closed, new_closed) == (2, 1, 1)


# -- behind the breaker ------------------------------------------------------------------------------------------------
def test_after_five_failures_nobody_is_asked_until_exactly_one_probe_of_a_hundred():
    """30 s, 60, 120, 240, 300, 300: each time one of a hundred questions goes through, in moved time."""

    async def story():
        times, policy = Times(), Script(NoAnswer("refused", "x"))
        bench = Bench(policy, times, max_in_flight=200)
        number = 0

        async def hundred():
            nonlocal number
            before = len(policy.asked)
            policy.gate.clear()
            for _ in range(100):
                bench.take(question(number, deadline_ns=times.now_ns + 5 * SECOND_NS))
                number += 1
            for _ in range(3):
                await asyncio.sleep(0)
            policy.gate.set()
            await bench.settle()
            return len(policy.asked) - before

        for _ in range(5):
            bench.take(question(number))
            number += 1
            await bench.settle()
        found = [(bench.agent.desk.breaker.status, await hundred())]
        for pause_s in (30.0, 60.0, 120.0, 240.0, 300.0, 300.0):
            times.pass_(pause_s - 0.001)
            early = await hundred()
            times.pass_(0.001)
            found.append((early, await hundred()))
        policy.result = ANSWER
        times.pass_(300.0)
        found.append((await hundred(), bench.agent.desk.breaker.status, await hundred()))
        await bench.stop()
        return found

    found = asyncio.run(story())
    assert found[0] == ("open", 0)
    assert found[1:7] == [(0, 1)] * 6
    assert found[7] == (1, "closed", 100)


def test_a_probe_that_is_broken_off_fails():
    async def story():
        times, policy = Times(), Script(NoAnswer("refused", "x"))
        tried = desk(policy, times, failure_threshold=1)
        await tried.answer(question())
        times.mono_ns += 30 * SECOND_NS
        policy.gate.clear()
        probe = asyncio.ensure_future(tried.answer(question(2)))
        await asyncio.sleep(0)
        half_open = tried.breaker.status
        probe.cancel()
        await asyncio.gather(probe, return_exceptions=True)
        refused = await tried.answer(question(3))
        return half_open, tried.breaker.status, refused.result.reason

    assert asyncio.run(story()) == ("half_open", "open", "open")


def test_a_slow_endpoint_that_is_awaited_longer_than_a_probe_usually_is_still_closes_the_breaker():
    """`probe_timeout_sec` is 10: with a timeout of 20 s an answer after 15 would come too late at every probe."""

    async def story():
        times, policy = Times(), Script(NoAnswer("refused", "x"))
        tried = desk(policy, times, timeout_s=20.0, failure_threshold=1)
        await tried.answer(question())
        times.mono_ns += 30 * SECOND_NS
        policy.result = ANSWER
        policy.gate.clear()
        probe = asyncio.ensure_future(tried.answer(question(2, deadline_ns=NOW + 60 * SECOND_NS)))
        await asyncio.sleep(0)
        times.pass_(15.0)
        policy.gate.set()
        return type((await probe).result), tried.breaker.status

    assert asyncio.run(story()) == (Advice, "closed")


def test_each_turn_of_the_breaker_is_told_once():
    turns = []

    async def story():
        times, policy = Times(), Script(NoAnswer("refused", "x"))
        tried = PolicyClient(
            policy,
            timeout_s=1.0,
            params=BreakerParams(failure_threshold=2),
            clock=lambda: times.now_ns,
            breaker_clock=lambda: times.mono_ns,
            observe=lambda before, after: turns.append((before.status, after.status)),
        )
        for number in range(6):
            await tried.answer(question(number))
        times.mono_ns += 30 * SECOND_NS
        policy.result = ANSWER
        await tried.answer(question(9))

    asyncio.run(story())
    assert turns == [("closed", "open"), ("open", "half_open"), ("half_open", "closed")]


# -- the whole way, to servers on loopback -----------------------------------------------------------------------------
TOLD = {"timeout", "refused", "invalid"}


@pytest.mark.parametrize("fault", ILL)
def test_five_questions_to_an_ill_endpoint_open_the_breaker_and_a_well_one_closes_it(fault):
    """What each fault does: five reasons in the journal, then `open`; after 30 s one probe; then answers again."""
    handle, reason, _ = ILL[fault]
    health = {"ill": True}

    async def either(reader, writer):
        await (handle if health["ill"] else says_json(GOOD))(reader, writer)

    async def story():
        times = Times()
        async with listening(either) as url:
            bench = Bench(adapter("predict", url), times, timeout_s=0.3 if reason == "timeout" else 5.0)
            bench.take(*map(question, range(5)))
            await bench.settle()
            first, bench.sends = bench.reasons, []
            bench.take(question(6))
            await bench.settle()
            second, bench.sends = bench.reasons, []
            health["ill"] = False
            times.mono_ns += 30 * SECOND_NS
            bench.take(question(7))
            await bench.settle()
            bench.take(question(8))
            await bench.settle()
            await bench.stop()
            return first, second, bench.reasons, bench.agent.desk.breaker.status

    first, second, third, status = asyncio.run(story())
    assert first == [reason] * 5
    assert second == ["open"]
    assert third == ["advice", "advice"]
    assert status == "closed"


def test_a_hundred_questions_are_with_a_real_server_at_once():
    together = asyncio.Event()
    here = 0

    async def handle(reader, writer):
        nonlocal here
        await heard(reader)
        here += 1
        if here == 100:
            together.set()
        await together.wait()
        writer.write(http(json.dumps(GOOD).encode()))
        await writer.drain()

    async def story():
        async with listening(handle) as url:
            bench = Bench(adapter("predict", url), max_in_flight=100, timeout_s=20.0)
            bench.take(*(question(number, deadline_ns=NOW + 60 * SECOND_NS) for number in range(100)))
            await bench.settle()
            await bench.stop()
            return bench.reasons

    assert asyncio.run(story()) == ["advice"] * 100, "each of them waited for all the others"


# -- metrics -----------------------------------------------------------------------------------------------------------
def test_what_the_agent_does_is_counted():
    async def story():
        metrics = Metrics()
        watcher = PolicyMetrics(metrics)
        policy = Script()
        bench = Bench(policy, watcher=watcher, failure_threshold=2)
        watcher.watch(bench.agent.desk)
        bench.take(question(1))
        await bench.settle()
        policy.result = NoAnswer("timeout", "x")
        for number in range(2, 6):
            bench.take(question(number))
            await bench.settle()
        await bench.stop()
        list(metrics.collect())
        return metrics

    metrics = asyncio.run(story())
    counts = metrics.counts
    assert counts["rl_requests_total"]["advice",] == 1
    assert counts["rl_requests_total"]["timeout",] == 2
    assert counts["rl_requests_total"]["open",] == 2
    assert counts["circuit_breaker_failures_total"][()] == 2
    assert counts["circuit_breaker_fallbacks_total"][()] == 4
    assert counts["circuit_breaker_success_ratio"][()] == pytest.approx(1 / 3)
    assert counts["circuit_breaker_state"][()] == 2.0
    assert counts["circuit_breaker_timeout_seconds"][()] == 30.0
    assert counts["rl_in_flight"][()] == counts["rl_waiting"][()] == 0
    assert sum(metrics.histograms["rl_latency_seconds"][()].counts) == 3


def test_the_mock_needs_no_loop():
    step = desk(Mock(3)).answer(question())
    with pytest.raises(StopIteration) as end:
        step.send(None)
    assert isinstance(end.value.value.result, Advice)


def test_an_entry_is_what_sizing_reads():
    body = no_advice(question(), "late", "x" * 600)
    send = entry_of(body, NOW, 4)
    entry = orjson.loads(send.value)
    assert entry["kind"] == "no_advice"
    assert NoAdvice(**json.loads(entry["value"])) == body
    assert len(body.detail) == 512
