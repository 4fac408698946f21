"""`himari audit`: compute again what was published, and compare."""

import asyncio
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import click
import orjson

from config.load import load
from config.settings import Settings
from schemas.errors import AnotherVersion
from streams.archives.archive import Archive
from streams.audits.plan import Mark, Range
from streams.audits.verify import Verdict
from streams.cli.common import common, connection, loaded, names
from streams.cli.journal_position import PLACE, JournalMark
from streams.cli.progress import progress_bar
from streams.cli.timestamp import INSTANT
from streams.evidence import text_report
from streams.evidence.decision_id import parse
from streams.evidence.explain import account, agrees
from streams.evidence.page import differences, page
from streams.evidence.whatif import NEVER_NS
from streams.journal.dead_letters import tame
from streams.kafka import evidence, verification
from streams.kafka.verification import VerificationRequest
from streams.reports.export import whole

FOLDER = click.Path(file_okay=False, path_type=Path)
FILE = click.Path(dir_okay=False, path_type=Path)


@click.group()
def audit() -> None:
    """Compute allocations again from the journal."""


@audit.command()
@click.option("--portfolio", help="Only this portfolio's allocations.")
@click.option("--from", "since", type=PLACE, help="From the checkpoint before a time, P:OFFSET or DECISION_ID on.")
@click.option("--to", "until", type=PLACE, help="Before this time, entry or decision.")
@click.option("--archive", type=FOLDER, help="Begin in this archive; the cluster has the rest.")
@click.option("--processes", type=click.IntRange(1), help="Processes; by default the cores, one for a short journal.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@common
def verify(
    portfolio: str | None,
    since: JournalMark | None,
    until: JournalMark | None,
    archive: Path | None,
    processes: int | None,
    config: str | None,
    bootstrap: str | None,
    *,
    as_json: bool,
) -> None:
    """Compare every allocation with the journal, byte for byte, and its hash chain. Exit 4 where one differs."""
    settings = loaded(config, bootstrap).settings
    wanted = asked(since, until, portfolio)
    with progress_bar("verifying", shown=not as_json) as bar:
        found = verification.verify(
            settings,
            wanted,
            archive=None if archive is None else str(archive),
            processes=processes,
            begun=bar.begun,
            told=bar.told,
        )
    verdict = found.verdict
    if as_json:
        starts = {partition: mark.offset + 1 for partition, mark in found.starts.items()}
        report = {**verdict.report(), "first_entries": starts, "processes": found.processes}
        sys.stdout.write(orjson.dumps(report, option=orjson.OPT_NON_STR_KEYS).decode() + "\n")
    else:
        click.echo(f"{told(verdict)}{since_when(found.starts)}")
    click.get_current_context().exit((AnotherVersion.exit_code if verdict.others else 0) if verdict.ok else 4)


def asked(since: JournalMark | None, until: JournalMark | None, portfolio: str | None) -> VerificationRequest:
    """Return what is to be verified. Raises: click.UsageError where two partitions are named."""
    named = {place.partition for place in (since, until) if place is not None and place.partition is not None}
    if len(named) > 1:
        raise click.UsageError("--from and --to must name one partition")
    wanted = Range()
    if since is not None:
        wanted = wanted._replace(since_ns=since.at_ns, since=since.offset)
    if until is not None and until.partition is None:
        wanted = wanted._replace(until_ns=until.at_ns)
    elif until is not None:
        wanted = wanted._replace(until=until.offset)
    return VerificationRequest(wanted, portfolio, named.pop() if named else None)


def since_when(starts: Mapping[int, Mark]) -> str:
    """Return where an audit began, "" where it was the beginning."""
    begun = [f"{partition}:{mark.offset + 1}" for partition, mark in starts.items() if mark.offset >= 0]
    return f" (from the checkpoints before {', '.join(begun)} on)" if begun else ""


def told(verdict: Verdict) -> str:
    """Return a verdict in one line, and one for each stretch that is another decision version's."""
    if verdict.ok:
        found = f"verified: {verdict.checked} allocations computed again from the journal, every byte the same"
        return "\n".join([found, *(f"NOT checked: {each}" for each in verdict.others)])
    return (
        f"NOT verified: of {verdict.checked} allocations {verdict.mismatched} differ, "
        f"{verdict.chain_broken} break the chain{_broken(verdict)}; first: {verdict.first_mismatch}"
    )


def _broken(verdict: Verdict) -> str:
    """Return what is wrong beside the allocations, in words that go on."""
    found = f", the journal is broken in {verdict.journal_broken} places" if verdict.journal_broken else ""
    return f"{found}, {verdict.checkpoints_broken} checkpoints are wrong" if verdict.checkpoints_broken else found


@audit.command()
@click.argument("decision_id")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.option("--html", "html", type=FILE, help="Write one self-contained page, waterfalls drawn.")
@click.option("--archive", type=FOLDER, help="Compute from the nearest checkpoint of this archive on.")
@common
def explain(
    decision_id: str,
    archive: Path | None,
    config: str | None,
    bootstrap: str | None,
    html: Path | None,
    *,
    as_json: bool,
) -> None:
    """Show what led to a decision: inputs and their places, each stage and its reason, limits, what bound.

    The decision is computed again from the journal. Exit 4 where other bytes are published, 3 where nobody knows it.
    """
    name = parse(decision_id)
    settings = loaded(config, bootstrap).settings
    found, known = asyncio.run(evidence.decision(_source(settings, archive), name))
    told_of = account(name, found, known)
    if html is not None:
        _page(html, page(told_of))
    _report(told_of, text_report.lines(told_of), as_json=as_json)
    click.get_current_context().exit(0 if agrees(told_of["verification"]) else 4)


@audit.command()
@click.option(
    "--config", "file", type=FILE, required=True, help="Settings file: its decision sections from Genesis on."
)
@click.option("--portfolio", help="Only this portfolio's decisions.")
@click.option("--from", "since", type=INSTANT, default=0, help="From this time on: ISO 8601 (UTC), or ns since 1970.")
@click.option("--to", "until", type=INSTANT, default=NEVER_NS, help="Before this time.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.option("--html", "html", type=FILE, help="Write one self-contained page with a chart.")
@click.option("--archive", type=FOLDER, help="Begin at the checkpoint of this archive before --from.")
@click.option("--bootstrap", metavar="HOST:PORT", help="Kafka broker; wins over the settings.")
def whatif(
    file: Path,
    archive: Path | None,
    portfolio: str | None,
    since: int,
    until: int,
    html: Path | None,
    bootstrap: str | None,
    *,
    as_json: bool,
) -> None:
    """Fold the journal as it is and with other decision settings; show which decisions change, and what binds instead.

    The broker is that of `himari --config` where that is given, else of FILE.
    """
    params = load(file).settings.decision()
    chosen = (click.get_current_context().obj or {}).get("config")
    settings = loaded(chosen or str(file), bootstrap).settings
    work = evidence.differences(_source(settings, archive), params, portfolio, since, until)
    told_of = asyncio.run(work).told()
    if html is not None:
        _page(html, differences(told_of))
    _report(told_of, text_report.differences(told_of), as_json=as_json)


@audit.command()
@click.argument("decision_id")
@click.option("-o", "--output", type=FILE, required=True, metavar="FILE.zip", help="Where to write it.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.option("--archive", type=FOLDER, help="Compute from the nearest checkpoint of this archive on.")
@common
def bundle(
    decision_id: str,
    archive: Path | None,
    config: str | None,
    bootstrap: str | None,
    output: Path,
    *,
    as_json: bool,
) -> None:
    """Write a decision with its journal and a verifier that needs neither Kafka nor a worker.

    It is written whatever it proves. Exit 4 where the decision does not come out of its journal again.
    """
    name = parse(decision_id)
    settings = loaded(config, bootstrap).settings
    found = asyncio.run(evidence.bundle(_source(settings, archive), name))
    with whole(output) as place:
        found.write(place)
    finding = found.finding()
    told_of = {
        "decision_id": decision_id,
        "file": str(output),
        "entries": len(found.entries),
        "finding": finding or None,
    }
    _report(told_of, text_report.bundled(told_of), as_json=as_json)
    click.get_current_context().exit(4 if finding else 0)


def _source(settings: Settings, archive: Path | None) -> evidence.EvidenceSource:
    return evidence.EvidenceSource(connection(settings), names(settings), None if archive is None else Archive(archive))


def _report(found: dict[str, Any], lines: Iterable[str], *, as_json: bool) -> None:
    if as_json:
        sys.stdout.write(orjson.dumps(found).decode() + "\n")
        return
    for line in lines:
        click.echo(tame(line))


def _page(file: Path, text: str) -> None:
    with whole(file) as place:
        place.write_text(text, encoding="utf-8")
    click.echo(f"page in {file}", err=True)
