"""`himari journal`: show an entry, copy the journal, archive it in files that outlive the cluster."""

import asyncio
import os
from pathlib import Path

import click
from aiokafka import TopicPartition

from config.settings import Settings
from streams.archives.archiver import ENTRIES
from streams.archives.check import check as checked
from streams.cli.common import clock, common, connection, loaded, names
from streams.cli.journal_position import PLACE, JournalMark
from streams.cli.progress import progress_bar
from streams.cli.terminal import say, say_all, say_json
from streams.journal.entries import TOPIC
from streams.journal.topics import Names
from streams.kafka import archiving
from streams.kafka.journal_copy import LeftOut, copy
from streams.kafka.read import one

FOLDER = click.Path(file_okay=False, path_type=Path)


@click.group()
def journal() -> None:
    """Show an entry, copy the journal, archive it to files, and check an archive."""


@journal.command()
@click.argument("partition", type=click.IntRange(min=0))
@click.argument("offset", type=click.IntRange(min=0))
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@common
def show(partition: int, offset: int, config: str | None, bootstrap: str | None, *, as_json: bool) -> None:
    """Show the record at PARTITION OFFSET of the journal, whatever it is: time, key, headers, value."""
    settings = loaded(config, bootstrap).settings
    record = asyncio.run(one(connection(settings), TopicPartition(names(settings).topic(TOPIC), partition), offset))
    fields = {
        "topic": record.topic,
        "partition": partition,
        "offset": offset,
        "timestamp_ms": record.timestamp,
        "key": _text(record.key),
        "headers": [[name, _text(value or b"")] for name, value in record.headers],
        "value": _text(record.value),
    }
    if as_json:
        say_json(fields)
        return
    say_all(f"{name:<12}  {value}" for name, value in fields.items())


def _text(raw: bytes | None) -> str | None:
    """Return bytes as text; those that are not UTF-8 are escaped."""
    return None if raw is None else raw.decode(errors="backslashreplace")


@journal.command("copy")
@click.argument("prefix")
@click.option(
    "--without", multiple=True, type=PLACE, metavar="P:O", help="Leave out this record, which no worker has folded."
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@common
def copy_(
    prefix: str, without: tuple[JournalMark, ...], config: str | None, bootstrap: str | None, *, as_json: bool
) -> None:
    """Copy the journal into the topics of another PREFIX, and the inputs that it does not hold yet.

    Stop all workers before. Those of the other prefix publish all allocations again, byte for byte, and continue.
    """
    settings = loaded(config, bootstrap).settings
    if any(mark.partition is None for mark in without):
        raise click.BadParameter("must be PARTITION:OFFSET", param_hint="--without")
    target = Settings.model_validate({"topics": {"prefix": prefix}}).topics.prefix
    with progress_bar("copying", shown=not as_json) as bar:
        copied = asyncio.run(
            copy(
                connection(settings),
                names(settings),
                Names(target),
                settings.topics.partitions,
                [LeftOut(mark.partition or 0, mark.offset) for mark in without],
                clock().now_ns(),
                bar.advance,
            )
        )
    if as_json:
        say_json(copied._asdict())
        return
    say(f"{copied.entries} entries and {copied.inputs} inputs copied, {copied.left_out} records left out")
    say(f"next: set topics.prefix to {target}, start the workers, then producers and readers of {target}.*")


@journal.command()
@click.argument("folder", type=FOLDER)
@click.option(
    "--entries", type=click.IntRange(1), default=ENTRIES, show_default=True, help="Journal entries per segment."
)
@click.option("--rest", is_flag=True, help="Also archive a last segment with fewer entries.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@common
def archive(
    folder: Path, entries: int, config: str | None, bootstrap: str | None, *, rest: bool, as_json: bool
) -> None:
    """Archive closed segments of journal and allocations in FOLDER, with the state after each.

    A segment that does not verify is not archived (exit 4). Run it again at any time: it resumes where it stopped.
    """
    settings = loaded(config, bootstrap).settings
    with progress_bar("archiving", shown=not as_json) as bar:
        work = archiving.archive(
            connection(settings),
            names(settings),
            settings.topics.partitions,
            folder,
            entries=entries,
            rest=rest,
            on_total=bar.start,
            on_progress=bar.advance,
        )
        head, added = asyncio.run(work)
    if as_json:
        report = {"added": [each._asdict() for each in added], "head": head}
        say_json(report)
        return
    for each in added:
        segment = f"journal {each.partition}:{each.first} to {each.last}"
        say(f"{segment}, {each.allocations} allocations, and the state after it")
    say(f"{len(added)} segments added; head {head}")


@journal.command()
@click.argument("folder", type=FOLDER)
@click.option("--against-kafka", is_flag=True, help="Also compare with the records still in the cluster.")
@click.option("--files", "files_only", is_flag=True, help="Check only hashes, chain and offsets; do not replay.")
@click.option("--head", metavar="SHA256", help="A head hash noted earlier, which the archive must still contain.")
@click.option("--processes", type=click.IntRange(1), help="Processes to replay with (default: one per core).")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@common
def check(
    folder: Path,
    head: str | None,
    processes: int | None,
    config: str | None,
    bootstrap: str | None,
    *,
    against_kafka: bool,
    files_only: bool,
    as_json: bool,
) -> None:
    """Check an archive: hashes, chain and offsets of its files, and each checkpoint by replay. Exit 4 on a finding."""
    with progress_bar("checking", shown=not as_json) as bar:
        count = processes or os.cpu_count() or 1
        found = checked(
            folder, fold=not files_only, head=head, processes=count, on_total=bar.start, on_progress=bar.advance
        )
        findings = list(found.findings)
        if against_kafka and found.head:
            settings = loaded(config, bootstrap).settings
            findings += asyncio.run(archiving.against(connection(settings), names(settings), folder, bar.advance))
    if as_json:
        say_json({**found.report(), "findings": findings})
    else:
        say_all(findings)
        status = "NOT intact" if findings else "intact"
        held = f"{found.segments} segments, {found.checkpoints} checkpoints, {found.records} records"
        say(f"{status}: {held}; head {found.head or 'none'}")
    click.get_current_context().exit(4 if findings else 0)
