"""The report of a backtest: one page without scripts that loads nothing, with the figures of `--json`."""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from streams.backtest.charts import Series, area, lines
from streams.evidence.html import Markup, document, table, tag

if TYPE_CHECKING:
    from streams.backtest.result import Result

Figures = Mapping[str, Any]
MONTHS: Final = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
STYLES: Final = ("s1", "s2", "s3", "s4")
UNKNOWN: Final = "–"


def page(result: "Result") -> str:
    """Return the report."""
    figures = result.figures
    period = figures["period"]
    title = f"Backtest: {', '.join(figures['strategies'])}, {period['from'][:10]} to {period['to'][:10]}"
    return document(
        title,
        *_verdicts(figures),
        *_result(figures),
        *_charts(result),
        *_compared(figures),
        *_groups(figures),
        *_stages(figures),
        *_calendar(figures),
        *_cascades(figures),
        *_statistics(figures),
        *_claims(figures),
        *_provenance(figures),
    )


def percent(value: float | None, digits: int = 1) -> str:
    """Return a ratio in percent with its sign; a dash if it is unknown."""
    return UNKNOWN if value is None else f"{100 * value:+.{digits}f} %"


def share(value: float | None) -> str:
    """Return a ratio in percent; a dash if it is unknown."""
    return UNKNOWN if value is None else f"{100 * value:.1f} %"


def usd(value: float) -> str:
    """Return an amount in USD."""
    return f"{value:,.0f}"


def number(value: float | None, digits: int = 2) -> str:
    """Return a number; a dash if it is unknown."""
    return UNKNOWN if value is None else f"{value:.{digits}f}"


# -- what came out -----------------------------------------------------------------------------------------------------
def _verdicts(figures: Figures) -> Iterator[Markup]:
    yield tag("h2", "What this shows")
    for text in figures["verdicts"]:
        yield tag("p", text)
    for text in figures["remarks"]:
        yield tag("p", text, class_="dim")


def _result(figures: Figures) -> Iterator[Markup]:
    found, signals = figures["result"], figures["signals"]
    twice = found["at_twice_the_costs"]
    trading, period = figures["trading"], figures["period"]
    yield tag("h2", "Result")
    yield tag(
        "p",
        f"{period['bars']} candles on {period['days']} days, {signals['sent']} signals, {found['trades']} trades. "
        f"Fills at the open of the next candle; {trading['fee_ratio']:g} fee and {trading['slippage_ratio']:g} "
        f"slippage a side, delay {trading['delay_s']:g} s.",
    )
    names = (
        ("final value, USD", "final_usd", usd),
        ("return", "return", percent),
        ("return a year", "return_a_year", percent),
        ("volatility a year", "volatility_a_year", share),
        ("Sharpe ratio a year", "sharpe_a_year", number),
        ("largest drawdown", "max_drawdown", share),
        ("longest time below a peak, candles", "longest_drawdown_bars", str),
        ("costs, USD", "costs_usd", usd),
        ("mean exposure", "exposure_mean", share),
        ("largest exposure", "exposure_max", share),
    )
    rows = [(label, shown(found[key]), shown(twice[key])) for label, key, shown in names]
    rows += [
        ("turnover, times the initial value", number(found["turnover"], 1), number(found["turnover"], 1)),
        ("funding paid, USD", usd(found["funding_usd"]), usd(found["funding_usd"])),
    ]
    yield table(("", "net", "at twice the costs"), rows, (1, 2))
    yield tag("p", "At twice the costs: the same trades, charged twice as much.", class_="dim")


def _charts(result: "Result") -> Iterator[Markup]:
    equity = result.equity
    times: Sequence[int] = result.run.curve.time_ns
    rivals = [rival.name for rival in result.run.rivals]
    yield tag("h2", "Value, USD")
    series = [
        Series("HIMARI, net", "s0", equity["equity"]),
        Series("at twice the costs", "s0 dash", equity["at_twice_the_costs"]),
        *(Series(name, css, equity[name]) for name, css in zip(rivals, STYLES, strict=False)),
    ]
    yield lines(times, series, "Value over time", usd)
    yield tag("h2", "Drawdown")
    yield area(times, -equity["drawdown"], "Fall from the last peak", percent)
    yield tag("h2", "Exposure, share of the value")
    exposure = [
        Series("gross", "s0", equity["gross"] / np.maximum(equity["equity"], 1e-9)),
        Series("net", "s2", equity["net"] / np.maximum(equity["equity"], 1e-9)),
    ]
    yield lines(times, exposure, "Exposure over time", share, 140)
    earned = result.earned
    names = [name for name in earned if name != "timestamp_ns"]
    if len(names) > 1:
        yield tag("h2", "Profit by strategy, USD")
        styles = ("s0", *STYLES)
        shown = [Series(name, styles[place % len(styles)], earned[name]) for place, name in enumerate(names[:10])]
        yield lines(times, shown, "Profit of each strategy over time", usd, 180)


def _compared(figures: Figures) -> Iterator[Markup]:
    yield tag("h2", "The same signals under other sizes")
    rows = [
        (
            each["name"],
            percent(each["return"]),
            share(each["volatility_a_year"]),
            number(each["sharpe_a_year"]),
            share(each["max_drawdown"]),
            number(each["turnover"], 1),
            usd(each["costs_usd"]),
            share(each["exposure_mean"]),
        )
        for each in figures["compared"]
    ]
    head = ("sizing", "return", "volatility a year", "Sharpe", "drawdown", "turnover", "costs, USD", "mean exposure")
    yield table(head, rows, range(1, 8))
    yield tag(
        "p",
        "Fixed fraction: 5 % of the value for each live claim. Volatility target: each claim at 10 % volatility a "
        "year. Full Kelly: each claim at its word. All within the caps of the settings, at the same prices and costs, "
        "with the same no-trade band.",
        class_="dim",
    )


def _groups(figures: Figures) -> Iterator[Markup]:
    for name, what in (("by_strategy", "strategy"), ("by_symbol", "symbol")):
        yield tag("h2", f"By {what}")
        rows = [
            (
                each["name"],
                usd(each["profit_usd"]),
                percent(each["return"]),
                usd(each["costs_usd"]),
                usd(each["funding_usd"]),
                number(each["turnover"], 1),
                each["trades"],
            )
            for each in figures[name]
        ]
        head = (what, "profit, USD", "of the value", "costs, USD", "funding, USD", "turnover", "trades")
        yield table(head, rows, range(1, 7))


def _stages(figures: Figures) -> Iterator[Markup]:
    if figures["stages"] is None:
        return
    yield tag("h2", "What each stage earned or cost")
    rows = [
        (
            each["stage"],
            percent(each["gain"], 2),
            _interval(each["interval"], percent),
            share(each["drawdown"]),
            number(each["turnover"], 1),
            usd(each["costs_usd"]),
        )
        for each in figures["stages"]
    ]
    head = ("stage", "return it added", "95 % interval", "drawdown without", "turnover without", "costs without, USD")
    yield table(head, rows, range(1, 6))
    text = "Each stage is switched off by settings, and the whole is run again. An interval over 0 is no evidence."
    yield tag("p", text, class_="dim")


def _calendar(figures: Figures) -> Iterator[Markup]:
    by_year: dict[int, dict[int, float | None]] = {}
    for each in figures["calendar"]:
        by_year.setdefault(each["year"], {})[each["month"]] = each["return"]
    rows = []
    for year, months in sorted(by_year.items()):
        cells = [_month(months.get(number)) if number in months else tag("td", "") for number in range(1, 13)]
        growth = float(np.prod([1.0 + (value or 0.0) for value in months.values()])) - 1.0
        rows.append(tag("tr", tag("td", year), *cells, _month(growth)))
    head = tag("tr", *(tag("th", each, class_="n") for each in ("", *MONTHS, "year")))
    yield tag("h2", "Returns by month")
    yield tag("table", tag("thead", head), tag("tbody", *rows))


def _month(value: float | None) -> Markup:
    css = "n" if not value else "n plus" if value > 0 else "n minus"
    return tag("td", UNKNOWN if value is None else f"{100 * value:+.1f}", class_=css)


def _cascades(figures: Figures) -> Iterator[Markup]:
    yield tag("h2", "Cascades in the period")
    cuts = ", ".join(f"{level} {count} times" for level, count in figures["cuts"].items())
    yield tag("p", f"Levels came into force, counting every symbol and side: {cuts}.")
    if not figures["cascades"]:
        yield tag("p", "None of the known days of forced selling lies in the period.", class_="dim")
        return
    others = list(figures["cascades"][0]["others"])
    rows = [
        (
            each["day"],
            each["name"],
            percent(each["market"]),
            each["cut"],
            percent(each["ours"], 2),
            *(percent(each["others"][name], 2) for name in others),
        )
        for each in figures["cascades"]
    ]
    head = ("day", "known as", "market, at its lowest", "strongest cut of a long", "HIMARI", *others)
    yield table(head, rows, (2, *range(4, 5 + len(others))))


# -- how surely --------------------------------------------------------------------------------------------------------
def _statistics(figures: Figures) -> Iterator[Markup]:
    found = figures["statistics"]
    test = found["shuffle"]
    yield tag("h2", "How surely")
    rows = [
        ("Sharpe ratio a year", number(found["sharpe_a_year"]), _interval(found["sharpe_interval"], number)),
        ("largest drawdown", share(figures["result"]["max_drawdown"]), _interval(found["drawdown_interval"], share)),
        ("return of the period", percent(figures["result"]["return"]), _interval(found["growth_interval"], percent)),
        ("probability that the true Sharpe ratio is above 0", number(found["probabilistic_sharpe"]), ""),
        (f"the same after {found['trials']} trials (deflated)", number(found["deflated_sharpe"]), ""),
        ("tried variants that it withstands at 95 %", _count(found["trials_withstood"]), ""),
        ("shuffle test: share of shuffled markets that earned as much", number(test and test["p"], 3), ""),
    ]
    yield table(("", "estimate", "95 % interval"), rows, (1, 2))
    block = "" if found["block_days"] is None else f", blocks of {found['block_days']:.0f} days on average"
    yield tag(
        "p",
        f"From {found['days']} daily returns. Intervals: stationary bootstrap{block}. Probabilities: Bailey and "
        "López de Prado, 2012 and 2014. Shuffle test: the same positions on blocks of the market in another order.",
        class_="dim",
    )


def _interval(found: Sequence[float] | None, shown: Any) -> str:
    return UNKNOWN if found is None else f"{shown(found[0])} to {shown(found[1])}"


def _count(value: int | None) -> str:
    return UNKNOWN if value is None else f"{value:,}"


def _claims(figures: Figures) -> Iterator[Markup]:
    yield tag("h2", "What was claimed, and what came")
    rows = [
        (
            each["strategy"],
            each["claims"],
            number(each["claimed"], 3),
            number(each["realised"], 3),
            number(each["slope"]),
            number(each["slope_error"]),
            share(each["won"]),
            share(each["covered"]),
        )
        for each in figures["claims"]
    ]
    head = ("strategy", "claims", "claimed", "came", "of a claim of 1 came", "± standard error", "won", "covered")
    yield table(head, rows, range(1, 8))
    text = (
        "Means in volatilities over the horizon. The error takes claims as independent; overlapping ones are not. "
        "Covered: share of the returns inside the conformal interval that was in force."
    )
    yield tag("p", text, class_="dim")
    if figures["caps"]:
        caps = ", ".join(f"{level} {share(part)}" for level, part in figures["caps"].items())
        yield tag("p", f"Share of decisions in which a cap bound: {caps}.")
    if figures["zero_sized"]:
        why = ", ".join(f"{reason} {count} times" for reason, count in figures["zero_sized"].items())
        yield tag("p", f"Claims sized to 0 at once: {why}.")


def _provenance(figures: Figures) -> Iterator[Markup]:
    journal, ahead = figures["journal"], figures["look_ahead"]
    yield tag("h2", "Provenance")
    if ahead["checked"]:
        yield tag(
            "p",
            f"No look-ahead: the candles until {ahead['until'][:16]} alone give the same first {ahead['allocations']} "
            "allocations, byte for byte.",
            class_="ok",
        )
    else:
        yield tag("p", "Look-ahead was not checked (--no-check).", class_="dim")
    rows = [
        ("journal", f"{journal['journal_id']}, {journal['entries']} entries"),
        ("allocations", f"{journal['allocations']}, sha256 {journal['allocations_sha256']}"),
        ("settings", f"sha256 {journal['settings_hash']}"),
        ("decision version", journal["decision_version"]),
        ("archive", journal["archive_head"] or "none was written"),
        *(
            (
                each["symbol"],
                f"{each['rows']} candles of {each['width_s']} s, {each['gaps']} gaps, {each['doubled']} doubled",
            )
            for each in figures["data"]
        ),
    ]
    yield table(("", ""), rows)
