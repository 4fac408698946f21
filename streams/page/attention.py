"""Panel 1: what needs an operator, worst first."""

from collections.abc import Iterator, Mapping
from typing import Any, Final

from streams.page.scene import HOUR_MS, MILLISECOND_NS, NOT_READ_YET, Scene, command

Item = dict[str, Any]

BEHIND: Final = "records behind"
"""How `/ready` says that a partition is only late."""
RANKS: Final = {"critical": 0, "warning": 1, "info": 2}
ITEMS_MAX: Final = 60
SHOWN: Final = {
    "suspect_price": ("markets", "price too far from the last one; it counts for nothing until another agrees"),
    "suspect_equity": ("view", "reported equity too far from the last one; it counts for nothing until another agrees"),
    "late_prices": ("markets", "many ticks are older than those before them"),
    "clock_skew": ("markets", "ticks are behind the others of their partition"),
    "risk_budget": ("budgets", "a cap is exceeded by more than the tolerance"),
    "drift": ("strategies", "strategy weights left their slow reference"),
    "correlation": ("correlations", "pairs of symbols are highly correlated"),
    "config_rejected": ("orders", "settings file rejected; nothing changed"),
}
"""Kind of an alert → panel, and what it means. Other kinds have items of their own or are shown by their name."""
OWN: Final = frozenset({"cascade", "breaker", "rl_gate", "stale_price"})
"""Kinds whose state is shown instead of the alert."""
CONTROL_WORDS: Final = frozenset({"applied", "no_op"})


def attention(scene: Scene) -> dict[str, Any]:
    """Return what needs attention, worst first; equal ones newest first."""
    sources = (_process, _feeds, _chains, _halts, _cascades, _stale, _expired, _policy, _alerts, _orders, _letters)
    items = [item for source in sources for item in source(scene)]
    items.sort(key=lambda item: (RANKS[item["severity"]], -(item["since_ms"] or 0), item["subject"]))
    counts = {severity: sum(item["severity"] == severity for item in items) for severity in RANKS}
    return {"items": items[:ITEMS_MAX], "total": len(items), "counts": counts}


def _item(
    severity: str,
    kind: str,
    subject: str,
    text: str,
    panel: str,
    since_ms: int | None = None,
    copied: str = "",
    doc: str = "alerts.md",
) -> Item:
    return {
        "severity": severity,
        "kind": kind,
        "subject": subject,
        "text": text,
        "panel": panel,
        "since_ms": since_ms,
        "command": copied,
        "doc": f"docs/{doc}",
    }


def _process(scene: Scene) -> Iterator[Item]:
    if scene.problem:
        yield _item("critical", "worker", "this worker", scene.problem, "pipeline", doc="errors.md")
    for place, why in sorted(scene.not_ready.items()):
        late = BEHIND in why
        severity, kind = ("warning", "late") if late else ("critical", "not ready")
        yield _item(severity, kind, place, why, "pipeline", doc="running.md#live-and-ready")


def _feeds(scene: Scene) -> Iterator[Item]:
    for name, problem in scene.feeds.items():
        if problem and problem != NOT_READ_YET:
            severity = "critical" if name == "allocations" else "info"
            yield _item(severity, "not read", name, problem, "pipeline", doc="dashboard.md")
    if scene.model.unreadable:
        text = f"{scene.model.unreadable} records of allocations or alerts cannot be read"
        yield _item("critical", "unreadable", "allocations", text, "decisions", doc="errors.md")


def _chains(scene: Scene) -> Iterator[Item]:
    for name, known in sorted(scene.model.portfolios.items()):
        chain = known.chain
        if chain.word != "intact":
            copied = command("audit", "verify", "--portfolio", name)
            yield _item("critical", chain.word, name, chain.text, "decisions", None, copied, "reading_allocations.md")


def _halts(scene: Scene) -> Iterator[Item]:
    for scope, word in sorted(scopes(scene).items()):
        order = order_behind(scene, scope, word)
        text = "who and why is not known here" if order is None else f"{order['by']}: {order['reason']}"
        since = None if order is None else order["ordered_ms"]
        copied = command("control", "resume", "--scope", scope, "--reason", "WHY")
        severity = "critical" if word == "HALTED" else "warning"
        yield _item(severity, word, scope, text, "orders", since, copied, "orders.md")


def scopes(scene: Scene) -> Mapping[str, str]:
    """Return the trading states in force by scope: the worker's, or as the applied orders leave them."""
    if "scopes" in scene.part:
        found: Mapping[str, str] = scene.part["scopes"]
        return found
    states: dict[str, str] = {}
    for order in sorted(scene.model.orders.values(), key=lambda each: each["ordered_ms"] or 0):
        if order["kind"] != "trading_state" or not CONTROL_WORDS.issuperset(order["answers"].values()):
            continue
        scope, word = order["what"].get("scope"), order["what"].get("state")
        if word == "ACTIVE" and order["what"].get("everything"):
            states.clear()
        elif word == "ACTIVE":
            states.pop(scope, None)
        else:
            states[scope] = word
    return states


def order_behind(scene: Scene, scope: str, word: str) -> Mapping[str, Any] | None:
    """Return the newest order that set a scope to a trading state; None if it was not read."""
    for order in sorted(scene.model.orders.values(), key=lambda each: -(each["ordered_ms"] or 0)):
        what = order["what"] or {}
        if order["kind"] == "trading_state" and (what.get("scope"), what.get("state")) == (scope, word):
            return order
    return None


def _cascades(scene: Scene) -> Iterator[Item]:
    markets = scene.part.get("markets")
    if markets is not None:
        for symbol, market in markets.items():
            for side in ("long", "short"):
                latch = market[side]
                if latch is not None and latch["level"] != "MONITOR":
                    yield _cascade(f"{symbol}:{side}", latch["level"], latch["score"], None)
        return
    for (kind, subject), alert in scene.model.standing.items():
        if kind == "cascade" and alert.get("result") not in {None, "MONITOR"}:
            yield _cascade(subject, alert["result"], alert.get("value"), alert["timestamp_ns"] // MILLISECOND_NS)


def _cascade(subject: str, level: str, score: float | None, since_ms: int | None) -> Item:
    severity = "critical" if level == "EXIT" else "warning"
    text = level if score is None else f"{level}, score {score:.2f}"
    return _item(severity, "cascade", subject, text, "markets", since_ms)


def _stale(scene: Scene) -> Iterator[Item]:
    oldest = scene.part.get("max_price_age_s")
    if oldest is None:
        for alert in _recent(scene, "stale_price"):
            since = alert["timestamp_ns"] // MILLISECOND_NS
            yield _item("warning", "stale price", alert["subject"], "price too old to size with", "markets", since)
        return
    targeted = dict.fromkeys(symbol for _, each in scene.newest() for symbol in each.fields["targets"])
    for symbol, market in scene.part["markets"].items():
        at = market["price_ms"]
        if symbol in targeted and at is not None and scene.now_ms - at > 1000 * oldest:
            text = f"older than {oldest:g} s: held, not added to"
            yield _item("warning", "stale price", symbol, text, "markets", at)


def _expired(scene: Scene) -> Iterator[Item]:
    for name, each in scene.newest():
        until = each.fields.get("valid_until_ns")
        if until is not None and until // MILLISECOND_NS <= scene.now_ms:
            text = "a forecast behind its targets has expired, and no decision has followed"
            yield _item("warning", "expired", name, text, "view", until // MILLISECOND_NS, doc="reading_allocations.md")


def _policy(scene: Scene) -> Iterator[Item]:
    for (kind, subject), alert in scene.model.standing.items():
        result, since = str(alert.get("result")), alert["timestamp_ns"] // MILLISECOND_NS
        if kind == "breaker" and not result.startswith("closed"):
            yield _item("warning", "breaker", subject, f"{result}; the rules' sizes stand", "policy", since)
        if kind == "rl_gate" and result == "closed":
            yield _item("warning", "policy gate", subject, "closed: the policy no longer nudges", "policy", since)


def _recent(scene: Scene, kind: str | None = None) -> Iterator[Mapping[str, Any]]:
    """Yield the newest alert of each kind and subject within the last hour."""
    newest: dict[tuple[str, str], Mapping[str, Any]] = {}
    for alert in scene.model.alerts:
        if scene.now_ms - alert["timestamp_ns"] // MILLISECOND_NS <= HOUR_MS and kind in {None, alert["kind"]}:
            newest[alert["kind"], alert["subject"]] = alert
    yield from newest.values()


def _alerts(scene: Scene) -> Iterator[Item]:
    for alert in _recent(scene):
        kind = alert["kind"]
        if kind in OWN:
            continue
        panel, text = SHOWN.get(kind, ("view", ""))
        parts = [text, str(alert.get("result") or ""), _measured(alert)]
        severity = alert["severity"] if alert["severity"] in RANKS else "info"
        since = alert["timestamp_ns"] // MILLISECOND_NS
        yield _item(severity, kind.replace("_", " "), alert["subject"], "; ".join(filter(None, parts)), panel, since)


def _measured(alert: Mapping[str, Any]) -> str:
    value, threshold = alert.get("value"), alert.get("threshold")
    if value is None:
        return ""
    return f"{value:.4g}" if threshold is None else f"{value:.4g}, threshold {threshold:.4g}"


def _orders(scene: Scene) -> Iterator[Item]:
    for order in scene.model.orders.values():
        refused = [text for text in order["answers"].values() if text not in CONTROL_WORDS]
        since = order["answered_ms"]
        if refused and since is not None and scene.now_ms - since <= HOUR_MS:
            yield _item("warning", "order refused", order["control_id"], refused[0], "orders", since)


def _letters(scene: Scene) -> Iterator[Item]:
    by_topic: dict[str, int] = {}
    for letter in scene.model.letters.values():
        if scene.wall_ms - letter["time_ms"] <= HOUR_MS:
            by_topic[letter["topic"]] = by_topic.get(letter["topic"], 0) + 1
    for topic, count in sorted(by_topic.items()):
        copied = command("dlq", "list", "--topic", topic)
        text = f"{count} in the last hour"
        yield _item("warning", "dead letters", topic, text, "dead-letters", None, copied, "dead_letters.md")
