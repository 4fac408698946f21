"""The judge sees what it is there for: a healthy log passes, and each way to spoil it is named."""

import orjson
import pytest
from faults.judge import View, view, weigh
from faults.load import Sent
from worlds import priced, signal

SIGNALS = 6


@pytest.fixture
def world():
    """Signals answered in memory: what was sent, the journal and the allocations of their partition."""
    driver = priced()
    sent = []
    for number in range(SIGNALS):
        value = orjson.dumps(signal(driver.now_ns, signal_id=f"s-{number}", valid_for_s=3600))
        driver.publish("signals", orjson.loads(value))
        sent.append(Sent("signals", value, "answered", "main", f"s-{number}"))
        driver.advance(1.0)
    (partition,) = {fields["journal"]["partition"] for fields in driver.allocations("main")}
    entries = driver.cluster.log("journal", partition).records
    published = [record.value for record in driver.cluster.log("allocations", partition).records]
    return sent, entries, published


def judged(world, published, sent=None):
    views: list[View] = [view(world[1], published)]
    return weigh([each._replace(portfolio="") for each in sent or world[0]], set(), views, set())


def test_a_healthy_log_passes_and_a_repeat_of_equal_bytes_is_counted_apart(world):
    assert judged(world, world[2]).problems == ()
    found = judged(world, [*world[2], world[2][-1]])
    assert (found.problems, found.repeats, found.answered) == ((), 1, SIGNALS)


def test_the_last_allocation_gone_is_a_lost_signal(world):
    found = judged(world, [value for value in world[2] if b'"s-5"' not in value])
    assert (found.lost, found.problems[0].startswith("1 lost: s-5")) == (1, True)


def test_one_in_the_middle_gone_is_a_gap(world):
    assert "sequence must be" in judged(world, [value for value in world[2] if b'"s-2"' not in value]).problems[0]


def test_another_byte_in_a_repeat_is_a_fork(world):
    other = world[2][-1].replace(b'"s-5"', b'"s-6"')
    assert "with other bytes" in judged(world, [*world[2], other]).problems[0]


def test_an_answer_to_what_must_not_be_answered_is_one_too_many(world):
    older = [world[0][0]._replace(fate="older"), *world[0][1:]]
    assert judged(world, world[2], older).twice == 1


def test_an_input_that_never_reached_the_journal_is_named(world):
    stray = Sent("outcomes", b'{"never":"came"}', "taken", "")
    found = judged(world, world[2], [*world[0], stray])
    assert (found.inputs_lost, "not journaled: outcomes" in found.problems[0]) == (1, True)
