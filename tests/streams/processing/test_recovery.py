"""A processor under every kind of bad luck: the real code, driven step by step as the recovery model drives its own.

A worker is a coroutine that stops at each step of its ports. There it may crash (its sends in flight may land later),
be overtaken and go on as a zombie, or wait. `choose(n)` is the only source of choice; 0 = all well. More schedules:
RECOVERY_EXAMPLES=20000 pytest tests/streams/processing/test_recovery.py
"""

import asyncio
import hashlib
import os
import random
from collections import Counter
from collections.abc import Callable, Iterator

import orjson
import pytest
from hypothesis import HealthCheck, given, note, settings
from hypothesis import strategies as st

from schemas.errors import ProcessorStopped
from streams.processing.checkpoint import Ledger, Version, pack, unpack
from streams.processing.memory_cluster import Flight, LocalStore, MemoryCluster, MemoryPorts
from streams.processing.ports import Identity, Send
from streams.processing.processor import Processor

EXAMPLES = int(os.environ.get("RECOVERY_EXAMPLES", "300"))
SOURCE, PARTITION = "journal", 1


def sha(*parts):
    return hashlib.sha256(orjson.dumps(parts)).hexdigest()


class ToyFold:
    """Several tables that read each other, deletions, and values that come back: A, B, A."""

    tables = ("books", "claims", "markets", "targets")
    audited = "allocations"

    def __init__(self, flip=None):
        self.flip, self.touched = flip, {}
        self.restore(None, {})

    def restore(self, meta, records):
        self.state = {key: orjson.loads(value) for key, value in records.items()}
        self.high, self.inputs = (meta["high"], meta["inputs"]) if meta else (-1, "id")

    def refold(self):
        self.restore(None, {})
        return self.fold

    def meta(self):
        return {"high": self.high, "inputs": self.inputs}

    def encode(self, key):
        return None if (value := self.state.get(key)) is None else orjson.dumps(value)

    def records(self):
        return {key: self.encode(key) for key in self.state}

    def identify(self, value):
        allocation = orjson.loads(value)
        return Identity(allocation["portfolio"], allocation["sequence"]), allocation["entry"]

    def put(self, key, value, offset):
        self.state[key] = value
        self.touched[key] = offset

    def fold(self, record):
        n, (source, kind, p, x) = record.offset, orjson.loads(record.value)
        self.inputs = sha(self.inputs, record.value.decode())
        if source <= self.high:
            return []  # an input that ingest appended twice
        self.high, get = source, self.state.get
        market, target, book = ("markets", b"BTC"), ("targets", p.encode()), ("books", p.encode())
        claim = ("claims", f"{p}{x}".encode())
        if kind == "step":
            self.put(market, (get(market, 0) * 3 + x) % 1009, n)
        elif kind == "latch":
            self.put(market, -get(market, 0), n)
        elif kind == "outcome":
            gone = self.state.pop(claim, None)
            self.touched[claim] = n
            self.put(target, get(target, 0) + (gone or 1), n)
            return [Send("alerts", 0, p.encode(), orjson.dumps([n, p, gone]))]
        else:
            self.put(claim, n + 1, n)
            self.put(target, get(target, 0) + get(market, 0) + x + (n == self.flip), n)
            sequence, last = get(book, (0, "-"))
            fields = {"portfolio": p, "sequence": sequence + 1, "entry": n, "size": self.state[target]}
            value = orjson.dumps({**fields, "inputs": self.inputs, "last": last})
            self.put(book, (sequence + 1, sha(value.decode())), n)
            identity = Identity(p, sequence + 1)
            return [
                Send("allocations", PARTITION, p.encode(), value, (), identity),
                Send("requests", 0, p.encode(), orjson.dumps([n, p])),
            ]
        return []


class Clean:
    """The oracle: the journal folded once, by nobody who ever crashed."""

    def __init__(self, log):
        fold = ToyFold()
        self.states, self.sends = {-1: {}}, []
        for record in log.records:
            self.sends += fold.fold(record)
            self.states[record.offset] = fold.records()

    def values(self, topic):
        return [send.value for send in self.sends if send.topic == topic]


class BrokenPromiseError(Exception):
    """What must never be."""


def promise(kept, text):
    if not kept:
        raise BrokenPromiseError(text)


def read_by_the_rule(values):
    """Take a log of allocations as a reader does; return what it takes."""
    taken: dict[str, list[bytes]] = {}
    for value in values:
        fields = orjson.loads(value)
        mine, sequence = taken.setdefault(fields["portfolio"], []), fields["sequence"]
        promise(sequence <= len(mine) + 1, "reader: gap")
        if sequence <= len(mine):
            promise(mine[sequence - 1] == value, "reader: fork")
            continue
        promise(fields["last"] == (sha(mine[-1].decode()) if mine else "-"), "reader: wrong previous hash")
        mine.append(value)
    return [value for mine in taken.values() for value in mine]


class Step:
    """An awaitable that hands control to the schedule once."""

    def __await__(self):
        yield


class Worker:
    """One process that owns the partition, or believes so."""

    def __init__(self, world, machine):
        self.world, self.machine = world, machine
        self.name, world.born = f"W{world.born}", world.born + 1
        self.idle, self.last, self.store = False, "", world.stores[machine]
        self.fold = ToyFold()
        self.ports = world.ports_class(
            world.cluster,
            processor="toy",
            source=SOURCE,
            partition=PARTITION,
            tables=ToyFold.tables,
            store=self.store.disk,
            pause=self.pause,
            choose=world.choose,
        )
        self.processor = world.processor_class(
            self.fold, self.ports, partition=PARTITION, clock=lambda: 0, checkpoint_entries=2, observer=self
        )
        self.processor.background = self.background
        self.steps, self.waits, self.writer = self.life(), None, None

    def background(self, writing):
        """Let the schedule write a checkpoint while the chunks go on."""
        self.writer = Writer(self, writing)
        self.world.actors.append(self.writer)

    async def pause(self, step):
        self.last = step
        await Step()

    def recovered(self, way, offset, _elapsed_ns):
        self.world.seen[way] += 1
        promise(way != "genesis" or self.world.zombies, "folded from Genesis, though nobody else wrote")
        promise(self.fold.records() == self.world.clean.states[offset], "recovered a wrong state")

    def taken(self, _records, _sends):
        pass

    def checkpointed(self, _offset, _records, _elapsed_ns):
        self.world.seen["checkpoints"] += 1

    async def life(self):
        world, processor = self.world, self.processor
        following = world.first_read(await processor.recover())
        while True:
            chunk = world.journal.read(following, following + 1 + world.choose(3))
            if chunk:
                following = chunk[-1].offset + 1
                await processor.take(chunk, lambda end=following: self.committed(end))
                if world.choose(2):
                    await processor.checkpoint()
            elif processor.checkpointed < processor.offset:
                await processor.checkpoint()
            else:
                self.idle = True
                await self.pause("idle")

    def committed(self, end):
        if self is self.world.owner:  # the group refuses a zombie's commit
            self.world.commit = max(self.world.commit, end)
        if self.world.choose(2) == 0:
            self.store.old = self.store.disk.copy()

    async def orphans(self):
        await self.ports.land()


class Writer:
    """A checkpoint of a worker that is written beside its chunks."""

    def __init__(self, worker, steps):
        self.name, self.steps, self.idle, self.last, self.waits = f"{worker.name} (writes)", steps, False, "", None


class Disk:
    def __init__(self):
        self.disk, self.old = LocalStore(), None


class World:
    """The cluster, two machines, and the schedule that `choose` makes."""

    def __init__(self, entries, choose, *, zombies=True, processor=Processor, ports=MemoryPorts, seek=True):
        self.cluster, self.choose, self.zombies = MemoryCluster(), choose, zombies
        for topic in (SOURCE, "allocations", "requests", "alerts"):
            self.cluster.create(topic, 2)
        self.journal, self.out = self.cluster.log(SOURCE, PARTITION), self.cluster.log("allocations", PARTITION)
        for entry in entries:
            self.journal.append(b"k", orjson.dumps(entry))
        self.clean = Clean(self.journal)
        self.processor_class, self.ports_class, self.seek = processor, ports, seek
        self.stores, self.born, self.commit, self.seen, self.trace = (Disk(), Disk()), 0, 0, Counter(), []
        self.owner = None
        self.actors = []

    def first_read(self, following):
        """Where the worker reads on: as the processor says, or some records earlier, which must do no harm."""
        return max(0, following - self.choose(3)) if self.seek else max(following, self.commit)

    def fresh(self, machine):
        if self.owner:
            self.owner.ports.owner = False
        self.owner = Worker(self, machine)
        self.actors.insert(0, self.owner)
        return self.owner

    def advance(self, actor):
        """Let one actor do one step; return who is likely next."""
        actor.last = "-"
        if actor.waits and not actor.waits.done():
            return actor.writer
        try:
            actor.waits = actor.steps.send(None)
        except StopIteration:
            actor.idle = True
        except ProcessorStopped as error:
            if actor is self.owner or not self.zombies:
                raise
            actor.idle, actor.last = True, str(error)  # a zombie that stops does no harm
        self.trace.append(f"{actor.name}: {actor.last}")
        if actor is not self.owner and actor.idle:
            self.actors.remove(actor)
            return self.owner
        return actor

    def play(self):
        """Go on until the owner has nothing left to do, then see how the promises held."""
        asyncio.run(self.played())
        return self

    async def played(self):
        """Play within a loop that does nothing: locks ask for one."""
        try:
            self.go_on()
            self.check()
        finally:
            for actor in self.actors:
                actor.steps.close()

    def go_on(self):
        now = self.fresh(0)
        while True:
            others = [actor for actor in self.actors if actor is not now]
            done = now is self.owner and now.idle
            options = [("end" if done else "step", now), *(("step", actor) for actor in others)]
            options += [(what, None) for what in ("crash", "crash, wiped", "crash, older store", "moved", "compaction")]
            what, actor = options[self.choose(len(options))]
            if what == "end":
                break
            now = self.advance(actor) if what == "step" else self.mishap(what, now)

    def mishap(self, what, now):
        self.trace.append(what if what != "moved" else f"moved away from {self.owner.name}")
        self.seen[what] += 1
        if what == "compaction":
            for table in (*ToyFold.tables, "progress"):
                self.cluster.changelog("toy", table, PARTITION).compact()
            return now
        dead = self.owner
        if what == "moved" and self.zombies:
            return self.fresh(1 - dead.machine)
        for actor in (dead, dead.writer):
            if actor in self.actors:
                self.actors.remove(actor)
                actor.steps.close()
        if dead.ports.flight and self.zombies:  # what it had sent may land yet
            dead.name, dead.steps, dead.idle, dead.waits = f"{dead.name} (dead)", dead.orphans(), False, None
            self.actors.append(dead)
        if what == "moved":
            return self.fresh(1 - dead.machine)
        if what == "crash, wiped":
            dead.store.disk.wipe()
        if what == "crash, older store" and dead.store.old is not None:
            dead.store.disk = dead.store.old.copy()
        return self.fresh(dead.machine)

    def check(self):
        """Let twice a new worker begin with nothing local; then hold the outputs against the oracle."""
        self.choose = lambda _: 0
        genesis = 0
        for _ in range(2):
            genesis = self.seen["genesis"]
            self.stores[0].disk.wipe()
            now = worker = self.fresh(0)
            while not worker.idle:
                now = self.advance(now)
            promise(worker.fold.records() == self.clean.states[self.journal.end - 1], "wrong final state")
        promise(self.seen["genesis"] == genesis, "the digest stays wrong: Genesis again at every start")
        published = [record.value for record in self.out.records]
        taken = read_by_the_rule(published)
        promise(sorted(taken) == sorted(self.clean.values("allocations")), "outputs differ")
        for topic in ("requests", "alerts"):
            there = {record.value for record in self.cluster.log(topic, 0).records}
            promise(there == set(self.clean.values(topic)), f"{topic} differ")
        self.seen["twice"] += len(published) - len(set(published))


# -- schedules ---------------------------------------------------------------------------------------------------------
def chooser(deviations: list[tuple[int, int]]) -> Callable[[int], int]:
    """Return a `choose` that deviates from "all well" after so many choices, by so much, again and again."""
    script: Iterator[int] = (x for gap, by in deviations for x in (*[0] * gap, by))
    return lambda n: next(script, 0) % n


def by_chance(rng, risk):
    return lambda n: rng.randrange(n) if rng.random() < risk else 0


def some_journal(rng, size):
    entries, source = [], 0
    while len(entries) < size:
        kind = rng.choice(("signal", "signal", "outcome", "step", "latch"))
        entries.append((source, kind, rng.choice("pq"), rng.randrange(3)))
        source += 1
        if rng.random() < 0.15:
            entries += entries[-rng.randrange(1, 3) :]  # ingest tried again
    return entries[:size]


SMALL = [
    (0, "step", "p", 1),
    (1, "signal", "p", 1),
    (2, "latch", "p", 0),
    (3, "latch", "p", 0),
    (4, "outcome", "p", 1),
    (4, "outcome", "p", 1),
    (5, "signal", "p", 2),
    (6, "outcome", "p", 2),
]
DEVIATIONS = st.lists(st.tuples(st.integers(0, 25), st.integers(1, 9)), max_size=12)
ENTRIES = st.lists(
    st.tuples(st.sampled_from(["signal", "outcome", "step", "latch"]), st.sampled_from("pq"), st.integers(0, 2)),
    min_size=1,
    max_size=12,
).map(lambda entries: [(i, *entry) for i, entry in enumerate(entries)])


def after_chance(seeds, **kwargs):
    """Play random schedules; return what was seen, and how each ended that did not keep the promises."""
    seen, bad = Counter(), {}
    for seed in seeds:
        rng = random.Random(seed)
        entries = some_journal(rng, rng.randrange(3, 14))
        world = World(entries, by_chance(rng, rng.choice((0.02, 0.05, 0.1, 0.2, 0.4))), **kwargs)
        try:
            seen += world.play().seen
        except (BrokenPromiseError, ProcessorStopped) as error:
            bad[seed] = f"{error} | {' / '.join(world.trace[-12:])}"
    return seen, bad


@pytest.mark.parametrize("zombies", [True, False])
@settings(max_examples=EXAMPLES, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck))
@given(entries=ENTRIES, deviations=DEVIATIONS)
def test_no_schedule_of_few_mishaps_breaks_a_promise(zombies, entries, deviations):
    world = World(entries, chooser(deviations), zombies=zombies)
    try:
        world.play()
    finally:
        note("\n".join(world.trace))


@pytest.mark.parametrize("zombies", [True, False])
def test_no_random_schedule_breaks_a_promise_and_all_ways_of_recovery_are_walked(zombies):
    seen, bad = after_chance(range(EXAMPLES), zombies=zombies)
    assert bad == {}
    assert seen["local"] > EXAMPLES
    assert seen["checkpoints"] > EXAMPLES
    assert all(seen[mishap] for mishap in ("crash", "crash, wiped", "crash, older store", "moved", "compaction"))
    if zombies:
        assert seen["changelog"]
        assert seen["genesis"]
        assert seen["twice"]


# -- each rule is there for a reason: without it a promise breaks ------------------------------------------------------
class OnlyTheNewVersion(MemoryPorts):
    """Beside the new version does not stand the one at the last `progress`."""

    async def write(self, changes):
        await super().write({key: frame and pack(unpack(frame)[-1]) for key, frame in changes.items()})


class TombstonesAtOnce(MemoryPorts):
    """A deletion is no version: its tombstone comes with it."""

    async def write(self, changes):
        gone = {key for key, frame in changes.items() if frame and unpack(frame)[-1].value is None}
        await super().write({key: None if key in gone else frame for key, frame in changes.items()})


class OnlyWhatDiffers(MemoryPorts):
    """What was touched and has its old value again is not written."""

    async def write(self, changes):
        await super().write({key: frame for key, frame in changes.items() if not self.same(frame)})

    @staticmethod
    def same(frame):
        values = [version.value for version in unpack(frame or b"")]
        return len(values) == 2 and values[0] == values[1]


class ProgressBesideTheRecords(MemoryPorts):
    """`progress` does not wait until the records have landed."""

    async def _deliver(self, records):
        if records and records[0][0] in self._logs.values():
            self.flight += [Flight(*record, place, {}) for place, record in enumerate(records)]
            return []
        return await super()._deliver(records)


class WithoutRepair(Processor):
    """After a fold from Genesis the tables stay wrong."""

    async def _from_genesis(self, progress, stored):
        ports = self._ports
        self._ports = WithoutRepair.Deaf(ports)
        try:
            return await super()._from_genesis(progress, stored)
        finally:
            self._ports = ports

    class Deaf:
        def __init__(self, ports):
            self.source = ports.source

        async def write(self, changes):
            pass


class CarriesNothingOver(Processor):
    """Records recovered with a version above `progress` are written only if touched again."""

    async def _restore(self):
        way, progress, ledger = await super()._restore()
        return way, progress, Ledger(ledger.base, ledger.offset)


WITHOUT = {  # what is taken away; how it shows
    "the older version": ({"ports": OnlyTheNewVersion, "zombies": False}, "folded from Genesis"),
    "deletions as versions": ({"ports": TombstonesAtOnce, "zombies": False}, "folded from Genesis"),
    "writing old values again": ({"ports": OnlyWhatDiffers, "zombies": False}, "folded from Genesis"),
    "awaiting the records": ({"ports": ProgressBesideTheRecords, "zombies": False}, "folded from Genesis"),
    "repair": ({"processor": WithoutRepair}, "the digest stays wrong"),
    "seeking": ({"seek": False}, "expected offset"),
}


@pytest.mark.parametrize("rule", WITHOUT)
def test_without_a_rule_some_schedule_breaks_a_promise(rule):
    kwargs, expected = WITHOUT[rule]
    for seed in range(1000):
        _, bad = after_chance([seed], **kwargs)
        if bad:
            assert expected in bad[seed]
            return
    pytest.fail(f"nothing breaks without {rule}")


# -- what must stop, stops ---------------------------------------------------------------------------------------------
class CrashError(Exception):
    """The process is gone."""


class CrashAt:
    """A `pause` that crashes when a step is reached for the n-th time."""

    def __init__(self, step, nth=1):
        self.step, self.left = step, nth

    async def __call__(self, step):
        self.left -= step == self.step
        if self.left == 0:
            raise CrashError(step)


class Ways:
    """An observer that notes by which ways states came back."""

    def __init__(self, ways):
        self.ways = ways

    def recovered(self, way, _offset, _elapsed_ns):
        self.ways.append(way)

    def taken(self, _records, _sends):
        pass

    def checkpointed(self, _offset, _records, _elapsed_ns):
        pass


class House:
    """A cluster with one journal partition; each life is a new worker, with the disk of the one before."""

    def __init__(self, entries, processor=Processor):
        self.cluster, self.disk, self.processor_class = MemoryCluster(), LocalStore(), processor
        for topic in (SOURCE, "allocations", "requests", "alerts"):
            self.cluster.create(topic, 2)
        self.journal, self.out = self.cluster.log(SOURCE, PARTITION), self.cluster.log("allocations", PARTITION)
        self.extend(entries)

    def extend(self, entries):
        for entry in entries:
            self.journal.append(b"k", orjson.dumps(entry))

    def table(self, table):
        return self.cluster.changelog("toy", table, PARTITION)

    def live(self, *, every=1000, flip=None, crash=None):
        """Recover and take the journal to its end, a checkpoint every so many entries; return the ways walked."""
        fold, ways = ToyFold(flip), []
        place = {"processor": "toy", "source": SOURCE, "partition": PARTITION, "tables": fold.tables}
        ports = MemoryPorts(self.cluster, **place, store=self.disk, pause=crash)
        processor = self.processor_class(
            fold, ports, partition=PARTITION, clock=lambda: 0, checkpoint_entries=every, observer=Ways(ways)
        )

        async def whole_life():
            for record in self.journal.read(await processor.recover()):
                await processor.take([record], lambda: None)

        try:
            asyncio.run(whole_life())
        except CrashError:
            ways.append("crash")
        assert crash is None or ways[-1] == "crash"
        self.state = fold.records()
        return ways


SIGNALS = [(i, "signal", "p", 1) for i in range(6)]


def test_a_fold_that_errs_after_a_restart_is_stopped_by_what_is_published():
    house = House(SIGNALS)
    house.live(every=2, flip=None)
    house.extend([(6, "signal", "p", 1)])
    house.live(every=2)
    with pytest.raises(
        ProcessorStopped, match=r"allocations partition 1: entry 6 gives an output that differs .*sequence=7"
    ):
        house.live(flip=6)


def test_a_fold_that_erred_before_the_restart_is_stopped_too():
    house = House(SIGNALS)
    house.live(flip=5)
    with pytest.raises(ProcessorStopped, match="entry 5 gives an output that differs"):
        house.live()


def test_every_copy_of_an_output_is_compared():
    house = House(SIGNALS)
    house.live()
    last = house.out.records[-1]
    house.out.append(last.key, last.value.replace(b'"size":', b'"size":1'))
    with pytest.raises(ProcessorStopped, match="entry 5 gives an output that differs"):
        house.live()


def test_an_output_that_does_not_come_out_again_stops():
    house = House(SIGNALS)
    house.live()
    stray = orjson.dumps({**orjson.loads(house.out.records[-1].value), "portfolio": "q"})
    house.out.append(b"q", stray)
    with pytest.raises(ProcessorStopped, match="entry 5 does not reproduce the output at 6"):
        house.live()


@pytest.mark.parametrize("value", [b"{", b"{}", b"[]"])
def test_a_record_among_the_outputs_that_is_none_stops(value):
    house = House(SIGNALS)
    house.live()
    house.out.append(b"q", value)
    with pytest.raises(ProcessorStopped, match="the record at 6 is not an output"):
        house.live()


def test_an_output_that_nobody_saw_land_is_not_sent_twice_and_a_missing_one_is_sent():
    house = House(SIGNALS)
    house.live(crash=CrashAt("issued", 8))
    there = len(house.out.records)
    assert 0 < there < 6
    house.live()
    assert [orjson.loads(record.value)["sequence"] for record in house.out.records] == [1, 2, 3, 4, 5, 6]


def test_a_journal_that_lost_its_tail_below_progress_stops():
    house = House(SIGNALS)
    house.live(every=3)
    house.journal.lose(5)
    with pytest.raises(ProcessorStopped, match="partition 1: the entry at 5, which was folded, is gone"):
        house.live()


class DoesNotReadTheEntryAgain(Processor):
    async def _check_anchor(self, progress):
        pass


@pytest.mark.parametrize("processor", [Processor, DoesNotReadTheEntryAgain])
def test_a_journal_that_lost_its_tail_and_got_another_stops_by_its_anchor_alone(processor):
    house = House([(i, "step", "p", 1) for i in range(6)], processor)
    house.live(every=3)
    house.journal.lose(5)
    house.extend([(5, "step", "p", 2), (6, "step", "p", 2)])
    if processor is Processor:
        with pytest.raises(ProcessorStopped, match="the entry at 5 is not the one that was folded"):
            house.live()
    else:
        house.live()
        assert house.state != Clean(house.journal).states[6]


def test_an_output_past_the_journals_end_stops():
    house = House(SIGNALS)
    house.live(every=4)
    house.journal.lose(5)
    with pytest.raises(ProcessorStopped, match="allocations holds an output of entry 5, past the source's end 5"):
        house.live()


def test_a_journal_that_lost_a_tail_above_progress_and_got_another_stops_by_what_is_published():
    house = House(SIGNALS)
    house.live(every=4)
    house.journal.lose(5)
    house.extend([(5, "step", "p", 2), (6, "signal", "p", 2)])
    with pytest.raises(ProcessorStopped, match="entry 5 does not reproduce the output at 5"):
        house.live()


def test_a_hole_in_the_journal_stops_and_is_named():
    house = House(SIGNALS[:3])
    house.journal.skip(2)
    house.extend(SIGNALS[3:])
    with pytest.raises(ProcessorStopped, match="partition 1: expected offset 3, found 5"):
        house.live()


def test_a_hole_met_while_folding_from_genesis_stops():
    house = House(SIGNALS)
    house.live(every=6)
    house.disk.wipe()
    del house.journal.records[2]
    house.table("books").append(b"p", pack(Version(1, b'[9,"-"]')))
    with pytest.raises(ProcessorStopped, match="expected offset 2, found 3"):
        house.live()


def test_a_journal_whose_head_is_gone_serves_as_long_as_the_next_entry_is_there():
    house = House(SIGNALS)
    house.live(every=6)
    house.journal.retain(6)
    assert house.live() == ["local"]
    house.extend([(6, "step", "p", 1), (7, "step", "p", 1)])
    house.journal.retain(7)
    with pytest.raises(ProcessorStopped, match="partition 1: the source begins at 7, expected 6"):
        house.live()


def test_tables_that_another_writer_spoiled_are_folded_anew_and_repaired():
    house = House(SIGNALS)
    house.live(every=6)
    for table, key, value in (("books", b"p", b"[9]"), ("targets", b"stray", b"1")):
        house.table(table).append(key, pack(Version(1, value)))
    house.table("claims").append(b"p1", b"damaged")
    assert house.live() == ["genesis"]
    assert house.state == Clean(house.journal).states[5]
    assert house.live() == ["local"]
    house.disk.wipe()
    assert house.live() == ["local"]
    assert house.table("targets").records[-1][1:3] == (b"stray", None)


def test_a_wrong_local_store_is_made_anew_from_the_changelogs():
    house = House(SIGNALS)
    house.live(every=6)
    house.disk.records["books", b"p"] = pack(Version(1, b"[9]"))
    assert house.live() == ["changelog"]
    assert house.state == Clean(house.journal).states[5]
    assert house.live() == ["local"]


def test_a_fold_from_genesis_with_another_digest_stops():
    house = House([(i, "step", "p", 1) for i in range(6)])
    house.live(every=6)
    house.table("markets").append(b"BTC", pack(Version(1, b"9")))
    house.journal.records[2] = house.journal.records[2]._replace(value=orjson.dumps((2, "step", "p", 2)))
    with pytest.raises(ProcessorStopped, match=r"the fold up to 5 has digest [0-9a-f]{64}, expected [0-9a-f]{64}"):
        house.live()


@pytest.mark.parametrize("spoiled", [False, True])
@pytest.mark.parametrize(("processor", "way"), [(Processor, "local"), (CarriesNothingOver, "genesis")])
def test_a_version_above_progress_does_not_outlive_the_entry_it_came_from(processor, way, spoiled):
    house = House([(0, "step", "p", 1), (1, "latch", "p", 0)], processor)
    house.live(every=2)
    house.extend([(2, "step", "p", 1), (3, "step", "p", 1)])
    house.live(every=2, crash=CrashAt("acknowledged"))  # the records have landed, progress has not
    house.journal.lose(2)  # nothing was published of these
    house.extend([(2, "outcome", "p", 1), (3, "outcome", "p", 2)])
    if spoiled:
        house.table("targets").append(b"stray", pack(Version(1, b"1")))
    assert house.live(every=2) == ["genesis" if spoiled else "local"]
    assert house.live() == [way]
    assert house.state == Clean(house.journal).states[3]
