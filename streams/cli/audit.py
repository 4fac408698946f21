"""`himari audit`: recompute published allocations from the journal, and compare."""

import asyncio
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import click

from config.load import load
from config.settings import Settings
from schemas.errors import AnotherVersion
from streams.archives.archive import Archive
from streams.audits.plan import Mark, Range
from streams.audits.verify import Verdict
from streams.cli.common import common, connection, loaded, names
from streams.cli.journal_position import PLACE, JournalMark
from streams.cli.progress import progress_bar
from streams.cli.terminal import say, say_all, say_json
from streams.cli.timestamp import INSTANT
from streams.evidence import text_report, verifier
from streams.evidence.decision_id import parse
from streams.evidence.explain import account, agrees
from streams.evidence.page import differences, page
from streams.evidence.whatif import NEVER_NS
from streams.kafka import evidence, verification
from streams.kafka.verification import VerificationRequest
from streams.reports.export import whole

FOLDER = click.Path(file_okay=False, path_type=Path)
FILE = click.Path(dir_okay=False, path_type=Path)


@click.group()
def audit() -> None:
    """Verify, explain and export decisions by recomputing them from the journal."""


@audit.command()
@click.option("--portfolio", help="Verify only this portfolio's allocations.")
@click.option(
    "--from", "since", type=PLACE, help="Start at the last checkpoint before this time, P:OFFSET or DECISION_ID."
)
@click.option("--to", "until", type=PLACE, help="Stop before this time, P:OFFSET or DECISION_ID.")
@click.option("--archive", type=FOLDER, help="Read archived segments from here, the rest from the cluster.")
@click.option(
    "--processes", type=click.IntRange(1), help="Processes to use (default: one per core; one for a short journal)."
)
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
    """Recompute every allocation from the journal and compare it byte for byte; check the hash chain.

    Exit 4 if anything differs.
    """
    settings = loaded(config, bootstrap).settings
    wanted = asked(since, until, portfolio)
    with progress_bar("verifying", shown=not as_json) as bar:
        found = verification.verify(
            settings,
            wanted,
            archive=None if archive is None else str(archive),
            processes=processes,
            on_total=bar.start,
            on_progress=bar.advance,
        )
    verdict = found.verdict
    if as_json:
        starts = {partition: mark.offset + 1 for partition, mark in found.starts.items()}
        report = {**verdict.report(), "first_entries": starts, "processes": found.processes}
        say_json(report)
    else:
        *others, last = verdict_lines(verdict)
        say_all([*others, f"{last}{since_when(found.starts)}"])
    click.get_current_context().exit((AnotherVersion.exit_code if verdict.others else 0) if verdict.ok else 4)


def asked(since: JournalMark | None, until: JournalMark | None, portfolio: str | None) -> VerificationRequest:
    """Return the verification request. Raises: click.UsageError if --from and --to name two partitions."""
    named = {place.partition for place in (since, until) if place is not None and place.partition is not None}
    if len(named) > 1:
        raise click.UsageError("--from and --to must name the same partition")
    wanted = Range()
    if since is not None:
        wanted = wanted._replace(since_ns=since.at_ns, since=since.offset)
    if until is not None and until.partition is None:
        wanted = wanted._replace(until_ns=until.at_ns)
    elif until is not None:
        wanted = wanted._replace(until=until.offset)
    return VerificationRequest(wanted, portfolio, named.pop() if named else None)


def since_when(starts: Mapping[int, Mark]) -> str:
    """Return where an audit started, "" if at the beginning of the journal."""
    begun = [f"{partition}:{mark.offset + 1}" for partition, mark in starts.items() if mark.offset >= 0]
    return f" (starting at the checkpoints before {', '.join(begun)})" if begun else ""


def verdict_lines(verdict: Verdict) -> list[str]:
    """Return a verdict as one line, plus one for each journal segment of another decision version."""
    if verdict.ok:
        found = f"verified: {verdict.checked} allocations recomputed from the journal, all bytes identical"
        return [found, *(f"NOT checked: {each}" for each in verdict.others)]
    found = (
        f"NOT verified: of {verdict.checked} allocations {verdict.mismatched} differ, "
        f"{verdict.chain_broken} break the chain{_broken(verdict)}; first: {verdict.first_mismatch}"
    )
    return [found]


def _broken(verdict: Verdict) -> str:
    """Return findings beyond the allocations, as a continuation of the sentence."""
    found = f", the journal is broken in {verdict.journal_broken} places" if verdict.journal_broken else ""
    return f"{found}, {verdict.checkpoints_broken} checkpoints are wrong" if verdict.checkpoints_broken else found


@audit.command()
@click.argument("decision_id")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.option("--html", "html", type=FILE, help="Write a self-contained HTML page with waterfall charts.")
@click.option("--archive", type=FOLDER, help="Start at the nearest checkpoint in this archive.")
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
    """Explain a decision: its inputs and their sources, each sizing stage with its reason, the limits and what bound.

    The decision is recomputed from the journal. Exit 4 if the published bytes differ, 3 if the decision is unknown.
    """
    name = parse(decision_id)
    settings = loaded(config, bootstrap).settings
    found, known = asyncio.run(evidence.decision(_source(settings, archive), name))
    explanation = account(name, found, known)
    if html is not None:
        _page(html, page(explanation))
    _report(explanation, text_report.lines(explanation), as_json=as_json)
    click.get_current_context().exit(0 if agrees(explanation["verification"]) else 4)


@audit.command()
@click.option("--config", "file", type=FILE, required=True, help="Settings file whose decision settings are tried.")
@click.option("--portfolio", help="Compare only this portfolio's decisions.")
@click.option(
    "--from", "since", type=INSTANT, default=0, help="Start time, inclusive: ISO 8601 (UTC), or ns since 1970."
)
@click.option("--to", "until", type=INSTANT, default=NEVER_NS, help="End time, exclusive.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.option("--html", "html", type=FILE, help="Write a self-contained HTML page with a chart.")
@click.option("--archive", type=FOLDER, help="Start at the last checkpoint before --from in this archive.")
@click.option("--bootstrap", metavar="HOST:PORT", help="Kafka broker; overrides the settings file.")
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
    """Replay the journal with other decision settings; show which decisions change, and what binds instead.

    The other settings apply from the start of the replay. The broker is that of `himari --config FILE` if given,
    otherwise that of this command's --config.
    """
    params = load(file).settings.decision()
    chosen = (click.get_current_context().obj or {}).get("config")
    settings = loaded(chosen or str(file), bootstrap).settings
    work = evidence.differences(_source(settings, archive), params, portfolio, since, until)
    report = asyncio.run(work).as_dict()
    if html is not None:
        _page(html, differences(report))
    _report(report, text_report.differences(report), as_json=as_json)


@audit.command()
@click.argument("decision_id")
@click.option("-o", "--output", type=FILE, required=True, metavar="FILE.zip", help="File to write.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.option("--archive", type=FOLDER, help="Start at the nearest checkpoint in this archive.")
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
    """Export a decision with its journal as a bundle that can be verified without Kafka and without a worker.

    The bundle is written even if verification fails. Exit 4 if the recomputed decision differs.
    """
    name = parse(decision_id)
    settings = loaded(config, bootstrap).settings
    found = asyncio.run(evidence.bundle(_source(settings, archive), name))
    with whole(output) as path:
        found.write(path)
    finding = found.finding()
    report = {
        "decision_id": decision_id,
        "file": str(output),
        "entries": len(found.entries),
        "finding": finding or None,
    }
    _report(report, text_report.bundled(report), as_json=as_json)
    click.get_current_context().exit(4 if finding else 0)


@audit.command()
@click.argument("bundle", type=FILE, metavar="BUNDLE.zip")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def check(bundle: Path, *, as_json: bool) -> None:
    """Verify a bundle with the installed code: reads it in memory, runs nothing that it contains.

    Exit 0: the bytes are identical. 4: they differ. 5: this is no whole bundle. 8: it is of another decision version.
    """
    code, found = verifier.verdict(bundle)
    _report({"file": str(bundle), "code": code, "result": found}, [found], as_json=as_json)
    click.get_current_context().exit(code)


def _source(settings: Settings, archive: Path | None) -> evidence.EvidenceSource:
    return evidence.EvidenceSource(connection(settings), names(settings), None if archive is None else Archive(archive))


def _report(found: dict[str, Any], lines: Iterable[str], *, as_json: bool) -> None:
    if as_json:
        say_json(found)
        return
    say_all(lines)


def _page(file: Path, text: str) -> None:
    with whole(file) as place:
        place.write_text(text, encoding="utf-8")
    say(f"page in {file}", err=True)
