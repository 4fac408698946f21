"""An account of a decision, and what other settings change, as lines for people."""

from collections.abc import Iterator, Mapping
from typing import Any, Final

from streams.reports.weight_history import instant

ExplanationView = Mapping[str, Any]

VERDICTS: Final = {
    "equal": "comes out of the journal again, every byte the same",
    "different": "DOES NOT come out of the journal as it was published",
    "missing": "IS MISSING: later decisions of its partition are published",
    "pending": "is decided, and not published yet",
}


def usd(cents: int) -> str:
    """Return cents as USD, exactly.

    >>> usd(-1_234_505)
    '-12,345.05'
    """
    whole, rest = divmod(abs(cents), 100)
    return f"{'-' if cents < 0 else ''}{whole:,}.{rest:02}"


def number(value: Any) -> str:
    """Return a number short enough to read, anything else as it is."""
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def detail(found: ExplanationView) -> str:
    """Return what a stage went by, in one line."""
    return ", ".join(f"{name} {number(value)}" for name, value in found.items() if value != "")


def why(step: ExplanationView) -> str:
    """Return a stage's reason and what it went by."""
    return "; ".join(text for text in (step["reason"], detail(step["detail"])) if text)


def place(entry: ExplanationView | None) -> str:
    """Return where an input came from."""
    if entry is None:
        return "settings"
    source = entry["source"]
    record = (
        "" if source is None else f" ({source['topic']}·{source['epoch']}·{source['partition']}·{source['offset']})"
    )
    return f"{entry['kind']} @{entry['journal_offset']}{record}"


def verdict(told: ExplanationView) -> Iterator[str]:
    """Yield whether a decision comes out again."""
    found = told["verification"]
    yield f"{told['decision_id']} {VERDICTS[found['status']]}"
    if found["finding"]:
        yield f"  {found['finding']}"


def lines(told: ExplanationView) -> Iterator[str]:
    """Yield an account of a decision."""
    yield from verdict(told)
    decision = told["decision"]
    if decision is None:
        return
    trigger, at = decision["trigger"], told["journal"]
    where = f"journal {at['partition']}:{at['offset']}"
    yield f"  decided at {decision['decided_at']}, {where}, by {place(trigger['entry'])}"
    how = "every live cell sized afresh" if trigger["full"] else "what is held cut by ratio"
    yield f"  trigger {trigger['kind']} {trigger['id']}: {how}; held is known from {decision['basis']}"
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
    yield "equity", f"{equity['value_usd']:,.2f}, highest {equity['peak_usd']:,.2f}", equity["entry"]
    if found["positions"]["known"]:
        yield "positions", "", found["positions"]["entry"]
    yield from _learnt(found)


def _learnt(found: ExplanationView) -> Iterator[tuple[str, str, ExplanationView | None]]:
    for each in found["outcomes"]["cells"]:
        yield f"outcomes {each['strategy_id']}/{each['symbol']}", f"{each['learnt']} learnt, the last", each["last"]
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
    """Return who ordered something and why; nothing where Genesis brought it."""
    return "" if order is None else f"by {order['by']}: {order['reason']} ({order['control_id']})"


def bundled(told: ExplanationView) -> Iterator[str]:
    """Yield what a bundle is."""
    yield f"{told['file']}: {told['decision_id']} with {told['entries']} journal entries"
    yield (
        f"  it DOES NOT verify: {told['finding']}" if told["finding"] else "  it verifies: unpack it, python verify.py"
    )


# -- what if -----------------------------------------------------------------------------------------------------------
def differences(told: ExplanationView) -> Iterator[str]:
    """Yield what other settings would have changed."""
    total, changed = told["decisions"], told["changed"]
    yield f"settings {told['settings_hash'][:16]}: {changed} of {total} decisions change, by {money(told)} USD in sum"
    yield from remarks(told)
    for row in told["by_symbol"]:
        name = f"{row['portfolio_id']} {row['symbol']}"
        yield f"  {name:<32} {row['decisions']:>8} decisions {money(row):>20} USD, net {usd(row['change_cents'])}"
    if told["by_rule"]:
        yield "what bound → what binds instead:"
    for row in told["by_rule"]:
        yield f"  {row['rule']:<34} → {row['instead']:<34} {row['changes']:>8} times {money(row):>20} USD"
    if told["biggest"]:
        yield "the biggest:"
    for each in told["biggest"]:
        yield f"  {each['decision_id']} {instant(each['timestamp_ns'])}, {each['trigger']}: {money(each)} USD"
        for change in each["changes"]:
            sizes = f"{usd(change['before_cents'])} ({change['rule']}) → {usd(change['after_cents'])}"
            yield f"    {change['symbol']} {sizes} ({change['instead']})"


def money(row: ExplanationView) -> str:
    """Return a sum of absolute changes in USD."""
    return usd(row["absolute_change_cents"])


def remarks(told: ExplanationView) -> Iterator[str]:
    """Yield what else there is to know before these sums are believed."""
    if told["only_journal_settings"] or told["only_file_settings"]:
        only = f"{told['only_journal_settings']} under the journal's settings alone"
        yield f"  decisions made {only}, {told['only_file_settings']} under the file's alone"
    if told["from_positions"]:
        yield f"  {told['from_positions']} decisions go by positions as they were: other targets would have left others"
    if told["refused"]:
        yield f"  {told['refused']} inputs would be refused"
