"""`himari journal`: the journal in files that outlast the cluster."""

import asyncio
import os
import sys
from pathlib import Path

import click
import orjson

from streams.archives.archiver import ENTRIES
from streams.archives.check import check as checked
from streams.cli.common import common, connection, loaded, names
from streams.cli.progress import progress_bar
from streams.journal.dead_letters import tame
from streams.kafka import archiving

FOLDER = click.Path(file_okay=False, path_type=Path)


@click.group()
def journal() -> None:
    """Keep the journal in files, and see that they are whole."""


@journal.command()
@click.argument("folder", type=FOLDER)
@click.option(
    "--entries", type=click.IntRange(1), default=ENTRIES, show_default=True, help="Journal entries a segment."
)
@click.option("--rest", is_flag=True, help="Also archive what does not fill a segment.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@common
def archive(
    folder: Path, entries: int, config: str | None, bootstrap: str | None, *, rest: bool, as_json: bool
) -> None:
    """Add closed segments of journal and allocations to FOLDER, and the state after each.

    What does not verify is not archived (exit 4). Run it again at any time: it goes on where it ended.
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
            begun=bar.begun,
            told=bar.told,
        )
        head, added = asyncio.run(work)
    if as_json:
        told = {"added": [each._asdict() for each in added], "head": head}
        sys.stdout.write(orjson.dumps(told).decode() + "\n")
        return
    for each in added:
        stretch = f"journal {each.partition}:{each.first} to {each.last}"
        click.echo(f"{stretch}, {each.allocations} allocations, and the state after it")
    click.echo(f"{len(added)} segments added; head {head}")


@journal.command()
@click.argument("folder", type=FOLDER)
@click.option("--against-kafka", is_flag=True, help="Also compare with what the cluster still holds.")
@click.option("--files", "files_only", is_flag=True, help="Only hashes, chain and offsets; fold nothing.")
@click.option("--head", metavar="SHA256", help="A head that was noted earlier: the archive must still hold it.")
@click.option("--processes", type=click.IntRange(1), help="Processes that fold; by default the cores.")
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
    """See that an archive is whole: hashes, chain, offsets, and each checkpoint against a clean fold. Exit 4 if not."""
    with progress_bar("checking", shown=not as_json) as bar:
        count = processes or os.cpu_count() or 1
        found = checked(folder, fold=not files_only, head=head, processes=count, begun=bar.begun, told=bar.told)
        findings = list(found.findings)
        if against_kafka and found.head:
            settings = loaded(config, bootstrap).settings
            findings += asyncio.run(archiving.against(connection(settings), names(settings), folder, bar.told))
    if as_json:
        sys.stdout.write(orjson.dumps({**found.report(), "findings": findings}).decode() + "\n")
    else:
        for finding in findings:
            click.echo(tame(finding))
        whole = "NOT whole" if findings else "whole"
        held = f"{found.segments} segments, {found.checkpoints} checkpoints, {found.records} records"
        click.echo(f"{whole}: {held}; head {found.head or 'none'}")
    click.get_current_context().exit(4 if findings else 0)
