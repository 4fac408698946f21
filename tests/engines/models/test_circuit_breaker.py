"""The circuit breaker: its table, a slow model beside it, pybreaker's plain transitions, and a crowd at the door."""

import asyncio
from contextlib import suppress
from datetime import timedelta

import pybreaker
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from pydantic import ValidationError

from engines.models.circuit_breaker import TABLE, Breaker, BreakerParams, admit, answered, at, retry_at_ns

S = 1_000_000_000
PARAMS = BreakerParams()


def fail(breaker, now_ns, params=PARAMS):
    breaker, ticket = admit(breaker, now_ns, params)
    assert ticket is not None
    return answered(breaker, ticket, now_ns, params, ok=False)


def tripped(now_ns=0, params=PARAMS):
    breaker = Breaker()
    for _ in range(params.failure_threshold):
        breaker = fail(breaker, now_ns, params)
    assert breaker.status == "open"
    return breaker


# -- by hand ---------------------------------------------------------------------------------------------------------
def test_five_failures_within_a_minute_open_it_and_a_success_between_clears_none():
    breaker = Breaker()
    for second in (0, 10, 20, 30):
        breaker = fail(breaker, second * S)
        breaker, ticket = admit(breaker, (second + 1) * S, PARAMS)
        breaker = answered(breaker, ticket, (second + 1) * S, PARAMS, ok=True)
        assert breaker.status == "closed"
    assert fail(breaker, 59 * S).status == "open"


def test_a_breaker_may_stay_open_as_long_at_first_as_at_most():
    assert tripped(0, BreakerParams(initial_timeout_sec=300.0)).timeout_s == 300


def test_a_new_breaker_has_waited_for_nothing():
    breaker, ticket = admit(Breaker(), 0, PARAMS)
    assert (breaker.timeout_s, retry_at_ns(breaker), ticket.probe) == (0.0, None, False)
    assert answered(breaker, ticket, 0, PARAMS, ok=True) == Breaker()


def test_failures_older_than_the_window_are_forgotten():
    breaker = Breaker()
    for second in (0, 10, 20, 30):
        breaker = fail(breaker, second * S)
    assert fail(breaker, 60 * S).status == "closed"
    assert at(breaker, 90 * S, PARAMS).failures_ns == ()


def test_its_patience_doubles_at_each_probe_that_fails_up_to_five_minutes():
    breaker, now_ns, waited = tripped(), 0, []
    for _ in range(6):
        until = retry_at_ns(breaker)
        waited.append((until - now_ns) // S)
        assert breaker.timeout_s == waited[-1]
        assert admit(breaker, until - 1, PARAMS)[1] is None
        now_ns = until
        breaker, ticket = admit(breaker, now_ns, PARAMS)
        assert ticket.probe
        breaker = answered(breaker, ticket, now_ns, PARAMS, ok=False)
    assert waited == [30, 60, 120, 240, 300, 300]


def test_a_probe_that_succeeds_closes_it_and_its_patience_begins_anew():
    breaker, ticket = admit(tripped(), 30 * S, PARAMS)
    breaker = answered(breaker, ticket, 30 * S, PARAMS, ok=False)
    assert breaker.timeout_s == 60
    breaker, ticket = admit(breaker, 90 * S, PARAMS)
    breaker = answered(breaker, ticket, 91 * S, PARAMS, ok=True)
    assert (breaker.status, breaker.trips, breaker.failures_ns) == ("closed", 0, ())
    for _ in range(5):
        breaker = fail(breaker, 100 * S)
    assert (breaker.status, breaker.until_ns) == ("open", 130 * S)


def test_a_probe_that_never_answers_has_failed_at_its_deadline():
    breaker, ticket = admit(tripped(), 30 * S, PARAMS)
    assert retry_at_ns(breaker) == 40 * S
    assert admit(breaker, 40 * S - 1, PARAMS)[1] is None
    assert at(breaker, 40 * S, PARAMS).status == "open"
    assert at(breaker, 40 * S, PARAMS).until_ns == 100 * S
    later, second = admit(breaker, 100 * S, PARAMS)
    assert second.probe
    assert answered(later, ticket, 101 * S, PARAMS, ok=True) == later


@pytest.mark.parametrize(("patience_s", "until_s"), [(0.0, 40), (9.5, 40), (12.5, 42.5)])
def test_a_probe_is_not_given_up_before_its_answer_may_come(patience_s, until_s):
    breaker, ticket = admit(tripped(), 30 * S, PARAMS, patience_s)
    assert retry_at_ns(breaker) == until_s * S
    assert answered(breaker, ticket, int(until_s * S) - 1, PARAMS, ok=True).status == "closed"
    assert answered(breaker, ticket, int(until_s * S), PARAMS, ok=True).status == "open"


def test_an_answer_from_before_the_trip_changes_nothing_after_it():
    breaker = Breaker()
    breaker, early = admit(breaker, 0, PARAMS)
    for _ in range(5):
        breaker = fail(breaker, 1 * S)
    for ok in (True, False):
        assert answered(breaker, early, 2 * S, PARAMS, ok=ok) == breaker
        half, _ = admit(breaker, 31 * S, PARAMS)
        assert answered(half, early, 32 * S, PARAMS, ok=ok) == half


def test_an_answer_to_a_question_of_an_open_breaker_means_nothing_once_it_has_closed():
    """metrics_only: it was asked beside the breaker, and fails after the probe has closed it."""
    params = BreakerParams(mode="metrics_only", failure_threshold=1)
    breaker, beside = admit(tripped(0, params), 1 * S, params)
    breaker, probe = admit(breaker, 30 * S, params)
    breaker = answered(breaker, probe, 31 * S, params, ok=True)
    assert breaker.status == "closed"
    assert answered(breaker, beside, 32 * S, params, ok=False) == breaker


@pytest.mark.parametrize(
    ("given_", "admitted"),
    [
        ({"mode": "force_open"}, (False, False)),
        ({"mode": "force_closed"}, (True, True)),
        ({"mode": "metrics_only"}, (True, True)),
        ({"enabled": False}, (True, True)),
        ({}, (True, False)),
    ],
)
def test_modes_decide_who_may_ask_whatever_was_counted(given_, admitted):
    params = BreakerParams(**given_)
    assert tuple(admit(breaker, 0, params)[1] is not None for breaker in (Breaker(), tripped())) == admitted


@pytest.mark.parametrize("given_", [{"mode": "metrics_only"}, {"mode": "force_closed"}, {"enabled": False}])
def test_where_all_may_ask_it_is_told_as_it_would_be(given_):
    """It opens, and closes again, by the questions that are asked anyhow: one of them is the probe."""
    params = BreakerParams(**given_)
    open_ = tripped(0, params)
    open_, other = admit(open_, 1 * S, params)
    assert answered(open_, other, 2 * S, params, ok=True).status == "open"
    half, probe = admit(open_, 30 * S, params)
    half, beside = admit(half, 30 * S, params)
    assert (half.status, probe.probe, beside.probe) == ("half_open", True, False)
    for ok in (True, False):
        assert answered(half, beside, 31 * S, params, ok=ok) == half
    assert answered(half, probe, 31 * S, params, ok=True).status == "closed"
    assert answered(half, probe, 31 * S, params, ok=False).timeout_s == 60


def test_a_probe_of_one_mode_is_that_of_the_next():
    half, probe = admit(tripped(), 30 * S, BreakerParams(mode="metrics_only"))
    assert admit(half, 31 * S, PARAMS)[1] is None
    assert answered(half, probe, 31 * S, PARAMS, ok=True).status == "closed"
    assert admit(tripped(), 30 * S, BreakerParams(mode="force_open")) == (at(tripped(), 30 * S, PARAMS), None)


def test_jitter_makes_it_shorter_by_a_share_that_the_seed_decides_and_never_longer_than_the_longest():
    spread = {tripped(0, BreakerParams(jitter_ratio=0.5, jitter_seed=seed)).until_ns / S for seed in range(64)}
    assert len(spread) == 64
    assert 15 < min(spread) < 17
    assert 28 < max(spread) <= 30
    again = BreakerParams(jitter_ratio=0.5, jitter_seed=7)
    assert tripped(0, again) == tripped(0, again)
    late = tripped(0, again)._replace(trips=9)
    late = fail(late, late.until_ns, again)
    assert 150 < late.timeout_s < 300


def test_jitter_is_splitmix64_from_the_seed_on_by_trips():
    """Its first three numbers from seed 0, as published with the generator."""
    params = BreakerParams(jitter_ratio=0.5)
    breaker, shares = tripped(0, params), []
    for usual in (30, 60, 120):
        shares.append((1.0 - breaker.timeout_s / usual) / 0.5)
        breaker = fail(breaker, breaker.until_ns, params)
    published = (0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F)
    assert shares == pytest.approx([number / 2**64 for number in published], rel=1e-12)
    second = tripped(0, BreakerParams(jitter_ratio=0.5, jitter_seed=1)).timeout_s
    assert second == pytest.approx(30 * (1.0 - 0.5 * shares[1]), rel=1e-12)


@pytest.mark.parametrize("multiplier", [1.0, 2.0])
def test_an_endpoint_that_is_dead_for_years_costs_no_more_than_one_that_is_dead_for_minutes(multiplier):
    params = BreakerParams(backoff_multiplier=multiplier)
    old = tripped(0, params)._replace(trips=10**12)
    assert fail(old, old.until_ns, params).timeout_s == (300 if multiplier > 1 else 30)


def test_settings_that_contradict_each_other_are_refused():
    with pytest.raises(ValidationError, match=r"initial_timeout_sec 600\.0 is above max_timeout_sec 300\.0"):
        BreakerParams(initial_timeout_sec=600.0)


def test_the_table_says_what_each_event_makes_of_each_status():
    assert sorted(TABLE) == [
        (status, event)
        for status in ("closed", "half_open", "open")
        for event in ("asked", "failure", "success", "time")
    ]


# -- a crowd ---------------------------------------------------------------------------------------------------------
def test_of_a_hundred_at_the_door_of_a_half_open_breaker_one_may_ask():
    """Real tasks: whoever comes while the probe is on its way is refused at once."""

    async def crowd():
        now_ns, breaker, asked = 30 * S, tripped(), []

        async def caller(number):
            nonlocal breaker
            breaker, ticket = admit(breaker, now_ns, PARAMS)
            if ticket is None:
                return
            asked.append(number)
            await asyncio.sleep(0)
            breaker = answered(breaker, ticket, now_ns, PARAMS, ok=False)

        waits = []
        for _ in range(5):
            asked.clear()
            await asyncio.gather(*(caller(number) for number in range(100)))
            assert len(asked) == 1
            waits.append((breaker.until_ns - now_ns) // S)
            now_ns = breaker.until_ns
        return waits

    assert asyncio.run(crowd()) == [60, 120, 240, 300, 300]


# -- a slow model ----------------------------------------------------------------------------------------------------
class Model:
    """The same rules as a history of what happened, asked again at every question."""

    def __init__(self):
        self.failures, self.opened, self.patience, self.probe = [], None, 30, None

    def pass_to(self, now):
        if self.probe is not None and now >= self.probe + 10:
            self._open(self.probe + 10)

    def _open(self, when):
        self.patience = 30 if self.opened is None else min(300, self.patience * 2)
        self.failures, self.opened, self.probe = [], when, None

    def may_ask(self, now):
        self.pass_to(now)
        if self.opened is None:
            return True
        return self.probe is None and now >= self.opened + self.patience

    def asks(self, now):
        if self.opened is not None:
            self.probe = now

    def answer(self, now, *, ok):
        if self.probe is not None:
            self.probe = None
            if ok:
                self.failures, self.opened, self.patience = [], None, 30
            else:
                self._open(now)
        elif not ok:
            self.failures = [when for when in self.failures if when > now - 60] + [now]
            if len(self.failures) >= 5:
                self._open(now)


class Breakers(RuleBasedStateMachine):
    """Questions, answers and time, in any order; one question at a time is answered, the oldest may never be."""

    @initialize()
    def begin(self):
        self.breaker, self.model, self.now = Breaker(), Model(), 0
        self.open = None

    @rule(seconds=st.sampled_from((0, 1, 5, 9, 10, 29, 30, 31, 60, 300)))
    def wait(self, seconds):
        self.now += seconds

    @rule()
    def ask(self):
        may = self.model.may_ask(self.now)
        self.breaker, ticket = admit(self.breaker, self.now * S, PARAMS)
        assert (ticket is not None) == may
        if ticket is not None:
            self.model.asks(self.now)
            self.open = (ticket, self.model.opened, self.model.probe)

    @rule(ok=st.booleans())
    def answer(self, ok):
        if self.open is None:
            return
        ticket, opened, probe = self.open
        self.open = None
        self.model.pass_to(self.now)
        self.breaker = answered(self.breaker, ticket, self.now * S, PARAMS, ok=ok)
        if (self.model.opened, self.model.probe) == (opened, probe):
            self.model.answer(self.now, ok=ok)

    @rule()
    def fail_now(self):
        if self.model.opened is None and self.model.may_ask(self.now):
            self.breaker = fail(self.breaker, self.now * S)
            self.model.answer(self.now, ok=False)

    @invariant()
    def stands_as_the_model(self):
        now = at(self.breaker, self.now * S, PARAMS)
        self.model.pass_to(self.now)
        due = self.model.opened is not None and self.now >= self.model.opened + self.model.patience
        expected = "closed" if self.model.opened is None else "half_open" if due or self.model.probe else "open"
        assert now.status == expected
        assert now.probing == (self.model.probe is not None)


Breakers.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
test_any_order_of_questions_answers_and_time_is_that_of_the_model = Breakers.TestCase


# -- pybreaker -------------------------------------------------------------------------------------------------------
@given(st.lists(st.booleans(), max_size=30))
@settings(max_examples=50, deadline=None)
def test_closed_to_open_and_half_open_to_both_as_pybreaker_has_it(answers):
    """Its failures are counted in a row; so this breaker's window holds one row, cleared by hand at a success."""
    params = BreakerParams(failure_threshold=3, failure_window_sec=86_400, backoff_multiplier=1.0)
    theirs = pybreaker.CircuitBreaker(fail_max=3, reset_timeout=30)
    ours, now_ns = Breaker(), 0

    def call(ok):
        if not ok:
            raise ValueError

    for ok in answers:
        if theirs.current_state == "open":
            assert admit(ours, now_ns, params)[1] is None
            now_ns = ours.until_ns
            theirs._state_storage.opened_at -= timedelta(seconds=31)
        ours, ticket = admit(ours, now_ns, params)
        ours = answered(ours, ticket, now_ns, params, ok=ok)
        if ok and ours.status == "closed":
            ours = ours._replace(failures_ns=())
        with suppress(ValueError, pybreaker.CircuitBreakerError):
            theirs.call(call, ok)
        assert theirs.current_state.replace("-", "_") == ours.status


def test_only_the_failures_of_the_window_are_kept():
    params, breaker = BreakerParams(failure_threshold=10_000), Breaker()
    for second in range(1_000):
        breaker = fail(breaker, second * S, params)
    assert breaker.failures_ns == tuple(second * S for second in range(940, 1_000))
