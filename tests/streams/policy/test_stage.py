"""The policy stage in the topology, on the Driver: questions out, answers in, and decisions that stand."""

import asyncio

import orjson
import pytest
from worlds import TRUSTING, Driver, asked, priced, signal

from engines.parameters import RlParams
from streams.audits import verify
from streams.policy.adapters import Mock, Nobody
from streams.policy.answer import Answer, NoAnswer

ON = TRUSTING.model_copy(update={"rl": RlParams(enabled=True)})


class Fails:
    """A policy in process that has one answer, or none."""

    def __init__(self, result):
        self.result, self.count = result, 0

    async def ask(self, _request, _timeout_s):
        self.count += 1
        if isinstance(self.result, NoAnswer):
            raise self.result
        return self.result

    async def check(self, timeout_s):
        pass

    async def close(self):
        pass


def story(driver, signals=8, first=0):
    priced(driver)
    for number in range(first, first + signals):
        fields = signal(driver.now_ns, signal_id=f"s-{number}", expected_return=0.004 + 0.001 * (number % 3))
        driver.publish("signals", fields)
        driver.advance(1.5)
    return driver


def journaled(driver, *kinds):
    """The payloads of some kinds of entries."""
    entries = [orjson.loads(record.value) for record in driver.read("journal")]
    return [orjson.loads(each["value"]) for each in entries if each["kind"] in kinds]


def sizes(driver):
    return [each["position_size_usd"] for each in driver.allocations()]


def test_each_question_is_answered_on_the_journal_by_name():
    driver = story(Driver(ON, policy=Mock(3)))
    questions, answers = asked(driver), journaled(driver, "advice")
    assert len(questions) >= 8
    names = [(each["decision_id"], each["strategy_id"], each["symbol"]) for each in questions]
    assert [(each["decision_id"], each["strategy_id"], each["symbol"]) for each in answers] == names
    assert [each["nudge"] for each in answers] == [Mock(3).decide(*name)[0] for name in names]


@pytest.mark.parametrize(
    "policy",
    [Mock(1), Nobody(), Fails(NoAnswer("timeout", "x")), Fails(NoAnswer("invalid", "x")), None],
    ids=["mock", "nobody", "timeout", "invalid", "no agent"],
)
def test_in_shadow_no_answer_and_no_fault_moves_a_decision(policy):
    """Baseline allocations are the same whatever the policy does; only what is said of it differs."""
    without = story(Driver())
    driver = story(Driver(ON, policy=policy))
    assert sizes(driver) == sizes(without)


def test_five_failures_open_the_breaker_and_a_probe_follows_in_journal_time():
    policy = Fails(NoAnswer("refused", "x"))
    driver = story(Driver(ON, policy=policy), signals=8)
    reasons = [each["reason"] for each in journaled(driver, "no_advice")]
    assert reasons[:5] == ["refused"] * 5
    assert set(reasons[5:]) == {"open"}
    assert policy.count == 5
    policy.result = Answer(0.1, 0.9, "m", None, None, "{}")
    driver.advance(31.0)
    priced(driver)
    driver.publish("signals", signal(driver.now_ns, signal_id="later", expected_return=0.005))
    driver.advance(1.5)
    assert policy.count > 5
    assert journaled(driver, "advice")


def test_after_a_crash_what_is_journaled_stays_the_truth_and_comes_out_again():
    """The worker dies with answers journaled; questions that come again find them, and every byte is the same."""
    driver = Driver(ON, policy=Mock(3), checkpoint_entries=7, partitions=1)
    story(driver, 5)
    before = [record.value for record in driver.read("allocations")]
    answers = len(journaled(driver, "advice"))
    driver.crash()
    driver.run()
    assert [record.value for record in driver.read("allocations")] == before
    assert len(journaled(driver, "advice")) >= answers
    story(driver, 3, first=5)
    published = driver.read("allocations")
    found = asyncio.run(verify.verify(0, _each(driver.read("journal")), published, None))
    assert found.ok
    assert found.checked == len(published) > len(before)


async def _each(entries):
    for entry in entries:
        yield entry
