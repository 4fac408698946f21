"""The result of a backtest: its figures, and its series as plain columns that pandas and polars take as they are."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from streams.archives.files import arrow
from streams.backtest import page
from streams.backtest.figures import capital_of
from streams.backtest.run import Run
from streams.journal.genesis import BACKTEST_ID
from streams.reports.export import whole

NamedColumns = dict[str, Any]
"""Column name → numpy array or list, all of one length: `pandas.DataFrame(columns)` takes it."""
TABLES: Final = ("equity", "decisions", "trades")


class Result:
    """A finished backtest.

    `figures`: what the report and `--json` show, as plain values. `remarks`: what a reader must know.
    """

    def __init__(self, run: Run, figures: dict[str, Any], remarks: list[str]) -> None:
        self.run, self.figures, self.remarks = run, figures, remarks

    def __repr__(self) -> str:
        found = self.figures["result"]
        return f"<Result: {found['return']:+.2%} on {found['initial_usd']:,.0f} USD, {found['trades']} trades>"

    @property
    def equity(self) -> NamedColumns:
        """Value, exposure and costs at the end of each candle, USD; also of each compared sizing."""
        curve, capital = self.run.curve, capital_of(self.run)
        profit, costs = curve.column("profit"), curve.column("costs")
        value = capital + profit
        peak = np.maximum(np.maximum.accumulate(value), capital)
        times = np.array(curve.time_ns, dtype=np.int64)
        return {
            "timestamp_ns": times,
            "time": times.astype("datetime64[ns]"),
            "equity": value,
            "at_twice_the_costs": value - costs,
            "drawdown": (peak - value) / peak,
            "gross": curve.column("gross"),
            "net": curve.column("net"),
            "costs": costs,
            "funding": curve.column("funding"),
            "traded": curve.column("traded"),
            **{rival.name: capital + np.array(rival.profit) for rival in self.run.rivals},
        }

    @property
    def earned(self) -> NamedColumns:
        """Profit of each strategy at the end of each candle, net, USD."""
        curve = self.run.curve
        columns = {name: np.array(column) for name, column in curve.earned.items()}
        return {"timestamp_ns": np.array(curve.time_ns, dtype=np.int64), **columns}

    @property
    def decisions(self) -> NamedColumns:
        """Every allocation: time, trigger, cell and size, gross of the portfolio, and which caps bound."""
        return self.run.decisions.columns(BACKTEST_ID)

    @property
    def trades(self) -> NamedColumns:
        """Every fill, with the sequence of the allocation that asked for it."""
        trades = self.run.broker.trades
        names = ("timestamp_ns", "portfolio_id", "sequence", "symbol", "quantity", "price", "fee_usd", "slippage_usd")
        columns: list[Sequence[Any]] = list(zip(*trades, strict=True)) if trades else [() for _ in names]
        texts = {"portfolio_id", "symbol"}
        found = zip(names, columns, strict=True)
        return {name: list(column) if name in texts else np.array(column) for name, column in found}

    def to_parquet(self, folder: str | Path) -> list[Path]:
        """Write equity, decisions and trades as Parquet files into a folder; return their paths.

        Raises:
            SizingError: pyarrow is not installed.
            ConfigurationException: a file cannot be written.
        """
        pa, parquet = arrow()
        found = []
        Path(folder).mkdir(parents=True, exist_ok=True)
        for name in TABLES:
            path = Path(folder) / f"{name}.parquet"
            with whole(path) as temporary:
                parquet.write_table(pa.table(getattr(self, name)), temporary, compression="zstd")
            found.append(path)
        return found

    def to_html(self) -> str:
        """Return the report: one page without scripts that loads nothing."""
        return page.page(self)

    def write_report(self, path: str | Path) -> None:
        """Write the report. Raises: ConfigurationException: the file cannot be written."""
        with whole(Path(path)) as temporary:
            temporary.write_text(self.to_html(), encoding="utf-8")
