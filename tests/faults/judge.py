"""The one after-check of every fault: what was sent, what the cluster holds, and whether the two agree."""

import asyncio
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import aclosing
from typing import NamedTuple

import orjson
from aiokafka import TopicPartition
from broker.cluster import PARTITIONS, Cluster
from faults.load import Load, Sent

from schemas.errors import AllocationFork, AllocationGap
from streams.journal import entries as journal
from streams.kafka import read
from streams.kafka.state_snapshot import checkpoints
from streams.processing.checkpoint import Ledger, Progress
from streams.processing.partitioner import partition_of
from streams.processing.ports import Record
from streams.reports.allocation_reader import AllocationReader
from streams.stages.ingest import EVERYWHERE, INTAKES
from streams.stages.sizing import SizingFold

PATIENCE_S = 90.0
POLL_S = 0.3
LOGS = ("journal", "allocations")
LETTERS = tuple(f"{topic}.dlq" for topic in INTAKES)


class Findings(NamedTuple):
    """What the judge found after one fault; `problems` is empty where all held."""

    signals: int
    """Sent and acknowledged by the broker."""
    answered: int
    dropped: int
    """Duplicates and older ones that rightly got no answer."""
    refused: int
    """Signals that are, whole, on the dead-letter topic."""
    lost: int
    """Signals without the answer they must have."""
    twice: int
    """Signals answered more than once, or that must not be answered and are."""
    repeats: int
    """Allocations that were published again with equal bytes."""
    inputs_lost: int
    """Inputs of any kind, steps of prices among them, that are not in the journal where they belong."""
    problems: tuple[str, ...]
    spoiled: int = 0
    """Partitions whose tables are not what their `progress` stands for: recovery must see it, and fold anew."""


class View(NamedTuple):
    """What an `AllocationReader` sees of one journal partition, beside that partition."""

    entries: list[Record]
    answers: Counter[str]
    """Distinct allocations that answer each signal."""
    repeats: int
    broken: str
    """Why the reader halted, "" where it did not."""


def view(entries: Sequence[Record], published: Iterable[bytes]) -> View:
    """Read a partition of `allocations` as every consumer must."""
    reader, answers, broken = AllocationReader(whole=True), Counter[str](), ""
    try:
        for value in published:
            taken = reader.take(value)
            if taken is not None and taken.fields["trigger"]["kind"] == "signal":
                answers[taken.fields["trigger"]["id"]] += 1
    except (AllocationFork, AllocationGap) as error:
        broken = str(error)
    return View(list(entries), answers, reader.repeats, broken)


def weigh(sent: Sequence[Sent], steps: set[tuple[int, int]], views: Sequence[View], letters: set[bytes]) -> Findings:
    """Hold what was sent against what the partitions and the dead letters say."""
    answers = sum((each.answers for each in views), Counter())
    signals = [each for each in sent if each.topic == "signals"]
    refused = [each for each in signals if each.value in letters]
    expected = {each.signal_id for each in signals if each.fate == "answered" and each.value not in letters}
    unwanted = {each.signal_id for each in signals if each.fate in {"older", "refused"}}
    lost = sorted(expected - answers.keys())
    twice = sorted(name for name, count in answers.items() if count > 1 or name in unwanted)
    missing = _not_journaled(sent, views, letters) + _steps_missing(steps, views)
    strayed = [each.signal_id for each in signals if (each.fate == "refused") != (each.value in letters)]
    problems = [f"partition {number}: {each.broken}" for number, each in enumerate(views) if each.broken]
    for what, found in (
        ("lost", lost),
        ("twice", twice),
        ("not journaled", missing),
        ("wrongly refused or not", strayed),
    ):
        if found:
            problems.append(f"{len(found)} {what}: {', '.join(map(str, found[:3]))}")
    dropped = sum(each.fate in {"duplicate", "older"} for each in signals)
    repeats = sum(each.repeats for each in views)
    answered = len(expected & answers.keys())
    return Findings(
        len(signals), answered, dropped, len(refused), len(lost), len(twice), repeats, len(missing), tuple(problems)
    )


def _not_journaled(sent: Sequence[Sent], views: Sequence[View], letters: set[bytes]) -> list[str]:
    """Name what was sent and is not in the journal partitions where it belongs, nor a dead letter."""
    held = [{orjson.loads(record.value or b"")["value"].encode() for record in each.entries} for each in views]
    missing = []
    for each in sent:
        everywhere = each.portfolio == EVERYWHERE
        homes = range(len(views)) if everywhere else [partition_of(each.portfolio.encode(), len(views))]
        if each.topic != "prices" and each.value not in letters and not all(each.value in held[home] for home in homes):
            missing.append(f"{each.topic} {each.value.decode()}")
    return missing


def _steps_missing(steps: set[tuple[int, int]], views: Sequence[View]) -> list[str]:
    """Name the steps in which ticks were sent and that a journal partition does not hold."""
    missing = []
    for number, each in enumerate(views):
        bodies = [journal.read(r.offset, r.value or b"") for r in each.entries if b'"kind":"step"' in (r.value or b"")]
        held = {(entry.body["source_partition"], entry.body["step"]) for entry in bodies}
        missing += [f"step {step} of prices[{place}] in partition {number}" for place, step in sorted(steps - held)]
    return missing


def progress_differs(partition: int, entries: Sequence[Record], progress: Progress) -> str:
    """Return how a `progress` differs from a clean fold of the journal up to it, "" where it does not."""
    fold = SizingFold(partition)
    for record in entries[: progress.offset + 1]:
        fold.fold(record)
    clean = Ledger.of(fold.touched, fold.encode, progress.offset)
    if (progress.digest, progress.meta) == (clean.digest, fold.meta()):
        return ""
    return f"partition {partition}: digest or meta of progress {progress.offset} differs from a clean fold"


async def records(cluster: Cluster, *topics: str) -> dict[tuple[str, int], list[Record]]:
    """Return what each partition of some topics holds."""
    names = {cluster.names.topic(topic): topic for topic in topics}
    found: dict[tuple[str, int], list[Record]] = {
        (topic, partition): [] for topic in topics for partition in range(PARTITIONS)
    }
    places = {TopicPartition(name, partition): 0 for name in names for partition in range(PARTITIONS)}
    async with aclosing(read.records_of(cluster.connection, places)) as everything:
        async for record in everything:
            found[names[record.topic], record.partition].append(record)
    return found


async def look(cluster: Cluster) -> tuple[list[View], set[bytes]]:
    """Read journal, allocations and dead letters."""
    found = await records(cluster, *LOGS, *LETTERS)
    views = [
        view(found["journal", partition], [record.value or b"" for record in found["allocations", partition]])
        for partition in range(PARTITIONS)
    ]
    return views, {
        record.value or b"" for (topic, _), letters in found.items() if topic in LETTERS for record in letters
    }


async def settled(cluster: Cluster, load: Load, *, checkpointed: bool) -> str:
    """Wait until every input is journaled, answered and in a checkpoint; return what is not, after a while."""
    missing = "everything"
    deadline = asyncio.get_running_loop().time() + PATIENCE_S
    while missing and asyncio.get_running_loop().time() < deadline:
        views, letters = await look(cluster)
        found = weigh(load.sent, load.steps, views, letters)
        missing = "; ".join(found.problems)
        if checkpointed and not missing:
            missing = await _above(cluster, views)
        await asyncio.sleep(POLL_S)
    return missing


async def _above(cluster: Cluster, views: Sequence[View]) -> str:
    """Return which partition has signals that no checkpoint holds yet, "" where none has."""
    at = await checkpoints(cluster.connection, cluster.names, range(len(views)))
    for partition, each in enumerate(views):
        last, found = last_signal(each.entries), at[partition][0].offset if partition in at else -1
        if last > found:
            return f"partition {partition}: checkpoint at {found}, below {last}"
    return ""


def last_signal(entries: Sequence[Record]) -> int:
    """Return the offset of the last signal, -1 where there is none."""
    return max((r.offset for r in entries if b'"kind":"signal"' in (r.value or b"")), default=-1)


async def judge(cluster: Cluster, load: Load, *, two_owners: bool) -> Findings:
    """Judge a cluster whose workers have stopped cleanly: answers, chain, state, and `himari audit verify`.

    `two_owners`: whether two workers can have published one allocation each (of equal bytes).
    """
    views, letters = await look(cluster)
    found = weigh(load.sent, load.steps, views, letters)
    problems = list(found.problems)
    at = await checkpoints(cluster.connection, cluster.names, range(PARTITIONS))
    problems += [f"partition {partition}: no checkpoint" for partition in range(PARTITIONS) if partition not in at]
    differ = [
        progress_differs(partition, views[partition].entries, progress) for partition, (progress, _) in at.items()
    ]
    spoiled = [partition for partition, (progress, ledger) in at.items() if ledger.digest != progress.digest]
    problems += [differs for differs in differ if differs]
    problems += [f"partition {partition}: the tables are not those of its progress" for partition in spoiled]
    if found.repeats and not two_owners:
        problems.append(f"{found.repeats} allocations were published twice (equal bytes) by one owner after another")
    code, out, err = await cluster.himari("audit", "verify", "--json")
    if code:
        problems.append(f"audit verify: exit {code}: {out or err}")
    return found._replace(problems=tuple(problems), spoiled=len(spoiled))
