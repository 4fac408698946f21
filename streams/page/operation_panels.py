"""Panels 0 and 9 to 11: the verdict, the pipeline, dead letters, and orders."""

from collections import Counter
from typing import Any, Final

from streams.page.attention import BEHIND, order_behind, scopes
from streams.page.scene import NOT_READ_YET, Scene, command

LATE_S: Final = 5.0
"""A journal that is silent for longer makes the verdict Late: an idle partition gets a tick every second."""
LATE_RECORDS: Final = 200

PageRow = dict[str, Any]


def verdict(scene: Scene) -> PageRow:
    """Return whether decisions are made, in one word, and how old the journal is.

    deciding · late · not_ready: of this worker. following: a dashboard reads what the workers publish, and does not
    know how they are. reading: the first records are on their way. unread: `allocations` cannot be read.
    """
    partitions = scene.part.get("partitions", {})
    journal_ms = max((each["journal_ms"] for each in partitions.values()), default=None)
    newest_ms = max((each.timestamp_ns // 1_000_000 for each in scene.model.decisions), default=None)
    word, why = _word(scene)
    return {
        "verdict": word,
        "why": why,
        "role": scene.role,
        "now_ms": scene.now_ms,
        "wall_ms": scene.wall_ms,
        "journal_ms": journal_ms,
        "newest_decision_ms": newest_ms,
        "still_s": scene.part.get("still_s"),
        "partitions": scene.partitions,
        "owned": sorted(partitions),
        "settings_hashes": sorted({each["settings_hash"] for each in partitions.values()}),
    }


def _word(scene: Scene) -> tuple[str, str]:
    problem = scene.feeds.get("allocations")
    if problem:
        return ("reading" if problem == NOT_READ_YET else "unread"), problem
    if scene.role == "dashboard":
        return "following", "reads what the workers publish"
    broken = {place: why for place, why in scene.not_ready.items() if BEHIND not in why}
    if scene.problem or broken:
        return "not_ready", scene.problem or "; ".join(f"{place}: {why}" for place, why in sorted(broken.items()))
    late = _late(scene)
    return ("late", late) if late else ("deciding", "every assigned partition is folded to its end")


def _late(scene: Scene) -> str:
    """Return why decisions come late; "" if they do not."""
    lag, still_s = max(scene.part.get("lag", {}).values(), default=0), scene.part.get("still_s") or 0.0
    if lag > LATE_RECORDS:
        return f"{lag} journal entries are not folded yet"
    if scene.not_ready:
        return "; ".join(f"{place}: {why}" for place, why in sorted(scene.not_ready.items()))
    return f"no journal entry for {still_s:.0f} s" if still_s > LATE_S else ""


def pipeline(scene: Scene) -> PageRow:
    """Return lag and owner of each journal partition, latency, and the state of the page's own feeds."""
    partitions = scene.part.get("partitions", {})
    count = max(scene.partitions, *(number + 1 for number in (*partitions, *scene.owners, -1)))
    ends: dict[int, int] = {}
    for each in scene.model.decisions:
        ends[each.partition] = max(ends.get(each.partition, -1), each.timestamp_ns // 1_000_000)
    rows = [
        {
            "partition": number,
            "owner": scene.owner(number),
            "lag": scene.part.get("lag", {}).get(number),
            "journal_ms": partitions.get(number, {}).get("journal_ms"),
            "checkpoint_age_s": scene.part.get("checkpoint_age_s", {}).get(number),
            "last_decision_ms": ends.get(number),
        }
        for number in range(count)
    ]
    feeds = [{"feed": name, "problem": problem} for name, problem in scene.feeds.items()]
    return {
        "partitions": rows,
        "latency": scene.part.get("latency"),
        "feeds": feeds,
        "role": scene.role,
        "problem": scene.problem,
    }


def dead_letters(scene: Scene) -> PageRow:
    """Return the last dead letters, newest first, and their number by code."""
    newest = sorted(scene.model.letters.values(), key=lambda each: -each["time_ms"])
    return {
        "letters": [
            {**each, "command": command("dlq", "replay", each["topic"], str(each["partition"]), str(each["offset"]))}
            for each in newest
        ],
        "codes": dict(Counter(str(each["code"]) for each in newest).most_common(20)),
        "problem": scene.feeds.get("dead letters", ""),
    }


def orders(scene: Scene) -> PageRow:
    """Return the last orders, newest first, and the trading states in force."""
    newest = sorted(scene.model.orders.values(), key=lambda each: -(each["ordered_ms"] or each["answered_ms"] or 0))
    in_force = []
    for scope, word in sorted(scopes(scene).items()):
        behind = order_behind(scene, scope, word) or {}
        copied = command("control", "resume", "--scope", scope, "--reason", "WHY")
        who = {name: behind.get(name) for name in ("by", "reason", "ordered_ms", "control_id")}
        in_force.append({"scope": scope, "state": word, **who, "command": copied})
    return {
        "orders": newest,
        "in_force": in_force,
        "in_force_known": "scopes" in scene.part,
        "problem": scene.feeds.get("orders", ""),
        "commands": {
            "halt all": command("control", "halt", "--scope", "all", "--reason", "WHY"),
            "list": command("control", "list", "--history"),
        },
    }
