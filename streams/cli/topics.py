"""`himari topics`, `publish` and `tail`: manage topics, and write and read their records."""

import asyncio
import codecs
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, BinaryIO

import click
import orjson
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer

from schemas import wire
from schemas.errors import InvalidMessage, NotFound, TopicsUnfit
from streams.cli.common import common, connection, loaded, names, short
from streams.cli.terminal import say, say_all, say_json, say_raw_json
from streams.journal.genesis import genesis, new_journal_id
from streams.journal.topics import TOPICS, Names
from streams.kafka import admin, read, sources
from streams.kafka.acls import lines
from streams.kafka.connection import Connection, allowed, reach
from streams.kafka.journal_origin import begin
from streams.kafka.topic_check import describe
from streams.stages.ingest import INTAKES


@click.group()
def topics() -> None:
    """Create and check topics, accept a recreated one, print ACLs."""


@topics.command("apply")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@common
def apply_topics(config: str | None, bootstrap: str | None, *, as_json: bool) -> None:
    """Create missing topics, add partitions where allowed, and initialise the journal."""
    settings = loaded(config, bootstrap).settings
    partitions = settings.topics.partitions
    value = genesis(new_journal_id(), partitions, settings.decision(), time.time_ns())

    async def work() -> tuple[admin.Applied, bool]:
        applied = await admin.apply(connection(settings), names(settings), partitions, settings.topics.replication)
        return applied, await begin(connection(settings), names(settings), partitions, value)

    applied, begun = asyncio.run(work())
    if as_json:
        say_json({**applied._asdict(), "journal_begun": begun})
        return
    for name in applied.created:
        say(f"created {name}")
    for name in applied.grown:
        say(f"added partitions to {name}")
    grown = f", {len(applied.grown)} grown" if applied.grown else ""
    say(f"{len(applied.created)} topics created{grown}; journal {'initialised' if begun else 'already exists'}")


@topics.command()
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@common
def check(config: str | None, bootstrap: str | None, *, as_json: bool) -> None:
    """Compare the topics on the broker with the settings. Exit 6 if they differ."""
    settings = loaded(config, bootstrap).settings
    wanted = settings.topics
    found = asyncio.run(admin.check(connection(settings), names(settings), wanted.partitions, wanted.replication))
    if as_json:
        say_json({"differences": describe(found.differences), "advice": found.advice})
    else:
        for difference in found.differences:
            say(str(difference))
        say(found.advice or "all topics match the settings")
    if found.differences:
        click.get_current_context().exit(6)


@topics.command()
@click.argument("topic")
@common
def adopt(topic: str, config: str | None, bootstrap: str | None) -> None:
    """Accept that an input TOPIC was recreated and its offsets restart at 0. Stop the workers first."""
    settings = loaded(config, bootstrap).settings
    epoch = asyncio.run(sources.adopt(connection(settings), names(settings), short(topic), time.time_ns()))
    say(f"{topic} is now in epoch {epoch}; restart the workers")


@topics.command()
@click.argument("role")
@click.option("--principal", required=True, metavar="User:NAME", help="Principal to grant the ACLs to.")
@click.option("--group", metavar="NAME", help="Consumer group of a program that reads, if it uses one.")
@common
def rights(role: str, principal: str, group: str | None, config: str | None, bootstrap: str | None) -> None:
    """Print the kafka-acls commands that grant a ROLE the minimal rights it needs (see docs/security.md)."""
    settings = loaded(config, bootstrap).settings
    say_all(lines(names(settings), role, principal, settings.kafka.bootstrap_servers, group))


@click.command()
@click.argument("topic")
@click.argument("file", type=click.File("rb"), default="-")
@click.option("--keep-going", is_flag=True, help="Publish the valid lines even if others are invalid.")
@common
def publish(topic: str, file: BinaryIO, config: str | None, bootstrap: str | None, *, keep_going: bool) -> None:
    """Validate JSON lines from FILE (default: stdin) and publish them to an input TOPIC. Exit 5 if any is invalid."""
    topic = short(topic)
    if topic not in {*INTAKES, "prices"}:
        msg = f"{topic} is not an input topic; choose one of {', '.join([*INTAKES, 'prices'])}"
        raise NotFound(msg)
    settings = loaded(config, bootstrap).settings
    if file.isatty():
        say("reading JSON lines from this terminal; end with Ctrl-D", err=True)
    good, bad = _sorted_out(topic, file)
    for line, error in bad:
        say(f"line {line}: {error.field or 'record'}: {error}", err=True)
    if not bad or keep_going:
        asyncio.run(_publish(connection(settings), names(settings), topic, good))
        say(f"{len(good)} published to {names(settings).topic(topic)}", err=True)
    if bad:
        click.get_current_context().exit(5)


def _sorted_out(topic: str, file: BinaryIO) -> tuple[list[tuple[bytes, bytes]], list[tuple[int, InvalidMessage]]]:
    good, bad = [], []
    for number, text in enumerate(_utf8(file.read()).splitlines(), start=1):
        raw = text.strip()
        if not raw:
            continue
        try:
            good.append((_key(topic, raw), raw))
        except InvalidMessage as error:
            bad.append((number, error))
    return good, bad


def _utf8(raw: bytes) -> bytes:
    """Return the bytes without a byte order mark, and UTF-16 converted to UTF-8."""
    if raw.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return raw.decode("utf-16", errors="replace").encode()
    return raw.removeprefix(codecs.BOM_UTF8)


def _key(topic: str, raw: bytes) -> bytes:
    """Validate a record; return its key.

    Raises:
        InvalidMessage: the worker would send it to the dead-letter topic.
    """
    if topic == "prices":
        return str(wire.decode_prices(raw, place=topic)[0]["symbol"]).encode()
    message = wire.decode(INTAKES[topic].model, raw, place=topic)
    for field in ("portfolio_id", "symbol", "control_id"):
        value = getattr(message, field, None)
        if value is not None:
            return str(value).encode()
    return b""


async def _publish(cluster: Connection, topics_names: Names, topic: str, lines: list[tuple[bytes, bytes]]) -> None:
    producer = AIOKafkaProducer(**cluster.options(), acks="all", enable_idempotence=False)
    async with _client(producer, cluster):
        name = topics_names.topic(topic)
        with allowed("write", name):
            pending = [await producer.send(name, value, key=key) for key, value in lines]
            await asyncio.gather(*pending)


@click.command()
@click.argument("topic")
@click.option("--from-beginning", is_flag=True, help="Start with the oldest record.")
@click.option("--max", "most", type=click.IntRange(min=1), help="Stop after this many records.")
@click.option("--portfolio", help="Only records of this portfolio.")
@click.option("--json", "as_json", is_flag=True, help="Print the raw record values.")
@common
def tail(
    topic: str,
    config: str | None,
    bootstrap: str | None,
    most: int | None,
    portfolio: str | None,
    *,
    from_beginning: bool,
    as_json: bool,
) -> None:
    """Print the records of a TOPIC as they arrive."""
    topic = short(topic)
    if topic not in {each.name for each in TOPICS}:
        msg = f"{topic} is not a topic of himari; choose one of {', '.join(each.name for each in TOPICS)}"
        raise NotFound(msg)
    settings = loaded(config, bootstrap).settings

    async def work() -> None:
        shown = 0
        async for record in _follow(connection(settings), names(settings).topic(topic), from_beginning=from_beginning):
            if portfolio is not None and _portfolio(record.value) != portfolio:
                continue
            if as_json:
                say_raw_json((record.value or b"").decode(errors="replace"))
            else:
                say(_line(record))
            shown += 1
            if shown == most:
                return

    asyncio.run(work())


async def _follow(cluster: Connection, topic: str, *, from_beginning: bool) -> AsyncIterator[Any]:
    start = "earliest" if from_beginning else "latest"
    consumer = AIOKafkaConsumer(**cluster.reading(), auto_offset_reset=start)
    async with _client(consumer, cluster) as started:
        places = await read.partitions(started, topic)
        if not places:
            msg = f"{topic}: no such topic on {cluster.bootstrap}; run: himari topics apply"
            raise TopicsUnfit(msg)
        started.assign(places)
        with allowed("read", topic):
            async for record in started:
                yield record


@asynccontextmanager
async def _client(client: Any, cluster: Connection) -> AsyncIterator[Any]:
    try:
        await reach(client, cluster)
        yield client
    finally:
        await client.stop()


def _line(record: Any) -> str:
    place = f"{record.topic}[{record.partition}]@{record.offset}"
    value = (record.value or b"").decode(errors="replace")
    why = (dict(record.headers).get("__streams.errors.message") or b"").decode(errors="replace")
    shown = value if len(value) <= 400 else value[:399] + "…"
    return f"{place} {why}: {shown}" if why else f"{place} {shown}"


def _portfolio(value: bytes | None) -> str | None:
    try:
        fields = orjson.loads(value or b"")
    except orjson.JSONDecodeError:
        return None
    return fields.get("portfolio_id", "main") if isinstance(fields, dict) else None
