"""`himari dlq`: dead letters, what was wrong with them, and their way back."""

import asyncio
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import click
import orjson

from schemas.errors import NotFound
from streams.cli.common import clock, common, connection, loaded, names
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


@click.group()
def dlq() -> None:
    """List, show and replay dead letters."""


@dlq.command("list")
@click.option("--topic", help="Only this input topic's.")
@click.option("--code", help="Only with this himari.error.code.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object for each line.")
@common
def list_letters(
    config: str | None, bootstrap: str | None, topic: str | None, code: str | None, *, as_json: bool
) -> None:
    """List dead letters by time: topic, partition, offset, code, field, message."""
    asked = SOURCES if topic is None else (_source(topic),)
    settings = loaded(config, bootstrap).settings
    found = asyncio.run(kafka.letters(connection(settings), names(settings), asked))
    shown = _coded(found, code)
    for letter in shown:
        _print(summary(letter)) if as_json else click.echo(line(letter))
    click.echo(f"{len(shown)} dead letters", err=True)


@dlq.command()
@click.argument("topic")
@click.argument("partition", type=click.IntRange(min=0))
@click.argument("offset", type=click.IntRange(min=0))
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@common
def show(topic: str, partition: int, offset: int, config: str | None, bootstrap: str | None, *, as_json: bool) -> None:
    """Show all of the dead letter at TOPIC PARTITION OFFSET: key, headers and value."""
    source = _source(topic)
    settings = loaded(config, bootstrap).settings
    letter = asyncio.run(kafka.one(connection(settings), names(settings), source, partition, offset))
    if as_json:
        _print(whole(letter))
        return
    for text in lines(letter):
        click.echo(text)


@dlq.command()
@click.argument("topic")
@click.argument("partition", type=click.IntRange(min=0), required=False)
@click.argument("offset", type=click.IntRange(min=0), required=False)
@click.option("--code", help="Only with this himari.error.code.")
@click.option("--again", "once_more", is_flag=True, help="Also what was replayed before.")
@click.option("--dry-run", is_flag=True, help="Say what would be done, and send nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object for each line.")
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
    """Send the dead letter at TOPIC PARTITION OFFSET, or all of TOPIC, back to the topic it came from.

    What would be refused again is kept (exit 5), and so is what was replayed before (exit 1 where it is named).
    """
    if partition is not None and offset is None:
        msg = "Give TOPIC PARTITION OFFSET, or TOPIC alone."
        raise click.UsageError(msg)
    source = _source(topic)
    settings = loaded(config, bootstrap).settings
    way, topics = connection(settings), names(settings)

    async def work() -> list[dict[str, Any]]:
        if partition is None or offset is None:
            found = _coded(await kafka.letters(way, topics, [source]), code)
        else:
            found = _coded([await kafka.one(way, topics, source, partition, offset)], code)
        if not found:
            return []
        before = {} if once_more else await kafka.replayed_before(way, topics, source, found[0].timestamp_ms)
        judged = await _judged(way, topics, [letter for letter in found if letter.place not in before])
        if not dry_run:
            count = len(await read.places(way, topics.topic(source)))
            sent = [letter for letter in found if letter.place in judged and judged[letter.place][0] == WOULD]
            places = await kafka.send_back(way, topics, [again(letter, count) for letter in sent])
            judged |= {letter.place: (REPLAYED, f"as {at}") for letter, at in zip(sent, places, strict=True)}
        known = {place: (BEFORE, f"as {at}") for place, at in before.items()}
        return [_row(letter, *{**known, **judged}[letter.place]) for letter in found]

    _report(asyncio.run(work()), named=offset is not None, as_json=as_json)


async def _judged(way: Connection, topics: Names, found: Sequence[Letter]) -> dict[str, tuple[str, str]]:
    """Return what becomes of each letter, by its place: whether it would be taken now, in order, and why not."""
    count = len(await read.places(way, topics.topic("journal")))
    now_ns = clock().now_ns()
    journaled = {letter.place: entries(letter, now_ns, count, number) for number, letter in enumerate(found)}
    wanted = sorted(_partitions(journaled.values()))
    trial = Trial(dict(zip(wanted, await folded_all(way, topics, wanted), strict=True)))
    judged = {}
    for letter in found:
        verdict = trial.verdict(journaled[letter.place])
        if letter.why is None:
            judged[letter.place] = (KEPT, "no dead letter of ours: its headers do not say where it came from")
        elif verdict.objection:
            judged[letter.place] = (KEPT, verdict.objection)
        else:
            judged[letter.place] = (WOULD, verdict.remark)
    return judged


def _partitions(journaled: Iterable[Sequence[Send]]) -> set[int]:
    """Return the journal partitions whose state a trial needs."""
    return {send.partition or 0 for sends in journaled if not refused(sends) for send in sends}


def _row(letter: Letter, status: str, detail: str) -> dict[str, Any]:
    return {"place": letter.place, "status": status, "detail": detail}


def _report(rows: Sequence[Mapping[str, Any]], *, named: bool, as_json: bool) -> None:
    for row in rows:
        _print(row) if as_json else click.echo(f"{row['place']} {row['status']}: {row['detail']}".removesuffix(": "))
    said = [row["status"] for row in rows]
    counts = [f"{said.count(status)} {status}" for status in (REPLAYED, WOULD, BEFORE, KEPT) if status in said]
    click.echo(", ".join(counts) or "no dead letters", err=True)
    if KEPT in said:
        click.get_current_context().exit(5)
    if named and BEFORE in said:
        click.get_current_context().exit(1)


def _coded(found: Sequence[Letter], code: str | None) -> Sequence[Letter]:
    return [letter for letter in found if code is None or (letter.why is not None and letter.why.code == code)]


def _source(topic: str) -> str:
    """Return the input topic that is meant: "signals" and "signals.dlq" are the same. Raises: NotFound."""
    source = topic.removesuffix(DLQ)
    if source not in SOURCES:
        msg = f"{topic} has no dead letters; there are {', '.join(SOURCES)}"
        raise NotFound(msg)
    return source


def _print(fields: Mapping[str, Any]) -> None:
    sys.stdout.write(orjson.dumps(dict(fields)).decode() + "\n")
