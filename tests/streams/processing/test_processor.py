"""What a processor does in which order, and when it refuses to go on."""

import asyncio
from collections import Counter

import pytest

from schemas.errors import NotFound, ProcessorStopped
from streams.processing import processor as processing
from streams.processing.checkpoint import Progress, Version, pack
from streams.processing.life import TRANSITIONS, Event, Phase
from streams.processing.memory_cluster import LocalStore, Log, MemoryCluster, MemoryPorts
from streams.processing.ports import Identity, Send
from streams.processing.processor import Processor

SECOND_NS = 1_000_000_000


class Tally:
    """Counts records by key; each gives an output. `elapse` counts the time, which no record asks for."""

    tables = ("tallies",)

    def __init__(self, audited=None):
        self.audited, self.counts, self.touched = audited, Counter(), {}

    def fold(self, record):
        return self.count(record.key, record.offset)

    def elapse(self):
        return self.count(b"time", 0)

    def count(self, key, offset):
        self.counts[key] += 1
        self.touched["tallies", key] = offset
        text = f"{key.decode()} {self.counts[key]} {offset}"
        return [Send("steps", None, key, text.encode(), (), Identity(key.decode(), self.counts[key]))]

    def encode(self, key):
        return str(self.counts[key[1]]).encode()

    def meta(self):
        return {}

    def restore(self, _meta, records):
        self.counts = Counter({key: int(value) for (_, key), value in records.items()})

    def refold(self):
        self.restore(None, {})
        return self.fold

    def identify(self, value):
        key, count, offset = value.decode().split()
        return Identity(key, int(count)), int(offset)


class BrokenError(Exception):
    """What a test breaks a step with."""


class Journey:
    """Ports and observer that write down what happens; `time_ns` is moved by the test."""

    def __init__(self, *, audited=None, pause=None, **options):
        self.log, self.time_ns, self.store = [], 0, LocalStore()
        self.cluster = MemoryCluster()
        for topic in ("prices", "steps"):
            self.cluster.create(topic, 1)
        self.prices, self.steps = self.cluster.log("prices", 0), self.cluster.log("steps", 0)
        self.audited, self.pause, self.options = audited, pause, options
        self.begin()

    def begin(self):
        """A new process on the same machine."""
        self.fold = Tally(self.audited)
        self.ports = Written(self)
        self.processor = Processor(
            self.fold, self.ports, partition=0, clock=lambda: self.time_ns, observer=self, **self.options
        )

    def tick(self, *keys):
        first = self.prices.end
        for key in keys:
            self.prices.append(key, b"1")
        return self.prices.read(first)

    async def take(self, records):
        await self.processor.take(records, lambda: self.log.append("acknowledged"))

    def recovered(self, way, offset, _elapsed_ns):
        self.log.append(f"recovered {way} at {offset}")

    def taken(self, records, sends):
        self.log.append(f"took {records}, sent {sends}")

    def checkpointed(self, offset, records, _elapsed_ns):
        self.log.append(f"checkpoint at {offset}, {records} records")


class Written(MemoryPorts):
    """Ports in memory that write down what they are asked for."""

    def __init__(self, journey):
        place = {"processor": "market", "source": "prices", "partition": 0, "tables": Tally.tables}
        super().__init__(journey.cluster, **place, store=journey.store, pause=journey.pause)
        self.log = journey.log

    async def send(self, sends):
        self.log.append(f"sends {len(sends)}")
        return await super().send(sends)

    async def write(self, changes):
        self.log.append(f"writes {len(changes)}")
        await super().write(changes)

    async def write_progress(self, value):
        self.log.append(f"progress {Progress.from_bytes(value).offset}")
        await super().write_progress(value)


def test_publishing_comes_before_the_checkpoint_and_acknowledging_after_it():
    async def scenario():
        journey = Journey(checkpoint_entries=3)
        assert await journey.processor.recover() == 0
        await journey.take(journey.tick(b"a", b"b"))
        assert (journey.processor.offset, journey.processor.checkpointed) == (1, -1)
        await journey.take(journey.tick(b"a", b"a"))
        assert (journey.processor.offset, journey.processor.checkpointed) == (3, 3)
        return journey.log

    assert asyncio.run(scenario()) == [
        "recovered local at -1",
        "sends 2",
        "took 2, sent 2",
        "sends 2",
        "took 2, sent 2",
        "writes 2",
        "progress 3",
        "checkpoint at 3, 2 records",
        "acknowledged",
        "acknowledged",
    ]


def test_a_chunk_that_leads_to_much_is_published_in_parts_and_acknowledged_once_as_a_whole(monkeypatch):
    monkeypatch.setattr(processing, "PART_SENDS_MAX", 2)

    async def scenario():
        journey = Journey(checkpoint_entries=4)
        await journey.processor.recover()
        await journey.take(journey.tick(b"a", b"b", b"c", b"d", b"e"))
        assert (journey.processor.offset, journey.processor.checkpointed) == (4, 3)
        await journey.processor.checkpoint()
        return journey

    journey = asyncio.run(scenario())
    part = ["sends 2", "took 2, sent 2"]
    checkpoint = ["writes 4", "progress 3", "checkpoint at 3, 4 records"]
    last = ["writes 1", "progress 4", "checkpoint at 4, 1 records", "acknowledged"]
    assert journey.log[1:] == [*part, *part, *checkpoint, "sends 1", "took 1, sent 1", *last]
    sent = [record.value for record in journey.steps.read(0)]
    assert sent == [f"{key} 1 {at}".encode() for at, key in enumerate("abcde")]


def test_a_chunk_that_takes_long_is_published_in_parts_while_the_loop_turns():
    async def scenario():
        journey = Journey()
        await journey.processor.recover()
        slow = journey.fold.count

        def count(key, offset):
            journey.time_ns += processing.PART_NS_MAX // 2
            return slow(key, offset) if key != b"silent" else []

        async def elsewhere():
            while True:
                journey.log.append("the loop turns")
                await asyncio.sleep(0)

        journey.fold.count = count
        other = asyncio.create_task(elsewhere())
        await journey.take(journey.tick(b"silent", b"silent", b"a", b"b", b"c"))
        other.cancel()
        return journey.log[1:]

    assert asyncio.run(scenario()) == [
        "the loop turns",
        "took 2, sent 0",
        "sends 2",
        "took 2, sent 2",
        "sends 1",
        "took 1, sent 1",
    ]


def test_a_checkpoint_is_due_after_its_interval_and_holds_only_what_was_touched():
    async def scenario():
        journey = Journey(checkpoint_interval_ns=10 * SECOND_NS)
        await journey.processor.recover()
        await journey.take(journey.tick(b"a", b"b"))
        journey.time_ns = 10 * SECOND_NS - 1
        await journey.take(journey.tick(b"a"))
        assert journey.processor.checkpointed == -1
        journey.time_ns += 1
        await journey.take(journey.tick(b"a"))
        assert journey.processor.checkpointed == 3
        await journey.take(journey.tick(b"b"))
        journey.time_ns += 10 * SECOND_NS
        await journey.take([])
        return journey.log

    log = asyncio.run(scenario())
    assert log[-6:] == [
        "took 0, sent 0",
        "writes 1",
        "progress 4",
        "checkpoint at 4, 1 records",
        "acknowledged",
        "acknowledged",
    ]


def test_a_checkpoint_with_nothing_new_writes_nothing_and_acknowledges():
    async def scenario():
        journey = Journey()
        await journey.processor.recover()
        records = journey.tick(b"a")
        await journey.take(records)
        await journey.processor.checkpoint()
        journey.log.clear()
        await journey.take(records)
        await journey.processor.checkpoint()
        return journey.log

    assert asyncio.run(scenario()) == ["took 1, sent 0", "acknowledged"]


def test_records_at_or_below_the_offset_are_skipped():
    async def scenario():
        journey = Journey()
        await journey.processor.recover()
        records = journey.tick(b"a", b"a", b"a")
        await journey.take(records[:2])
        await journey.take(records)
        return journey.fold.counts

    assert asyncio.run(scenario()) == {b"a": 3}


def test_a_jump_stops_a_source_without_gaps_and_is_taken_where_gaps_are_normal():
    async def scenario(contiguous):
        journey = Journey(contiguous=contiguous)
        await journey.processor.recover()
        records = journey.tick(b"a", b"a", b"a")
        await journey.take([records[0], records[2]])
        return journey.fold.counts

    assert asyncio.run(scenario(contiguous=False)) == {b"a": 2}
    with pytest.raises(ProcessorStopped, match="partition 0: expected offset 1, found 2"):
        asyncio.run(scenario(contiguous=True))


def test_where_retention_took_the_head_reading_begins_at_what_is_left():
    async def scenario():
        journey = Journey(contiguous=False)
        journey.tick(b"a", b"a", b"a", b"a")
        journey.prices.retain(2)
        first = await journey.processor.recover()
        await journey.take(journey.prices.read(first, 3))
        await journey.processor.checkpoint()
        journey.tick(b"a")
        journey.prices.retain(4)
        journey.begin()
        return first, await journey.processor.recover(), journey.fold.counts

    assert asyncio.run(scenario()) == (2, 4, {b"a": 1})


def test_nothing_is_taken_before_recovery():
    journey = Journey()
    with pytest.raises(ProcessorStopped, match="partition 0: not recovered"):
        asyncio.run(journey.take(journey.tick(b"a")))


@pytest.mark.parametrize(
    ("failure", "told", "words"),
    [(BrokenError, BrokenError, None), (asyncio.CancelledError, ProcessorStopped, "an earlier step failed")],
)
def test_a_step_that_was_broken_off_is_followed_by_none_but_recovery_and_all_are_told_why(failure, told, words):
    async def refuse(step):
        if step == "issued":
            raise failure

    async def scenario():
        journey = Journey(pause=refuse)
        await journey.processor.recover()
        records = journey.tick(b"a")
        with pytest.raises(failure):
            await journey.take(records)
        for step in (journey.processor.checkpoint(), journey.take(records), journey.processor.act(journey.fold.elapse)):
            with pytest.raises(told, match=words):
                await step
        assert journey.cluster.changelog("market", "progress", 0).records == []
        assert await journey.processor.recover() == 0
        return journey.log

    assert asyncio.run(scenario()) == ["recovered local at -1", "sends 1", "recovered local at -1"]


def test_a_checkpoint_waits_until_the_chunk_is_published():
    async def scenario():
        gate = asyncio.Event()

        async def hold(step):
            if step == "issued":
                await gate.wait()

        journey = Journey(pause=hold)
        await journey.processor.recover()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(journey.take(journey.tick(b"a")))
            tasks.create_task(journey.processor.checkpoint())
            tasks.create_task(open_(gate))
        return journey.log[1:]

    async def open_(gate):
        gate.set()

    assert asyncio.run(scenario()) == [
        "sends 1",
        "took 1, sent 1",
        "writes 1",
        "progress 0",
        "checkpoint at 0, 1 records",
        "acknowledged",
    ]


def test_a_cancelled_chunk_is_not_acknowledged_by_a_later_checkpoint():
    async def scenario():
        async def never(step):
            if step == "issued":
                await asyncio.Event().wait()

        journey = Journey(pause=never)
        await journey.processor.recover()
        task = asyncio.create_task(journey.take(journey.tick(b"a")))
        while "sends 1" not in journey.log:
            await asyncio.wait([task], timeout=0)
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()
        with pytest.raises(ProcessorStopped):
            await journey.processor.checkpoint()
        return journey.log

    assert "acknowledged" not in asyncio.run(scenario())


def test_what_is_not_audited_is_sent_again_and_what_is_audited_is_not():
    async def scenario(audited):
        journey = Journey(audited=audited)
        await journey.processor.recover()
        records = journey.tick(b"a", b"b")
        await journey.take(records)
        journey.begin()
        assert await journey.processor.recover() == 0
        assert journey.processor.meets_known is (audited is not None)
        await journey.take(records)
        assert not journey.processor.meets_known
        return [record.value for record in journey.steps.records]

    assert asyncio.run(scenario(None)) == [b"a 1 0", b"b 1 1"] * 2
    assert asyncio.run(scenario("steps")) == [b"a 1 0", b"b 1 1"]


def test_only_what_was_published_since_progress_is_read_again():
    async def scenario():
        journey = Journey(audited="steps")
        await journey.processor.recover()
        await journey.take(journey.tick(b"a", b"a"))
        await journey.processor.checkpoint()
        await journey.take(journey.tick(b"a"))
        journey.steps.records[0] = journey.steps.records[0]._replace(value=b"no output")
        journey.begin()
        assert await journey.processor.recover() == 2
        await journey.take(journey.prices.read(2))
        return [
            Progress.from_bytes(r.value).outputs for r in journey.cluster.changelog("market", "progress", 0).records
        ]

    assert asyncio.run(scenario()) == [2]


def test_a_repeated_output_of_the_entry_at_progress_is_not_waited_for():
    async def scenario():
        journey = Journey(audited="steps")
        await journey.processor.recover()
        await journey.take(journey.tick(b"a"))
        await journey.processor.checkpoint()
        journey.steps.append(*journey.steps.records[0][1:3])  # a zombie's
        journey.begin()
        await journey.processor.recover()
        return journey.processor.meets_known

    assert asyncio.run(scenario()) is False


def test_progress_names_the_first_known_output_that_has_still_to_come_out():
    async def scenario():
        journey = Journey(audited="steps")
        await journey.processor.recover()
        records = journey.tick(b"a", b"a", b"a")
        await journey.take(records)
        journey.begin()
        await journey.processor.recover()
        for record in records:
            await journey.take([record])
            await journey.processor.checkpoint()
        return [
            Progress.from_bytes(r.value).outputs for r in journey.cluster.changelog("market", "progress", 0).records
        ]

    assert asyncio.run(scenario()) == [1, 2, 3]


# -- time, which no record brings --------------------------------------------------------------------------------------
def test_what_time_does_is_published_at_once_and_in_the_next_checkpoint_that_follows_a_record():
    async def scenario():
        journey = Journey()
        await journey.processor.recover()
        await journey.take(journey.tick(b"a"))
        await journey.processor.checkpoint()
        await journey.processor.act(journey.fold.elapse)
        await journey.processor.checkpoint()
        assert journey.steps.records[-1].value == b"time 1 0"
        assert journey.processor.checkpointed == 0
        await journey.take(journey.tick(b"a"))
        await journey.processor.checkpoint()
        journey.begin()
        await journey.processor.recover()
        return journey.fold.counts

    assert asyncio.run(scenario()) == {b"a": 2, b"time": 1}


def test_what_time_did_after_progress_does_not_spoil_the_state_at_progress():
    class CrashError(Exception):
        pass

    async def scenario():
        journey = Journey()
        await journey.processor.recover()
        await journey.processor.act(journey.fold.elapse)
        await journey.take(journey.tick(b"a"))
        await journey.processor.checkpoint()
        await journey.processor.act(journey.fold.elapse)
        await journey.take(journey.tick(b"a"))

        async def lost(_value):
            raise CrashError

        journey.ports.write_progress = lost
        with pytest.raises(CrashError):
            await journey.processor.checkpoint()
        journey.begin()
        await journey.processor.recover()
        return journey.log[-1], journey.fold.counts

    assert asyncio.run(scenario()) == ("recovered local at 0", {b"a": 1, b"time": 1})


def test_spoiled_tables_of_what_is_not_audited_are_taken_as_the_source_gives_them():
    async def scenario():
        journey = Journey(contiguous=False)
        await journey.processor.recover()
        await journey.processor.act(journey.fold.elapse)
        await journey.take(journey.tick(b"a", b"a"))
        await journey.processor.checkpoint()
        journey.cluster.changelog("market", "tallies", 0).append(b"a", pack(Version(0, b"9")))
        journey.begin()
        assert await journey.processor.recover() == 2
        assert journey.fold.counts == {b"a": 2}
        journey.begin()
        await journey.processor.recover()
        return [line for line in journey.log if "recovered" in line], journey.fold.counts

    ways = ["recovered local at -1", "recovered genesis at 1", "recovered local at 1"]
    assert asyncio.run(scenario()) == (ways, {b"a": 2})


def test_a_processor_that_recovers_again_forgets_what_it_knew():
    async def scenario():
        journey = Journey(audited="steps")
        await journey.processor.recover()
        records = journey.tick(b"a", b"a")
        await journey.take(records)
        await journey.processor.checkpoint()
        await journey.take(journey.tick(b"a", b"b"))
        journey.cluster.changelog("market", "tallies", 0).append(b"a", pack(Version(0, b"9")))
        assert await journey.processor.recover() == 2
        return journey.log[-1], journey.fold.counts, journey.fold.touched

    assert asyncio.run(scenario()) == ("recovered genesis at 1", {b"a": 2}, {})


# -- the cluster in memory ---------------------------------------------------------------------------------------------
def test_a_log_reads_by_offset_also_where_records_are_gone():
    log = Log()
    assert [log.append(key, key) for key in (b"a", b"b", b"a")] == [0, 1, 2]
    log.skip()
    assert log.append(b"b", None) == 4
    assert [record.offset for record in log.read(1, 4)] == [1, 2]
    log.compact()
    assert [record.offset for record in log.read(0)] == [2]
    assert (log.first, log.end) == (0, 5)
    log.retain(3)
    assert (log.first, log.end, log.records) == (3, 5, [])
    assert log.append(b"c", b"c") == 5
    log.lose(5)
    assert log.append(b"d", b"d") == 5


def test_a_cluster_names_the_topic_that_is_not_there():
    cluster = MemoryCluster()
    cluster.create("steps", 2)
    with pytest.raises(NotFound, match="no topic stpes"):
        cluster.log("stpes", 0)
    with pytest.raises(NotFound, match="topic steps has 2 partitions, asked for partition 2"):
        cluster.publish(Send("steps", 2, None, b""))


def test_a_record_without_partition_goes_where_its_key_says():
    cluster = MemoryCluster()
    cluster.create("steps", 5)
    for key in (b"21", b"foobar", b"a-little-bit-long-string", None):
        cluster.publish(Send("steps", None, key, b""))
    places = [[record.key for record in cluster.log("steps", p).records] for p in range(5)]
    assert places == [[b"21", None], [b"foobar"], [b"a-little-bit-long-string"], [], []]


class Beside:
    """Starts the writing of checkpoints as tasks, and knows them."""

    def __init__(self, journey):
        self.tasks, journey.processor.background = [], self.start

    def start(self, writing):
        self.tasks.append(asyncio.create_task(writing))


def test_chunks_go_on_while_a_checkpoint_is_written_and_are_not_in_it():
    async def scenario():
        gate = asyncio.Event()

        async def hold(step):
            if step == "before local":
                await gate.wait()

        journey = Journey(pause=hold, checkpoint_entries=2)
        await journey.processor.recover()
        beside = Beside(journey)
        async with asyncio.timeout(5):
            await journey.take(journey.tick(b"a", b"b"))
        await asyncio.wait(beside.tasks, timeout=0)
        await journey.take(journey.tick(b"a"))
        assert (journey.processor.offset, journey.processor.checkpointed) == (2, -1)
        gate.set()
        await journey.processor.wait_idle()
        assert journey.processor.checkpointed == 1
        assert journey.store.records["tallies", b"a"] == pack(Version(0, b"1"))
        return journey.log[1:]

    assert asyncio.run(scenario()) == [
        "sends 2",
        "took 2, sent 2",
        "writes 2",
        "sends 1",
        "took 1, sent 1",
        "progress 1",
        "checkpoint at 1, 2 records",
        "acknowledged",
    ]


def test_nothing_goes_on_after_the_writing_of_a_checkpoint_broke_off():
    async def scenario():
        async def refuse(step):
            if step == "local written":
                raise BrokenError

        journey = Journey(pause=refuse, checkpoint_entries=1)
        await journey.processor.recover()
        beside = Beside(journey)
        await journey.take(journey.tick(b"a"))
        await journey.processor.wait_idle()
        assert isinstance(beside.tasks[0].exception(), BrokenError)
        with pytest.raises(BrokenError):
            await journey.take(journey.tick(b"b"))
        return journey.log

    assert "acknowledged" not in asyncio.run(scenario())


def test_a_step_during_which_the_background_write_breaks_is_the_last():
    async def scenario():
        gate = asyncio.Event()

        async def hold(step):
            if step == "before local":
                await gate.wait()
                raise BrokenError

        journey = Journey(pause=hold, checkpoint_entries=2)
        await journey.processor.recover()
        beside = Beside(journey)
        await journey.take(journey.tick(b"a", b"b"))

        async def during():
            gate.set()
            await asyncio.wait(beside.tasks)

        journey.processor._publish = lambda _sends, _records: during()
        await journey.take(journey.tick(b"c"))
        with pytest.raises(BrokenError):
            await journey.take(journey.tick(b"d"))
        assert journey.processor._phase is Phase.BROKEN
        journey.pause = None
        journey.begin()
        assert await journey.processor.recover() == 0

    asyncio.run(scenario())


def test_a_step_begins_only_where_the_state_is_recovered_and_whole():
    assert {phase for (phase, event) in TRANSITIONS if event is Event.BEGIN} == {Phase.READY}
    assert {after for (_, event), after in TRANSITIONS.items() if event is Event.BREAK} == {Phase.BROKEN}
    assert {event for (phase, event), after in TRANSITIONS.items() if after is not phase is Phase.BROKEN} == {
        Event.RECOVER
    }


def test_the_last_chunk_before_a_silence_is_checkpointed_when_time_has_passed():
    async def story():
        journey = Journey(checkpoint_interval_ns=SECOND_NS)
        await journey.processor.recover()
        await journey.take(journey.tick(b"a"))
        await journey.processor.act(list)
        assert "acknowledged" not in journey.log
        journey.time_ns = SECOND_NS
        await journey.processor.act(list)
        assert (journey.log[-1], journey.processor.checkpointed) == ("acknowledged", 0)
        await journey.processor.act(list)
        assert journey.log.count("acknowledged") == 1

    asyncio.run(story())


@pytest.mark.parametrize("step", ["take", "act"])
def test_a_due_checkpoint_waits_until_the_partition_is_surely_ours(step):
    sure = [True]

    async def story():
        journey = Journey(checkpoint_entries=2, owns_partition=lambda: sure[0])
        await journey.processor.recover()
        sure[0] = False
        await journey.take(journey.tick(b"a", b"b", b"c"))
        before = journey.processor.checkpointed
        sure[0] = True
        if step == "take":
            await journey.take(journey.tick(b"d"))
        else:
            await journey.processor.act(list)
        return before, journey.processor.checkpointed, journey.log.count("acknowledged")

    assert asyncio.run(story()) == ((-1, 3, 2) if step == "take" else (-1, 2, 1))
