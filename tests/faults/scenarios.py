"""Every fault, as one table: its name, how it hurts, and what must hold beside what the judge holds of all."""

import asyncio
import json
import resource
import shutil
import signal
import time
from collections.abc import Awaitable, Callable, Collection, Sequence
from contextlib import asynccontextmanager
from typing import NamedTuple

import orjson
from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewPartitions
from aiokafka.admin.records_to_delete import RecordsToDelete
from aiokafka.structs import TopicPartition
from broker.cluster import PARTITIONS
from faults.judge import records
from faults.rig import SESSION_S, Rig

from engines.allocation import DECISION_VERSION
from streams.journal import entries as journal
from streams.kafka.append import OutgoingRecord
from streams.processing.clock import ENVIRONMENT as CLOCK
from streams.processing.clock import SECOND_NS, Clock
from streams.processing.crashpoints import ENVIRONMENT, POINTS

Hurt = Callable[[Rig], Awaitable[None]]

ONCE_A_PARTITION = 4
"""Partitions that one worker recovers: two of the journal, two of prices."""
KILLED = -int(signal.SIGKILL)
SELDOM = {"checkpoint_interval_s": 3_600.0, "checkpoint_entries": 1_000_000}
"""No checkpoint while a test looks: what is folded lies above `progress`."""


class Scenario(NamedTuple):
    """One fault. The judge holds after each: all answered once, sequences, chain, state, `audit verify`."""

    name: str
    hurt: Hurt
    holds: str
    """What `hurt` itself holds."""
    two_owners: bool = False
    """Whether a worker may write what another owns already: see `Rig.verdict`."""
    own_broker: bool = False
    short: bool = True
    """Whether it is in the short version, which `make test` runs."""


# -- kill -9 -------------------------------------------------------------------------------------------------------
async def killed_at_random(rig: Rig) -> None:
    (worker,) = await rig.up("a")
    async with rig.load.flowing():
        for _ in range(2):
            await rig.flow()
            await worker.kill()
            await rig.up("a")
        await rig.flow()


async def killed_far_above(rig: Rig) -> None:
    """All that it published lies above the checkpoint: the next one reads it back and does not publish it again."""
    (worker,) = await rig.up("a", **SELDOM)
    async with rig.load.flowing():
        for often in (SELDOM, {}):
            await rig.flow()
            await worker.kill()
            await rig.up("a", **often)
        await rig.flow()


def killed_at(*points: str) -> Hurt:
    async def hurt(rig: Rig) -> None:
        """Let the worker die at each place in turn, of whichever partition and table comes there first or later."""
        worker = rig.member("a")
        async with rig.load.flowing():
            for point in points:
                passage = rig.chance.randint(1, ONCE_A_PARTITION if point in {"restored", "known"} else 12)
                await worker.start({ENVIRONMENT: f"{point}:{passage}"})
                assert await worker.over() == KILLED, f"{point}: {worker.said()}"
            await rig.up("a")
            await rig.flow()

    return hurt


# -- several workers -------------------------------------------------------------------------------------------------
async def rebalanced(rig: Rig) -> None:
    a, b, c = (rig.member(name) for name in "abc")
    await rig.up("a")
    async with rig.load.flowing():
        await rig.flow()
        await b.start()
        await c.start()
        await rig.flow(SESSION_S + 2, SESSION_S + 4)
        await (a, b, c)[rig.chance.randrange(3)].kill()
        await rig.flow()
        await next(each for each in (a, b, c) if each.running).leave()
        await rig.flow(SESSION_S, SESSION_S + 2)
        await rig.up(next(each.name for each in (a, b, c) if not each.running))


async def all_killed(rig: Rig) -> None:
    a, b = await rig.up("a", "b")
    async with rig.load.flowing():
        await rig.flow()
        await asyncio.gather(a.kill(), b.kill())
        await rig.up("b", "a")
        await rig.flow()


def zombie(*, successor_waits: bool) -> Hurt:
    async def hurt(rig: Rig) -> None:
        """Pause a worker past its session, let another take over, and wake it: it dies with a reason, or rejoins."""
        (a,) = await rig.up("a")
        if successor_waits:
            await rig.up("b")
        async with rig.load.flowing():
            await rig.flow()
            a.hit(signal.SIGSTOP)
            if not successor_waits:
                await rig.up("b")
            await rig.flow(SESSION_S + 2, SESSION_S + 4)
            a.hit(signal.SIGCONT)
            await rig.flow(SESSION_S + 2, SESSION_S + 4)
            assert a.running or (a.process.returncode and a.said()), "it ended without a reason"

    return hurt


# -- broker, disk ----------------------------------------------------------------------------------------------------
async def broker_killed(rig: Rig) -> None:
    (worker,) = await rig.up("a")
    async with rig.load.flowing():
        await rig.flow()
        rig.broker.child.kill()
        rig.broker.child.wait()
        await rig.flow()
        rig.broker.start()
        await rig.broker.ready()
        await rig.flow(3.0, 4.0)
    if not worker.running:
        assert worker.process.returncode in {1, 6}, worker.process.returncode
        assert worker.said(), "it ended without a reason"


async def deleted_store(rig: Rig) -> None:
    (worker,) = await rig.up("a")
    async with rig.load.flowing():
        await rig.flow()
        await worker.kill()
        worker.forget()
        await rig.up("a")
        await rig.flow()


async def older_store(rig: Rig) -> None:
    (worker,) = await rig.up("a")
    async with rig.load.flowing():
        await rig.flow()
        await worker.leave()
        shutil.copytree(worker.folder / "state", worker.folder / "copy")
        await rig.up("a")
        await rig.flow()
        await worker.kill()
        worker.forget()
        (worker.folder / "copy").rename(worker.folder / "state")
        await rig.up("a")
        await rig.flow()


async def disk_full(rig: Rig) -> None:
    """No file of the worker may grow past what RocksDB's log has reached."""
    (worker,) = await rig.up("a")
    limit = 48 << 10
    async with rig.load.flowing():
        await rig.flow()
        resource.prlimit(worker.process.pid, resource.RLIMIT_FSIZE, (limit, limit))
        await worker.refuses(1, "File too large")
        await rig.up("a")
        await rig.flow()


async def spoiled_tables(rig: Rig) -> None:
    """Somebody wrote into a table and its store is gone: state is folded anew from Genesis."""
    (worker,) = await rig.up("a")
    async with rig.load.flowing():
        await rig.flow()
        await worker.kill()
        worker.forget()
        spoiled = TopicPartition(rig.cluster.names.changelog("predictions"), 0)
        async with producing(rig) as producer:
            await producer.send_and_wait(
                spoiled.topic, b"spoiled", key=(0).to_bytes(4, "big") + b"main|momentum|BTC-USD", partition=0
            )
        await rig.up("a")
        await rig.flow()


# -- sources ---------------------------------------------------------------------------------------------------------
async def repeated(rig: Rig) -> None:
    await rig.up("a")
    for _ in range(2):
        await rig.load.burst(10)
        await rig.load.repeat()


async def created_anew(rig: Rig) -> None:
    (worker,) = await rig.up("a")
    async with rig.load.flowing():
        await rig.flow()
        await rig.checkpointed()
    await rig.settled()
    await worker.leave()
    for topic in ("signals", "prices"):
        await rig.cluster.create_anew(topic)
        await worker.start()
        await worker.refuses(1, f"himari topics adopt {topic}")
        code, _, err = await rig.cluster.himari("topics", "adopt", topic)
        assert code == 0, err
    await rig.up("a")
    async with rig.load.flowing():
        await rig.flow()


async def grown(rig: Rig) -> None:
    (worker,) = await rig.up("a")
    async with rig.load.flowing():
        await rig.flow()
        async with administering(rig) as admin:
            await admin.create_partitions({rig.cluster.names.topic("signals"): NewPartitions(4)})
    rig.load.partitions, rig.load.portfolios = 4, ("delta", "epsilon", "zeta", "eta", "theta")
    async with rig.load.flowing():
        await rig.flow()
        await worker.kill()
        code, out, err = await rig.cluster.himari("topics", "apply")
        assert code == 0, out + err
        await rig.up("a")
        await rig.flow()


# -- journal and allocations -----------------------------------------------------------------------------------------
Damage = Callable[[list[OutgoingRecord], int], list[OutgoingRecord]]
"""Lines, and the place of one that decided something."""


def changed(record: OutgoingRecord) -> OutgoingRecord:
    """Return a record with one byte changed: a digit of its time, or of its value."""
    value = record.value or b""
    mark = b'"timestamp_ns":' if b'"timestamp_ns":' in value else b'\\"timestamp_ns\\":'
    place = value.index(mark) + len(mark) + 9
    return record._replace(
        value=value[:place] + (b"1" if value[place : place + 1] == b"0" else b"0") + value[place + 1 :]
    )


def deciding(lines: Sequence[OutgoingRecord], answered: Collection[bytes]) -> int:
    """Return where the last allocation stands, or the last signal that was answered: not an older one, no copy."""
    first: dict[bytes, int] = {}
    for number, line in enumerate(lines):
        value = line.value or b""
        if b'"kind":"signal"' in value:
            first.setdefault(orjson.loads(value).get("value", "").encode(), number)
    return max((number for value, number in first.items() if value in answered), default=len(lines) - 1)


def one_byte(lines: list[OutgoingRecord], place: int) -> list[OutgoingRecord]:
    return [*lines[:place], changed(lines[place]), *lines[place + 1 :]]


def dropped(lines: list[OutgoingRecord], place: int) -> list[OutgoingRecord]:
    return [*lines[:place], *lines[place + 1 :]]


def damaged(topic: str, damage: Damage, reason: str, *, checkpointed: bool) -> Hurt:
    async def hurt(rig: Rig) -> None:
        """Damage the log while no worker runs: it stops, verification fails; with the true log it goes on."""
        await rig.up("a")
        async with rig.load.flowing():
            await rig.flow()
        await rig.settled()
        await rig.member().leave()
        if not checkpointed:
            await rig.up("a", **SELDOM)
            async with rig.load.flowing():
                await rig.flow()
            await rig.settled(checkpointed=False)
            await rig.member().kill()
        true = await rig.saved(topic)
        answered = {each.value for each in rig.load.sent if each.fate == "answered"}
        await rig.rewrite(topic, [damage(lines, deciding(lines, answered)) for lines in true])
        await rig.member().start()
        await rig.member().refuses(1, reason)
        await rig.refuted()
        await rig.rewrite(topic, true)

    return hurt


async def journal_head_gone(rig: Rig) -> None:
    """Somebody ran kafka-delete-records, or gave the journal a retention."""
    (worker,) = await rig.up("a", **SELDOM)
    async with rig.load.flowing():
        await rig.flow()
    await rig.settled(checkpointed=False)
    await worker.kill()
    true = await rig.saved("journal")
    async with administering(rig) as admin:
        place = TopicPartition(rig.cluster.names.topic("journal"), 1)
        await admin.delete_records({place: RecordsToDelete(before_offset=len(true[1]) // 2)})
    await worker.start()
    await worker.refuses(1, "entries of the journal were deleted")
    code, _, err = await rig.cluster.himari("topics", "apply")
    assert (code, "entries of the journal were deleted" in err) == (1, True), err
    await rig.refuted()
    await rig.rewrite("journal", true)


async def journal_gap(rig: Rig) -> None:
    """A transaction's marker takes an offset of the journal: no entry stands there."""
    (worker,) = await rig.up("a")
    await rig.load.burst(3)
    await rig.settled()
    async with producing(rig, transactional_id=rig.cluster.names.prefix) as producer, producer.transaction():
        tick = journal.internal("tick", {}, time.time_ns())
        await producer.send(rig.cluster.names.topic("journal"), tick, partition=0)
    for _ in range(2):
        await worker.refuses(1, "expected")
        await worker.start()
    await worker.refuses(1, "expected")
    found = await records(rig.cluster, "journal")
    whole = [[r for number, r in enumerate(found["journal", n]) if r.offset == number] for n in range(PARTITIONS)]
    await rig.rewrite("journal", [[OutgoingRecord(r.key, r.value, r.headers) for r in each] for each in whole])


async def other_version(rig: Rig) -> None:
    """The journal's Genesis is of a decision version that this worker does not know."""
    true = await rig.saved("journal")
    await rig.rewrite("journal", [[of_version(lines[0], DECISION_VERSION + 97)] for lines in true])
    await rig.member().start()
    await rig.member().refuses(8, f"decision version {DECISION_VERSION + 97}")
    await rig.rewrite("journal", true)
    await rig.up("a")
    await rig.load.burst(3)


def of_version(line: OutgoingRecord, version: int) -> OutgoingRecord:
    fields = orjson.loads(line.value or b"")
    body = orjson.loads(fields["value"]) | {"decision_version": version}
    fields["value"] = orjson.dumps(body, option=orjson.OPT_SORT_KEYS).decode()
    return line._replace(value=orjson.dumps(fields, option=orjson.OPT_SORT_KEYS))


# -- settings, clocks ------------------------------------------------------------------------------------------------
async def two_settings(rig: Rig) -> None:
    """Two operators change settings at the same moment: one wins, everywhere the same one."""
    await rig.up("a", "b")
    files = [rig.folder / f"wanted-{number}.yaml" for number in range(2)]
    for number, file in enumerate(files):
        file.write_text(json.dumps({"risk_management": {"max_position_pct": 0.05 + number / 100}}))
    async with rig.load.flowing():
        for _ in range(3):
            applied = [rig.cluster.himari("config", "apply", str(file), "--wait") for file in files]
            for code, out, err in await asyncio.gather(*applied):
                said = {line.partition(": ")[2].partition(":")[0] for line in out.splitlines() if "partition" in line}
                assert (len(said), code in {0, 1}) == (1, True), out + err


def shifted(seconds: float) -> dict[str, str]:
    """Return the environment of a worker whose clock is off."""
    now_ns = time.time_ns()
    return {CLOCK: str(Clock(now_ns + int(seconds * SECOND_NS), 1, now_ns))}


async def clock_stepped(rig: Rig) -> None:
    """An hour ahead, back, and two workers whose clocks differ by an hour and more, in turns on one journal."""
    (worker,) = await rig.up("a")
    for step_s in (3_600.0, -3.0):
        async with rig.load.flowing():
            await rig.flow()
            await worker.kill()
            await rig.up("a", environment=shifted(step_s))
            await rig.flow()
    async with rig.load.flowing():
        await rig.up("b", environment=shifted(4_000.0))
        await rig.flow()
    await rig.settled()


async def clock_behind(rig: Rig) -> None:
    """An hour behind, everything seems to be of the future: it is refused, whole, and nothing is lost."""
    (worker,) = await rig.up("a")
    async with rig.load.flowing():
        await rig.flow()
    await rig.settled()
    await worker.leave()
    rig.load.ahead = True
    await rig.up("a", environment=shifted(-3_600.0))
    await rig.load.burst(10)
    await rig.settled()
    await worker.leave()
    rig.load.ahead = False
    await rig.up("a")
    async with rig.load.flowing():
        await rig.flow()


# -- below -----------------------------------------------------------------------------------------------------------
@asynccontextmanager
async def producing(rig: Rig, **options: object):
    producer = AIOKafkaProducer(**rig.cluster.connection.options(), acks="all", **options)
    await producer.start()
    try:
        yield producer
    finally:
        await producer.stop()


@asynccontextmanager
async def administering(rig: Rig):
    client = AIOKafkaAdminClient(**rig.cluster.connection.options())
    await client.start()
    try:
        yield client
    finally:
        await client.close()


OTHER = "gives an output that differs"
SCENARIOS = (
    Scenario("kill -9 at random times", killed_at_random, "the next start is ready"),
    Scenario("kill -9 far above a checkpoint", killed_far_above, "what was published is read back"),
    Scenario("kill -9 at each crash point", killed_at(*POINTS), "each is really reached"),
    *(Scenario(f"kill -9 at {point}", killed_at(point), "it is really reached", short=False) for point in POINTS),
    Scenario("kill -9 of two workers at once", all_killed, "the next starts are ready", two_owners=True),
    Scenario("joins, leaves and kills of three", rebalanced, "each leaves with exit 0", two_owners=True),
    Scenario("zombie, the successor there", zombie(successor_waits=True), "it dies or rejoins", two_owners=True),
    Scenario("zombie, the successor comes", zombie(successor_waits=False), "it dies or rejoins", two_owners=True),
    Scenario("broker killed and restarted", broker_killed, "the worker lives, or says why", own_broker=True),
    Scenario("local RocksDB deleted", deleted_store, "the next start is ready"),
    Scenario("local RocksDB of an older copy", older_store, "the next start is ready"),
    Scenario("disk full for RocksDB", disk_full, "exit 1 with the reason"),
    Scenario("a table spoiled by a stranger", spoiled_tables, "folded anew from Genesis"),
    Scenario("duplicates and late data", repeated, "none is answered"),
    Scenario("sources created anew", created_anew, "refused until adopted"),
    Scenario("a source grown in partitions", grown, "new partitions are read"),
    Scenario(
        "an allocation with another byte",
        damaged("allocations", one_byte, OTHER, checkpointed=False),
        "exit 1 with the reason, verify 4",
    ),
    Scenario(
        "a journal entry with another byte",
        damaged("journal", one_byte, "output", checkpointed=False),
        "exit 1 with the reason, verify 4",
    ),
    Scenario(
        "a journal entry gone",
        damaged("journal", dropped, "output", checkpointed=False),
        "exit 1 with the reason, verify 4",
    ),
    Scenario(
        "a journal entry gone below the checkpoint",
        damaged("journal", dropped, "the source lost its last records", checkpointed=True),
        "exit 1 with the reason, verify 4",
    ),
    Scenario("the journal's head deleted", journal_head_gone, "exit 1 with the reason, verify 4"),
    Scenario("a gap in the journal's offsets", journal_gap, "exit 1 with the reason"),
    Scenario("a journal of another decision version", other_version, "exit 8 with the reason"),
    Scenario("two settings at once", two_settings, "one answer on all partitions", two_owners=True),
    Scenario("clock an hour ahead, and back", clock_stepped, "journal time never goes back", two_owners=True),
    Scenario("clock an hour behind", clock_behind, "what seems of the future is refused, whole"),
)
