"""Control records: written as orders, and read back from the journal."""

import secrets
from collections.abc import Iterable, Mapping
from typing import Any, Final, NamedTuple

import orjson

from engines.handlers.controls import changed_settings
from engines.handlers.effects import Journaled
from engines.parameters import tree_hash
from schemas import wire
from schemas.control import Control
from schemas.vocabulary import PolicyMode, TradingState
from streams.processing.partitioner import partition_of
from streams.stages.ingest import EVERYWHERE, INTAKES

STATES: Mapping[str, TradingState] = {"halt": "HALTED", "reduce": "REDUCING", "resume": "ACTIVE"}
"""Command → the trading state it orders."""
TAKEN: Final = frozenset({"applied", "no_op"})
"""Answers that mean the order is in force on the partition."""


# -- writing ---------------------------------------------------------------------------------------------------------
def settings_order(payload: Mapping[str, Any], reason: str, by: str, now_ns: int) -> dict[str, Any]:
    """Return the control record of a settings change; its id contains the settings hash and the time."""
    return _order(f"settings-{payload['hash'][:16]}-{now_ns}", "settings", payload, reason, by, now_ns)


def trading_order(
    word: str,
    scope: str,
    reason: str,
    by: str,
    now_ns: int,
    control_id: str | None = None,
    *,
    everything: bool = False,
) -> dict[str, Any]:
    """Return the control record that halts, reduces or resumes a scope; its id is unique unless one is given.

    `everything`: a resume of `all` also ends what narrower scopes are ordered.
    """
    payload = {"scope": scope, "state": STATES[word]} | ({"everything": True} if everything else {})
    return _order(control_id or _name(word, now_ns), "trading_state", payload, reason, by, now_ns)


def value_order(
    payload: Mapping[str, Any], reason: str, by: str, now_ns: int, control_id: str | None = None
) -> dict[str, Any]:
    """Return the control record that sets a portfolio's equity; its id is unique unless one is given."""
    return _order(control_id or _name("value", now_ns), "portfolio_value", payload, reason, by, now_ns)


def mode_order(
    mode: PolicyMode, scope: str, reason: str, by: str, now_ns: int, control_id: str | None = None
) -> dict[str, Any]:
    """Return the control record that sets the policy's mode; its id is unique unless `control_id` is given."""
    name = control_id or _name(f"rl-{mode}", now_ns)
    return _order(name, "rl_mode", {"mode": mode, "scope": scope}, reason, by, now_ns)


def forget_order(
    payload: Mapping[str, Any], reason: str, by: str, now_ns: int, control_id: str | None = None
) -> dict[str, Any]:
    """Return the control record that frees slots; its id is unique unless one is given."""
    return _order(control_id or _name("forget", now_ns), "forget", payload, reason, by, now_ns)


def _name(word: str, now_ns: int) -> str:
    return f"{word}-{now_ns}-{secrets.token_hex(4)}"


def _order(control_id: str, kind: str, payload: Mapping[str, Any], reason: str, by: str, now_ns: int) -> dict[str, Any]:
    return {
        "by": by,
        "control_id": control_id,
        "kind": kind,
        "payload": dict(payload),
        "reason": reason,
        "timestamp_ns": now_ns,
    }


def asked(order: Mapping[str, Any], partitions: int) -> list[int]:
    """Return the journal partitions that will carry out an order and answer it; `partitions`: their number.

    Raises:
        InvalidControlException: the order would become a dead letter.
    """
    portfolio = INTAKES["control"].portfolio(wire.validate(Control, dict(order), place="control"))
    return list(range(partitions)) if portfolio == EVERYWHERE else [partition_of(portfolio.encode(), partitions)]


# -- reading back ---------------------------------------------------------------------------------------------------
class Ordered(NamedTuple):
    """One order in a journal partition."""

    offset: int
    """Its offset in the journal partition."""
    source: tuple[int, int, int]
    """Its place in `control`: epoch, partition, offset."""
    journaled_at_ns: int
    body: Mapping[str, Any]
    """The control record."""


def ordered(offset: int, entry: bytes) -> Ordered | None:
    """Return the order in a journal entry, or None if the entry is something else."""
    if b'"kind":"control"' not in entry:
        return None
    fields = orjson.loads(entry)
    if fields["kind"] != "control":
        return None
    source = fields["source"]
    place = (source["epoch"], source["partition"], source["offset"])
    return Ordered(offset, place, fields["journaled_at_ns"], orjson.loads(fields["value"]))


class ControlHighWaters:
    """How far `control` is folded. A place at or below the high-water of its partition is a repeat, as for sizing."""

    def __init__(self, source: Mapping[str, Any] | None = None) -> None:
        """`source`: what a checkpoint's `sources` hold for `control`; None: nothing."""
        known = source or {"epoch": 0, "offsets": {}}
        self._epoch: int = known["epoch"]
        self._offsets: dict[int, int] = {int(partition): offset for partition, offset in known["offsets"].items()}

    def is_new(self, epoch: int, partition: int, offset: int) -> bool:
        """Return whether a place of `control` is folded for the first time, and raise the high-water to it."""
        if epoch > self._epoch:
            self._epoch, self._offsets = epoch, {}
        if epoch < self._epoch or offset <= self._offsets.get(partition, -1):
            return False
        self._offsets[partition] = offset
        return True


def effective(orders: Iterable[Ordered]) -> list[Ordered]:
    """Return orders without the repeats, which sizing skips."""
    high_waters = ControlHighWaters()
    return [order for order in orders if high_waters.is_new(*order.source)]


class SettingsInForce:
    """The decision settings in force on a journal partition, without a fold of the rest of its state."""

    def __init__(self, meta: Mapping[str, Any] | None = None) -> None:
        """Start from a checkpoint's `meta`, or before the first entry."""
        self.tree: Mapping[str, Any] = meta["settings"] if meta else {}
        self.hash: str = meta["settings_hash"] if meta else ""
        self._high_waters = ControlHighWaters(meta["sources"].get("control") if meta else None)

    def take(self, entry: Journaled) -> None:
        """Take the next journal entry. A change counts if sizing applies it: both ask `changed_settings`."""
        if entry.kind == "genesis":
            self.tree, self.hash = entry.body["settings"], entry.body["settings_hash"]
        elif entry.kind == "control" and self._high_waters.is_new(entry.epoch, entry.partition, entry.source_offset):
            if entry.body["kind"] != "settings":
                return
            params = changed_settings(entry.body["payload"], self.hash)
            if not isinstance(params, str):
                self.tree, self.hash = params.model_dump(), tree_hash(params)


def behind(scopes: Mapping[str, str], orders: Iterable[Ordered]) -> dict[str, Ordered]:
    """Return the order behind each trading state in force, if among `orders`, which are in journal order."""
    found = {}
    for order in effective(orders):
        payload = order.body["payload"]
        if order.body["kind"] == "trading_state" and scopes.get(payload["scope"]) == payload["state"]:
            found[payload["scope"]] = order
    return found
