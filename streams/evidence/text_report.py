"""The explanation of a decision and a what-if report as plain text."""

from collections.abc import Iterator, Mapping
from typing import Any, Final

from streams.reports.weight_history import instant

ExplanationView = Mapping[str, Any]

VERDICTS: Final = {
    "equal": "verified: recomputed from the journal, all bytes identical",
    "different": "DIFFERS from what the journal gives",
    "missing": "IS MISSING: later decisions of its partition are published",
    "pending": "is decided, but not published yet",
}


def usd(cents: int) -> str:
    """Return cents as USD, exactly.

    >>> usd(-1_234_505)
    '-12,345.05'
    """
    whole, rest = divmod(abs(cents), 100)
    return f"{'-' if cents < 0 else ''}{whole:,}.{rest:02}"


def number(value: Any) -> str:
    """Return a float with six significant digits, any other value unchanged."""
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def detail(found: ExplanationView) -> str:
    """Return the numbers behind a stage's result, in one line."""
    return ", ".join(f"{name} {number(value)}" for name, value in found.items() if value != "")


def why(step: ExplanationView) -> str:
    """Return a stage's reason and the numbers behind it."""
    return "; ".join(text for text in (step["reason"], detail(step["detail"])) if text)


def place(entry: ExplanationView | None) -> str:
    """Return the journal entry and source record of an input."""
    if entry is None:
        return "settings"
    source = entry["source"]
    record = (
        "" if source is None else f" ({source['topic']}·{source['epoch']}·{source['partition']}·{source['offset']})"
    )
    return f"{entry['kind']} @{entry['journal_offset']}{record}"


def verdict(view: ExplanationView) -> Iterator[str]:
    """Yield whether a decision verifies."""
    found = view["verification"]
    yield f"{view['decision_id']} {VERDICTS[found['status']]}"
    if found["finding"]:
        yield f"  {found['finding']}"


def lines(view: ExplanationView) -> Iterator[str]:
    """Yield the explanation of a decision."""
    yield from verdict(view)
    decision = view["decision"]
    if decision is None:
        return
    trigger, at = decision["trigger"], view["journal"]
    where = f"journal {at['partition']}:{at['offset']}"
    yield f"  decided at {decision['decided_at']}, {where}, by {place(trigger['entry'])}"
    how = "every live cell sized" if trigger["full"] else "held positions scaled by ratio"
    yield f"  trigger {trigger['kind']} {trigger['id']}: {how}; holdings from {decision['basis']}"
    yield "inputs (kind @journal offset (topic·epoch·partition·offset)):"
    for what, value, entry in inputs(decision["inputs"]):
        yield f"  {what:<34} {value:<58} {place(entry)}"
    yield f"limits: {', '.join(f'{name} {text}' for name, text in limits(decision['limits']))}"
    yield f"bound: {', '.join(decision['bound']) or 'no cap'}; kept: {', '.join(decision['kept']) or 'nothing'}"
    for cell in decision["cells"]:
        yield from _cell(cell)
    yield "portfolio:"
    for step in decision["portfolio"]:
        yield f"  {step['stage']:<11} gross {usd(step['gross_cents']):>16} net {usd(step['net_cents']):>16}"
    for symbol, target in decision["targets"].items():
        coins, weight = target["quantity"], target["weight"]
        yield f"target {symbol}: {target['notional_usd']:,.2f} USD, {coins!r} coins, weight {weight!r}"


def _cell(cell: ExplanationView) -> Iterator[str]:
    held, target = usd(cell["held_cents"]), usd(cell["target_cents"])
    yield f"{cell['strategy_id']}/{cell['symbol']}, {cell['trading_state']}: held {held}, target {target}"
    for step in cell["steps"]:
        after, change = usd(step["after_cents"]), usd(step["after_cents"] - step["before_cents"])
        yield f"  {step['stage']:<11} {after:>16} {change:>16}  {why(step)}".rstrip()


def limits(found: ExplanationView) -> Iterator[tuple[str, str]]:
    """Yield (name, text) of each limit in force."""
    for name, limit in found.items():
        share = f" ({limit['ratio']:.4g} of value)" if "ratio" in limit else ""
        yield name, f"{usd(limit['cents'])}{share}"


def inputs(found: ExplanationView) -> Iterator[tuple[str, str, ExplanationView | None]]:
    """Yield (what, value, entry) of each input."""
    settings = found["settings"]
    yield "settings", f"{settings['hash'][:16]} {ordered(settings['order'])}", settings["entry"]
    for each in found["forecasts"]:
        yield f"forecast {each['strategy_id']}/{each['symbol']}", _forecast(each), each["entry"]
    for each in found["prices"]:
        known = "none" if each["price"] is None else f"{number(each['price'])}, {each['age_s']:.3f} s old"
        yield f"price {each['symbol']}", known, each["entry"]
    for each in found["readings"]:
        yield (
            f"{each['reading']} {each['symbol'] or 'market'}",
            f"{number(each['value'])} at {each['at']}",
            each["entry"],
        )
    for each in found["regimes"]:
        candidate = f", {each['candidate']} is a candidate" if each["candidate"] else ""
        yield f"regime {each['symbol']}", f"{each['confirmed']}{candidate}", each["entry"]
    for each in found["trading_states"]:
        yield f"trading state {each['scope']}", f"{each['state']} {ordered(each['order'])}", each["entry"]
    equity = found["equity"]
    yield "equity", f"{equity['value_usd']:,.2f}, peak {equity['peak_usd']:,.2f}", equity["entry"]
    if found["positions"]["known"]:
        yield "positions", "", found["positions"]["entry"]
    yield from _learnt(found)


def _learnt(found: ExplanationView) -> Iterator[tuple[str, str, ExplanationView | None]]:
    for each in found["outcomes"]["cells"]:
        yield f"outcomes {each['strategy_id']}/{each['symbol']}", f"{each['learnt']} learnt; the last", each["last"]
    weights = found["strategy_weights"]
    if weights["entry"] is not None:
        shares = ", ".join(f"{name} {weight:.4g}" for name, weight in weights["weights"].items())
        yield "strategy weights", shares, weights["entry"]
    if found["correlations"]["entry"] is not None:
        yield "correlations", "", found["correlations"]["entry"]


def _forecast(each: ExplanationView) -> str:
    estimated = f", estimated {each['estimated']}" if each["estimated"] else ""
    claim = (
        f"e {number(each['expected_return'])}, s {number(each['volatility'])}, confidence {number(each['confidence'])}"
    )
    return f"{each['signal_id']}: {'long' if each['side'] > 0 else 'short'}, {claim}{estimated}"


def ordered(order: ExplanationView | None) -> str:
    """Return who gave an order and why; "" for Genesis."""
    return "" if order is None else f"by {order['by']}: {order['reason']} ({order['control_id']})"


def bundled(view: ExplanationView) -> Iterator[str]:
    """Yield a summary of a bundle."""
    yield f"{view['file']}: {view['decision_id']} with {view['entries']} journal entries"
    yield (
        f"  DOES NOT verify: {view['finding']}"
        if view["finding"]
        else f"  verified; to repeat: himari audit check {view['file']}"
    )


# -- what if -----------------------------------------------------------------------------------------------------------
def differences(view: ExplanationView) -> Iterator[str]:
    """Yield a what-if report."""
    total, changed = view["decisions"], view["changed"]
    yield f"settings {view['settings_hash'][:16]}: {changed} of {total} decisions change, by {money(view)} USD in total"
    yield from remarks(view)
    for row in view["by_symbol"]:
        name = f"{row['portfolio_id']} {row['symbol']}"
        yield f"  {name:<32} {row['decisions']:>8} decisions {money(row):>20} USD, net {usd(row['change_cents'])}"
    if view["by_rule"]:
        yield "what bound → what binds instead:"
    for row in view["by_rule"]:
        yield f"  {row['rule']:<34} → {row['instead']:<34} {row['changes']:>8} times {money(row):>20} USD"
    if view["biggest"]:
        yield "largest changes:"
    for each in view["biggest"]:
        yield f"  {each['decision_id']} {instant(each['timestamp_ns'])}, {each['trigger']}: {money(each)} USD"
        for change in each["changes"]:
            sizes = f"{usd(change['before_cents'])} ({change['rule']}) → {usd(change['after_cents'])}"
            yield f"    {change['symbol']} {sizes} ({change['instead']})"


def money(row: ExplanationView) -> str:
    """Return a sum of absolute changes in USD."""
    return usd(row["absolute_change_cents"])


def remarks(view: ExplanationView) -> Iterator[str]:
    """Yield the caveats of a what-if report."""
    if view["only_journal_settings"] or view["only_file_settings"]:
        only = f"{view['only_journal_settings']} only under the journal's settings"
        yield f"  decisions made {only}, {view['only_file_settings']} only under the file's"
    if view["from_positions"]:
        yield f"  {view['from_positions']} decisions use reported positions, which other targets would have changed"
    if view["refused"]:
        yield f"  {view['refused']} inputs would be refused"
