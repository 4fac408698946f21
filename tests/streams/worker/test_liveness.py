"""What a worker says of its partitions, by what its consumer and its processors stand at; no broker is needed."""

import asyncio
from types import SimpleNamespace

import pytest
from aiokafka.consumer.subscription_state import SubscriptionState
from aiokafka.structs import TopicPartition
from faust.exceptions import ConsumerNotStarted
from faust.types import TP

from streams.journal.topics import Names
from streams.kafka.connection import Connection
from streams.stages.topology import MARKET, SIZING
from streams.worker.liveness import REBALANCE_S, Vitals
from streams.worker.stall_detector import Vital
from streams.worker.transport import BatchConsumer

NAMES = Names("himari")
PATIENCE_S = 60.0
JOURNAL, PRICES, SIGNALS = (TP(NAMES.topic(topic), 1) for topic in ("journal", "prices", "signals"))


class Consumer:
    """What a consumer knows, by partition."""

    def __init__(self, assigned=(), *, member=True, **known):
        self.assigned, self.member, self.known = assigned, member, known

    def assignment(self):
        if self.assigned is None:
            raise ConsumerNotStarted
        return frozenset(self.assigned)

    def is_member(self):
        return self.member

    def _known(self, name, tp):
        return self.known.get(name, {}).get(tp)

    def delivered(self, tp):
        return self._known("delivered", tp)

    def fetched(self, tp):
        return self._known("fetched", tp) or 0

    def acknowledged(self, tp):
        return self._known("acknowledged", tp)

    def highwater(self, tp):
        return self._known("highwater", tp)


def owner(stage, folded=None, *, kept=None):
    """Return the owner of a stage; `folded`: offset of the last record of partition 1, None: it is not recovered."""
    processors = {} if folded is None else {1: SimpleNamespace(offset=folded)}
    return SimpleNamespace(stage=stage, processors=processors, kept={} if kept is None else {1: kept})


def vitals(consumer, *owners, lag=5, recovered=None):
    app = SimpleNamespace(
        consumer=consumer,
        agents={},
        tables=SimpleNamespace(recovery=SimpleNamespace(active_offsets=recovered or {})),
    )
    sources = ("journal", "prices", "signals")
    told = {"patience_s": lambda: PATIENCE_S, "lag_records": lambda: lag}
    return Vitals(app, Connection("127.0.0.1:1"), NAMES, sources, owners, **told)


def partition(consumer, *owners, **given):
    (found,) = vitals(consumer, *owners, **given)._partitions(sorted(consumer.assigned))
    return found


# -- where a partition stands ----------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("stage", "folded", "delivered", "fetched", "position"),
    [
        # the journal has no markers that a fold would not see: what is folded counts, nothing else
        (SIZING, 9, 10, 10, 10),
        (SIZING, 9, 10, 99, 10),
        (SIZING, 9, 12, 12, 10),
        (SIZING, -1, 0, 99, 0),
        # prices may end in markers of transactions: all that was delivered is folded, so what is fetched counts
        (MARKET, 9, 10, 10, 10),
        (MARKET, 9, 10, 13, 13),
        (MARKET, -1, 0, 3, 3),
        # aiokafka has not got there yet, as after a seek
        (MARKET, 9, 10, 0, 10),
        # a record was delivered and is not folded: the markers behind it do not count
        (MARKET, 9, 11, 13, 10),
        (MARKET, 9, None, 13, 10),
    ],
)
def test_a_partition_stands_at_what_is_folded_and_past_markers_where_gaps_are_no_fault(
    stage, folded, delivered, fetched, position
):
    tp = {"journal": JOURNAL, "prices": PRICES}[stage.source]
    consumer = Consumer([tp], delivered={tp: delivered}, fetched={tp: fetched}, highwater={tp: 99})
    found = partition(consumer, owner(stage, folded))
    assert (found.place, found.position, found.end) == (f"{tp.topic}[1]", position, 99)
    assert found.ticks is stage.idle_tick


def test_a_partition_without_a_processor_is_recovering_whatever_was_delivered():
    consumer = Consumer([PRICES], delivered={PRICES: 7}, fetched={PRICES: 9}, highwater={PRICES: 9})
    assert partition(consumer, owner(MARKET)).position is None
    assert vitals(consumer, owner(MARKET)).not_ready() == {f"{PRICES.topic}[1]": "recovering"}


def test_a_partition_that_no_stage_folds_stands_at_what_is_acknowledged():
    consumer = Consumer([SIGNALS], acknowledged={SIGNALS: 4}, delivered={SIGNALS: 9}, highwater={SIGNALS: 9})
    assert partition(consumer, owner(SIZING, 3))[1:3] == (4, 9)


def test_a_recovery_moves_with_the_tables_the_records_read_and_the_offset():
    kept = SimpleNamespace(ports=SimpleNamespace(records_read=6), processor=SimpleNamespace(offset=2))
    consumer = Consumer([JOURNAL])
    assert partition(consumer, owner(SIZING, kept=kept), recovered={"a": 3, "b": None, "c": 4}).moves == (7, 6, 2)
    assert partition(consumer, owner(SIZING)).moves == (0, 0, 0)


# -- ready -----------------------------------------------------------------------------------------------------------
def test_one_that_is_behind_by_more_than_the_setting_is_not_ready():
    def told(end):
        consumer = Consumer([JOURNAL, PRICES], highwater={JOURNAL: end, PRICES: 0}, delivered={PRICES: 0})
        return vitals(consumer, owner(SIZING, 9), owner(MARKET, -1), lag=5).not_ready()

    assert told(15) == {}
    assert told(16) == {f"{JOURNAL.topic}[1]": "6 records behind"}
    assert told(None) == {f"{JOURNAL.topic}[1]": "reading has not started"}


def test_a_consumer_that_has_not_started_and_a_topic_without_a_partition_are_named():
    assert vitals(Consumer(None), owner(SIZING)).not_ready() == {"consumer": "not started"}
    here = Consumer([JOURNAL, TP("himari.some-changelog", 0)], highwater={JOURNAL: 0})
    assert vitals(here, owner(SIZING, -1), owner(MARKET)).not_ready() == {PRICES.topic: "no partition assigned"}


# -- what must go on -------------------------------------------------------------------------------------------------
def test_what_is_watched_is_the_publisher_the_membership_and_each_partition():
    consumer = Consumer([JOURNAL, PRICES], highwater={JOURNAL: 12, PRICES: 10}, delivered={PRICES: 10})
    named = {each.name: each for each in vitals(consumer, owner(SIZING, 9), owner(MARKET, 9)).all()}
    assert named.keys() == {"publisher", "consumer", f"{JOURNAL.topic}[1]", f"{PRICES.topic}[1]"}
    behind = Vital(f"{JOURNAL.topic}[1]", 10, "has stayed at 10 while 2 records waited", PATIENCE_S)
    assert named[f"{JOURNAL.topic}[1]"] == behind
    assert named[f"{PRICES.topic}[1]"].mark is None, "nothing waits there"
    assert named["consumer"].mark is None


def test_who_is_no_member_is_away_and_its_partitions_may_stand_still():
    for consumer in (Consumer([JOURNAL], member=False, highwater={JOURNAL: 12}), Consumer(None)):
        named = {each.name: each for each in vitals(consumer, owner(SIZING, 9)).all()}
        assert named.keys() == {"publisher", "consumer"}
        assert named["consumer"].mark == "away"
        assert named["consumer"].patience_s == PATIENCE_S + REBALANCE_S


# -- the ends of the logs --------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("highwater", "looked", "end"), [(None, None, None), (7, None, 7), (None, 8, 8), (7, 8, 8), (9, 8, 9), (0, None, 0)]
)
def test_the_end_is_the_later_one_of_the_consumers_and_the_last_look(highwater, looked, end):
    found = vitals(Consumer([JOURNAL], highwater={JOURNAL: highwater}), owner(SIZING, 3))
    found._ends = {} if looked is None else {JOURNAL: looked}
    assert found._end(JOURNAL) == end
    assert found.lag(JOURNAL, 5) == (None if end is None else max(0, end - 5))


# -- the consumer itself ---------------------------------------------------------------------------------------------
class Message:
    def __init__(self, offset, *, acked):
        self.offset, self.acked = offset, acked


def seen(what, *, tp=PRICES, **given):
    """Return what the product's consumer says of a partition."""

    async def ask():
        return getattr(consumer_at(**given), what)(tp)

    return asyncio.run(ask())


def consumer_at(*, expected, position, inflight=()):
    """Return the product's consumer as it stands between two polls, beside aiokafka's own book of positions."""
    subscription = SubscriptionState()
    place = TopicPartition(PRICES.topic, PRICES.partition)
    subscription.assign_from_user({place})
    if position is not None:
        subscription.subscription.assignment.state_value(place).seek(position)
    consumer = BatchConsumer.__new__(BatchConsumer)
    consumer._thread = SimpleNamespace(_consumer=SimpleNamespace(_subscription=subscription))
    consumer._expected = {} if expected is None else {PRICES: expected}
    consumer._inflight = {PRICES: list(inflight)}
    return consumer


def test_delivered_is_the_next_offset_and_none_while_the_gate_is_shut():
    assert seen("delivered", expected=7, position=9) == 7
    assert seen("delivered", expected=None, position=9) is None


def test_fetched_is_aiokafkas_position_and_0_where_it_has_none():
    assert seen("fetched", expected=7, position=9) == 9
    assert seen("fetched", expected=7, position=None) == 0
    assert seen("fetched", expected=7, position=9, tp=SIGNALS) == 0


def test_acknowledged_is_the_first_open_message_or_past_the_markers_where_none_is_open():
    done, first, second = Message(4, acked=True), Message(5, acked=False), Message(6, acked=False)
    assert seen("acknowledged", expected=7, position=9, inflight=[done, first, second]) == 5
    assert seen("acknowledged", expected=7, position=9, inflight=[done]) == 9
    assert seen("acknowledged", expected=7, position=3) == 7
    assert seen("acknowledged", expected=None, position=9) is None
