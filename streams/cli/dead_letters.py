"""`himari dlq`: list, inspect and replay dead letters."""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, get_args

import click

from schemas.errors import NotFound
from schemas.vocabulary import ErrorCode
from streams.cli.common import clock, common, connection, loaded, names, short
from streams.cli.terminal import say, say_all, say_json
from streams.journal.dead_letters import Letter, again, line, lines, summary, whole
from streams.journal.topics import DLQ, INPUTS, Names
from streams.kafka import dead_letters as kafka
from streams.kafka import read
from streams.kafka.connection import Connection
from streams.kafka.state_snapshot import folded_all
from streams.processing.ports import Send
from streams.stages.replay_trial import Trial, entries, refused

SOURCES = tuple(topic.name for topic in INPUTS)
REPLAYED, WOULD, BEFORE, KEPT = "replayed", "would be replayed", "replayed before", "kept"

CODE = click.option(
    "--code",
    type=click.Choice(get_args(ErrorCode)),
    metavar="CODE",
    help="Only dead letters with this himari.error.code.",
)


@click.group()
def dlq() -> None:
    """List, show and replay dead letters."""


@dlq.command("list")
@click.option("--topic", help="Only dead letters of this input topic.")
@CODE
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object per line.")
@common
def list_letters(
    config: str | None, bootstrap: str | None, topic: str | None, code: str | None, *, as_json: bool
) -> None:
    """List dead letters in time order: topic, partition, offset, code, field, message."""
    asked = SOURCES if topic is None else (_source(topic),)
    settings = loaded(config, bootstrap).settings
    found = asyncio.run(kafka.letters(connection(settings), names(settings), asked))
    shown = _coded(found, code)
    for letter in shown:
        say_json(summary(letter)) if as_json else say(line(letter))
    say(f"{len(shown)} dead letters", err=True)


@dlq.command()
@click.argument("topic")
@click.argument("partition", type=click.IntRange(min=0))
@click.argument("offset", type=click.IntRange(min=0))
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@common
def show(topic: str, partition: int, offset: int, config: str | None, bootstrap: str | None, *, as_json: bool) -> None:
    """Show the dead letter at TOPIC PARTITION OFFSET: key, headers and value."""
    source = _source(topic)
    settings = loaded(config, bootstrap).settings
    letter = asyncio.run(kafka.one(connection(settings), names(settings), source, partition, offset))
    if as_json:
        say_json(whole(letter))
        return
    say_all(lines(letter))


@dlq.command()
@click.argument("topic")
@click.argument("partition", type=click.IntRange(min=0), required=False)
@click.argument("offset", type=click.IntRange(min=0), required=False)
@CODE
@click.option("--again", "once_more", is_flag=True, help="Include dead letters that were replayed before.")
@click.option("--dry-run", is_flag=True, help="Report what would be replayed, and send nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object per line.")
@common
def replay(
    topic: str,
    partition: int | None,
    offset: int | None,
    config: str | None,
    bootstrap: str | None,
    code: str | None,
    *,
    once_more: bool,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Send the dead letter at TOPIC PARTITION OFFSET, or all of TOPIC, back to its input topic.

    A record that would be refused again is kept (exit 5). One that was replayed before is skipped; exit 1 if it was
    named by its offset.
    """
    if partition is not None and offset is None:
        msg = "Give TOPIC PARTITION OFFSET, or TOPIC alone."
        raise click.UsageError(msg)
    source = _source(topic)
    settings = loaded(config, bootstrap).settings
    cluster, topics = connection(settings), names(settings)

    async def work() -> list[dict[str, Any]]:
        if partition is None or offset is None:
            found = _coded(await kafka.letters(cluster, topics, [source]), code)
        else:
            found = _coded([await kafka.one(cluster, topics, source, partition, offset)], code)
        if not found:
            return []
        before = {} if once_more else await kafka.replayed_before(cluster, topics, source, found[0].timestamp_ms)
        judged = await _judged(cluster, topics, [letter for letter in found if letter.place not in before])
        if not dry_run:
            count = len(await read.places(cluster, topics.topic(source)))
            sent = [letter for letter in found if letter.place in judged and judged[letter.place][0] == WOULD]
            places = await kafka.send_back(cluster, topics, [again(letter, count) for letter in sent])
            judged |= {letter.place: (REPLAYED, f"as {at}") for letter, at in zip(sent, places, strict=True)}
        known = {place: (BEFORE, f"as {at}") for place, at in before.items()}
        return [_row(letter, *{**known, **judged}[letter.place]) for letter in found]

    _report(asyncio.run(work()), named=offset is not None, as_json=as_json)


async def _judged(cluster: Connection, topics: Names, found: Sequence[Letter]) -> dict[str, tuple[str, str]]:
    """Return (status, detail) of each letter by its place: whether a replay in this order would be accepted now."""
    count = len(await read.places(cluster, topics.topic("journal")))
    now_ns = clock().now_ns()
    journaled = {letter.place: entries(letter, now_ns, count, number) for number, letter in enumerate(found)}
    wanted = sorted(_partitions(journaled.values()))
    trial = Trial(dict(zip(wanted, await folded_all(cluster, topics, wanted), strict=True)))
    judged = {}
    for letter in found:
        verdict = trial.verdict(journaled[letter.place])
        if letter.why is None:
            judged[letter.place] = (KEPT, "not a dead letter of himari: its headers do not name a source record")
        elif verdict.objection:
            judged[letter.place] = (KEPT, verdict.objection)
        else:
            judged[letter.place] = (WOULD, verdict.remark)
    return judged


def _partitions(journaled: Iterable[Sequence[Send]]) -> set[int]:
    """Return the journal partitions whose state the trial needs."""
    return {send.partition or 0 for sends in journaled if not refused(sends) for send in sends}


def _row(letter: Letter, status: str, detail: str) -> dict[str, Any]:
    return {"place": letter.place, "status": status, "detail": detail}


def _report(rows: Sequence[Mapping[str, Any]], *, named: bool, as_json: bool) -> None:
    for row in rows:
        say_json(row) if as_json else say(f"{row['place']} {row['status']}: {row['detail']}".removesuffix(": "))
    statuses = [row["status"] for row in rows]
    counts = [f"{statuses.count(each)} {each}" for each in (REPLAYED, WOULD, BEFORE, KEPT) if each in statuses]
    say(", ".join(counts) or "no dead letters", err=True)
    if KEPT in statuses:
        click.get_current_context().exit(5)
    if named and BEFORE in statuses:
        click.get_current_context().exit(1)


def _coded(found: Sequence[Letter], code: str | None) -> Sequence[Letter]:
    return [letter for letter in found if code is None or (letter.why is not None and letter.why.code == code)]


def _source(topic: str) -> str:
    """Return the input topic of `topic`; "signals" and "signals.dlq" name the same one. Raises: NotFound."""
    source = short(topic).removesuffix(DLQ)
    if source not in SOURCES:
        msg = f"{topic} has no dead letters; choose one of {', '.join(SOURCES)}"
        raise NotFound(msg)
    return source
