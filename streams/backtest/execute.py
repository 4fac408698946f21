"""Carries out a backtest: the run, the first half again alone, the figures, and an archive of the journal."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from engines.allocation import DECISION_VERSION
from engines.parameters import tree_hash
from schemas.errors import InvalidSignalException
from streams.backtest.ablation import WITHOUT, ablated
from streams.backtest.archive_writer import ArchiveWriter, empty
from streams.backtest.figures import summary
from streams.backtest.request import Prepared, Request, prepare
from streams.backtest.result import Result
from streams.backtest.run import Backtest, Run
from streams.backtest.timeline import until
from streams.backtest.words import verdicts
from streams.history import candles
from streams.journal.genesis import BACKTEST_ID
from streams.reports.weight_history import instant

ProgressCallback = Callable[[int], None]


def execute(
    request: Request,
    *,
    archive: Path | None = None,
    check: bool = True,
    trials: int = 1,
    ablation: bool = False,
    on_total: ProgressCallback = lambda _: None,
    on_progress: ProgressCallback = lambda _: None,
) -> Result:
    """Run a backtest.

    Args:
        request: what to run.
        archive: new or empty folder for the journal and its allocations, written as a whole or not at all.
        check: run the first half of the candles once more, and compare its allocations.
        trials: variants that were tried, this one included, for the deflated Sharpe ratio.
        ablation: run once more without each stage, to see what it earned or cost.
        on_total: gets the number of instants to play.
        on_progress: gets 1 for each.

    Raises:
        InvalidSignalException, ConfigurationException: what is wrong with the request, or with a strategy's signals.
    """
    prepared = prepare(request)
    market = prepared.inputs.market
    rows = market[0].rows
    halfway_ns = market[0].end_ns(rows[len(rows) // 2]) if check else 0
    halves = 2 + check + 2 * ablation * len(WITHOUT)
    on_total(sum(len(each.rows) for each in market) * halves // 2)
    with _archiving(archive) as writer:
        played = _progress(prepared, on_progress)
        run = Backtest(prepared.inputs, archive=writer, halfway_ns=halfway_ns, on_progress=played).run()
        half = _half(prepared, halfway_ns, played) if check else None
        if half is not None and (run.halfway is None or half.whole[1:] != run.halfway[1:]):
            raise _ahead(prepared, run, half)
        head = None if writer is None else writer.close()
    stages = _ablation(prepared, run, played) if ablation else None
    figures = {**_about(prepared, run, half, head), **summary(run, trials), "stages": stages}
    remarks = [*prepared.remarks, *_refused(run)]
    return Result(run, {**figures, "remarks": remarks, "verdicts": verdicts(figures)}, remarks)


@contextmanager
def _archiving(folder: Path | None) -> Iterator[ArchiveWriter | None]:
    """Yield a writer into a folder beside the wanted one, which takes its place at the end."""
    if folder is None:
        yield None
        return
    empty(folder)
    temporary = folder.with_name(f".{folder.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        yield ArchiveWriter(temporary)
        if folder.exists():
            folder.rmdir()
        temporary.rename(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _progress(prepared: Prepared, on_progress: ProgressCallback) -> ProgressCallback:
    each = len(prepared.inputs.market)

    def played(_time_ns: int) -> None:
        on_progress(each)

    return played


def _half(prepared: Prepared, halfway_ns: int, played: ProgressCallback) -> Run:
    """Return the run of the candles up to a time, as if there were no later ones."""
    market = until(prepared.inputs.market, halfway_ns)
    inputs = prepared.inputs._replace(market=market, source=prepared.source(market), compared=False)
    return Backtest(inputs, on_progress=played).run()


def _ablation(prepared: Prepared, run: Run, played: ProgressCallback) -> list[dict[str, Any]]:
    """Return what each stage earned or cost."""
    market = prepared.inputs.market
    return [
        ablated(stage, prepared.inputs._replace(source=prepared.source(market)), run, played)._asdict()
        for stage in WITHOUT
    ]


def _ahead(prepared: Prepared, run: Run, half: Run) -> InvalidSignalException:
    found = run.halfway
    names = ", ".join(prepared.inputs.source.names())
    text = (
        f"{names}: the first half of the candles alone must give the same allocations as within the whole, gave "
        f"{half.whole.allocations} instead of {0 if found is None else found.allocations}, or other bytes: the "
        "strategy looks ahead, or keeps something between two runs"
    )
    return InvalidSignalException("inconsistent", "", text)


def _about(prepared: Prepared, run: Run, half: Run | None, head: str | None) -> dict[str, Any]:
    inputs = prepared.inputs
    ahead: dict[str, Any] = {"checked": half is not None}
    if half is not None:
        until_ns, count, sha256 = half.whole
        ahead |= {"identical": True, "until": instant(until_ns), "allocations": count, "sha256": sha256}
    return {
        "journal": {
            "journal_id": BACKTEST_ID,
            "entries": run.entries,
            "allocations": run.whole.allocations,
            "allocations_sha256": run.whole.sha256,
            "decision_version": DECISION_VERSION,
            "settings_hash": tree_hash(inputs.params),
            "archive_head": head,
        },
        "look_ahead": ahead,
        "data": [{"symbol": each.symbol, "width_s": each.width_s, **each.found._asdict()} for each in inputs.market],
        "read": candles.found(inputs.market)._asdict(),
        "strategies": list(inputs.source.names()),
        "signals": {
            "sent": run.signals,
            "settled": len(run.settlement.settled),
            "open": run.settlement.open,
            "unsettled": run.settlement.unsettled,
            "refused": dict(sorted(run.refused.items())),
        },
        "trading": inputs.trading._asdict(),
    }


def _refused(run: Run) -> Iterator[str]:
    for topic, count in sorted(run.refused.items()):
        yield f"{count} records of {topic} were refused by sizing; the first: {run.refusals[0]}"
    if run.settlement.unsettled:
        yield f"{run.settlement.unsettled} claims have no outcome: the candle at their end, or the price, is missing"
