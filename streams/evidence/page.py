"""The explanation of a decision and a what-if report as self-contained HTML pages."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from streams.evidence import text_report
from streams.evidence.charts import SeriesLine, WaterfallBar, over_time, waterfall
from streams.evidence.explain import agrees
from streams.evidence.html import Markup, document, table, tag
from streams.reports.weight_history import instant

ExplanationView = Mapping[str, Any]


def page(view: ExplanationView) -> str:
    """Return the explanation of a decision, with a waterfall chart per cell."""
    return document(f"Decision {view['decision_id']}", *_verdict(view), *_decision(view))


def _verdict(view: ExplanationView) -> Iterator[Markup]:
    found = view["verification"]
    css = "ok" if agrees(found) else "bad"
    yield tag("p", f"This decision {text_report.VERDICTS[found['status']]}.", class_=css)
    if found["finding"]:
        yield tag("p", found["finding"], class_=css)
    hashes = ", ".join(found["published_sha256"]) or "none"
    yield tag("p", f"sha256 published {hashes}; computed {found['computed_sha256']}", class_="dim")


def _decision(view: ExplanationView) -> Iterator[Markup]:
    decision = view["decision"]
    if decision is None:
        return
    trigger, at = decision["trigger"], view["journal"]
    how = "every live cell was sized" if trigger["full"] else "held positions were scaled by ratio"
    yield tag(
        "p",
        f"Portfolio {view['portfolio_id']}, sequence {decision['sequence']}, {decision['decided_at']}, journal "
        f"{at['partition']}:{at['offset']}. Triggered by {trigger['kind']} {trigger['id']} "
        f"({text_report.place(trigger['entry'])}): {how}.",
    )
    yield tag("h2", "Inputs")
    rows = [(what, value, text_report.place(entry)) for what, value, entry in text_report.inputs(decision["inputs"])]
    yield table(("input", "value", "journal entry (topic·epoch·partition·offset)"), rows)
    yield tag("h2", "Limits in force")
    yield table(("limit", "USD"), list(text_report.limits(decision["limits"])), (1,))
    yield tag("p", f"Bound: {', '.join(decision['bound']) or 'no cap'}.")
    yield tag("p", f"Kept by the no-trade band: {', '.join(decision['kept']) or 'nothing'}.")
    for cell in sorted(decision["cells"], key=lambda each: not _is_triggers(each, trigger)):
        yield from _cell(cell)
    yield from _portfolio(decision)


def _is_triggers(cell: ExplanationView, trigger: ExplanationView) -> bool:
    return trigger["cell"] is not None and (cell["strategy_id"], cell["symbol"]) == tuple(trigger["cell"])


def _cell(cell: ExplanationView) -> Iterator[Markup]:
    name = f"{cell['strategy_id']} on {cell['symbol']}"
    held, target = text_report.usd(cell["held_cents"]), text_report.usd(cell["target_cents"])
    yield tag("h2", name)
    yield tag("p", f"{cell['trading_state']}; held {held} USD, target {target} USD.")
    steps = cell["steps"]
    bars = [WaterfallBar(step["stage"], step["before_cents"], step["after_cents"], step["reason"]) for step in steps]
    yield waterfall(bars, f"Waterfall of {name}")
    rows = [
        (
            step["stage"],
            text_report.usd(step["before_cents"]),
            text_report.usd(step["after_cents"]),
            text_report.usd(step["after_cents"] - step["before_cents"]),
            text_report.why(step),
        )
        for step in steps
    ]
    yield table(("stage", "in", "out", "change", "reason"), rows, (1, 2, 3))


def _portfolio(decision: ExplanationView) -> Iterator[Markup]:
    yield tag("h2", "Portfolio")
    bars, before = [], 0
    for step in decision["portfolio"]:
        bars.append(WaterfallBar(step["stage"], before, step["gross_cents"], ""))
        before = step["gross_cents"]
    yield waterfall(bars, "Gross of the portfolio")
    rows = [
        (symbol, f"{target['notional_usd']:,.2f}", repr(target["quantity"]), repr(target["weight"]))
        for symbol, target in decision["targets"].items()
    ]
    yield table(("symbol", "target USD", "coins", "weight"), rows, (1, 2, 3))


# -- what if -----------------------------------------------------------------------------------------------------------
def differences(view: ExplanationView) -> str:
    """Return a what-if report, with a chart of the changes over time."""
    return document(f"What if: settings {view['settings_hash'][:16]}", *_differences(view))


def _differences(view: ExplanationView) -> Iterator[Markup]:
    changed = f"{view['changed']} of {view['decisions']} decisions change, by {text_report.money(view)} USD in total."
    yield tag("p", changed)
    for remark in text_report.remarks(view):
        yield tag("p", remark, class_="dim")
    spans = view["over_time"]
    if spans:
        yield tag("h2", "Over time")
        yield _over_time(spans)
        width_s = (spans[0]["end_ns"] - spans[0]["begin_ns"]) // 1_000_000_000
        text = f"Bars: sum of absolute changes per {width_s} s. Lines: total holdings, grey under the journal's "
        yield tag("p", f"{text}settings, blue under the file's. USD.", class_="dim")
    yield tag("h2", "By portfolio and symbol")
    rows = [
        (
            row["portfolio_id"],
            row["symbol"],
            row["decisions"],
            text_report.money(row),
            text_report.usd(row["change_cents"]),
        )
        for row in view["by_symbol"]
    ]
    yield table(("portfolio", "symbol", "decisions", "sum of |change| USD", "sum of changes USD"), rows, (2, 3, 4))
    yield tag("h2", "Which rule binds instead")
    rules = [(row["rule"], row["instead"], row["changes"], text_report.money(row)) for row in view["by_rule"]]
    yield table(("bound", "binds instead", "times", "sum of |change| USD"), rules, (2, 3))
    yield tag("h2", "Largest changes")
    head = ("decision", "time", "trigger", "symbol", "before", "after", "bound", "binds instead")
    yield table(head, _biggest(view), (4, 5))


def _over_time(spans: Sequence[ExplanationView]) -> Markup:
    lines = [
        SeriesLine(label, css, [span[name] for span in spans])
        for label, css, name in (
            ("the journal's settings", "a", "held_before_cents"),
            ("the file's settings", "b", "held_after_cents"),
        )
    ]
    instants = [instant(span["begin_ns"]) for span in spans]
    return over_time(instants, [span["change_cents"] for span in spans], lines, "Sums over time")


def _biggest(view: ExplanationView) -> Iterator[tuple[object, ...]]:
    for each in view["biggest"]:
        for change in each["changes"]:
            yield (
                each["decision_id"],
                instant(each["timestamp_ns"]),
                each["trigger"],
                change["symbol"],
                text_report.usd(change["before_cents"]),
                text_report.usd(change["after_cents"]),
                change["rule"],
                change["instead"],
            )
