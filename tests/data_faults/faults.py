"""Every data fault, as one table: what a kind does to a message, and which kinds make sense for which input."""

from collections.abc import Callable
from copy import deepcopy
from typing import Any, NamedTuple

from data_faults.world import ACTOR, Message, Sending, encoded
from worlds import SECOND_NS

MINUTE = 6
"""Steps."""
GONE, NAN = object(), "__nan__"

Path = tuple[str | int, ...]
FIELDS: dict[str, tuple[str, ...]] = {
    "tick": ("price",),
    "batch": ("price",),
    "reading": ("funding_rate", "oi_change_pct", "liquidation_volume_24h"),
    "signal": ("expected_return", "predicted_volatility", "confidence"),
    "outcome": ("realized_return",),
    "positions": ("quantities.ETH-USD", "equity"),
    "order": ("payload.value_usd",),
    "settings": ("position_sizing.bayesian_kelly.kelly_fraction",),
    "rl": ("position_pct",),
}
"""The numbers of each input that are hurt."""


class Cell(NamedTuple):
    """One cell of the campaign."""

    input: str
    field: str
    """"" where the whole message is hurt."""
    kind: str
    lasting: bool

    @property
    def coins(self) -> tuple[str, str]:
        """The coin whose messages are hurt, and the one that it is confused with."""
        return ("BNB-USD", "ADA-USD") if self.input == "batch" else ("ETH-USD", "SOL-USD")

    @property
    def name(self) -> str:
        return "-".join(filter(None, (self.input, self.field, self.kind, "lasting" if self.lasting else "once")))


# -- kinds that hurt one number --------------------------------------------------------------------------------------
def times(factor: float) -> Callable[[float, float], Any]:
    return lambda value, _before: value * factor


NUMBERS: dict[str, Callable[[float, float], Any]] = {
    "×10": times(10.0),
    "×100": times(100.0),
    "×1000": times(1_000.0),
    "÷10": times(0.1),
    "÷100": times(0.01),
    "÷1000": times(0.001),
    "sign": times(-1.0),
    "zero": lambda _value, _before: 0.0,
    "missing": lambda _value, _before: GONE,
    "NaN": lambda _value, _before: NAN,
    "frozen": lambda _value, before: before,
}
"""From the number, and the one that was sent last before the fault, to what is sent."""


# -- kinds that hurt the message -------------------------------------------------------------------------------------
Series = tuple[str, str, str]


class Memory:
    """What a fault knows of the messages before the one that it hurts."""

    def __init__(self, cell: Cell, said: dict[Series, Message]) -> None:
        self.cell, self.said = cell, dict(said)
        self.kept: bytes | None = None
        """A message that waits for the next one to overtake it."""

    def before(self, message: Message) -> Message:
        """Return the last message of a series before the fault."""
        return self.said.get(message.name, message)


def at_once(*values: bytes) -> list[Sending]:
    return [Sending(0, value) for value in values]


def delayed(message: Message, _memory: Memory) -> list[Sending]:
    return [Sending(MINUTE, encoded(message))]


def in_milliseconds(message: Message, memory: Memory) -> list[Sending]:
    return at_once(encoded(retimed(message, memory, lambda at_ns: at_ns // 1_000_000)))


def ahead(message: Message, memory: Memory) -> list[Sending]:
    return at_once(encoded(retimed(message, memory, lambda at_ns: at_ns + 60 * SECOND_NS)))


def overtaken(message: Message, memory: Memory) -> list[Sending]:
    kept, memory.kept = memory.kept, None
    if kept is None:
        memory.kept = encoded(message)
        return []
    return at_once(encoded(message), kept)


def stuck(message: Message, memory: Memory) -> list[Sending]:
    return at_once(encoded(memory.before(message)))


def cut_short(message: Message, _memory: Memory) -> list[Sending]:
    value = encoded(message)
    return at_once(value[: len(value) // 2])


MESSAGES: dict[str, Callable[[Message, Memory], list[Sending]]] = {
    "swapped": lambda message, memory: at_once(encoded(swapped(message, memory))),
    "unit": in_milliseconds,
    "stuck": stuck,
    "delayed": delayed,
    "ahead": ahead,
    "duplicated": lambda message, _memory: at_once(encoded(message), encoded(message)),
    "reordered": overtaken,
    "lost": lambda _message, _memory: [],
    "emptied": lambda _message, _memory: at_once(b""),
    "truncated": cut_short,
    "contradicting": lambda message, memory: at_once(contradicting(message, memory)),
}


def swapped(message: Message, memory: Memory) -> Message:
    """Give the victim's message the other coin's name, and the other way round."""
    victim, other = memory.cell.coins
    names = {victim: other, other: victim}
    body = deepcopy(message.body)
    for each in body.get("ticks", [body]):
        if "symbol" in each:
            each["symbol"] = names.get(each["symbol"], each["symbol"])
    if "quantities" in body:
        body["quantities"] = {names.get(name, name): held for name, held in body["quantities"].items()}
    if message.input == "rl":
        body = memory.said[message._replace(subject=names[message.subject]).name].body
    return message._replace(body=body)


def contradicting(message: Message, memory: Memory) -> bytes:
    """Return the message with something in it that contradicts the rest."""
    body = deepcopy(message.body)
    if message.input in {"tick", "batch"}:
        tick = leaf(body, path_of(message, memory.cell, "price")[:-1])
        tick["low"] = tick["price"] * 1.01
    elif message.input == "reading":
        body["open_interest"] = 0.0
    elif message.input == "signal":
        body["signal_id"], body["action"] = memory.before(message).body["signal_id"], "sell"
        body["expected_return"] = -body["expected_return"]
    elif message.input == "outcome":
        body["side"] = -body["side"]
    elif message.input == "positions":
        body["as_of_sequence"] += 1_000
    elif message.input == "order":
        body["kind"] = "trading_state"
    elif message.input == "settings":
        body["risk_management"]["cascade_levels"]["reduce_50"] = 0.95
    value = encoded(message._replace(body=body))
    if message.input == "rl":
        value = value.replace(b"{", b'{"position_pct":0.0,', 1)
    return value


# -- where a fault acts ----------------------------------------------------------------------------------------------
def path_of(message: Message, cell: Cell, field: str) -> Path:
    """Return the path of a field; in a batch, of the victim's tick."""
    path: Path = tuple(field.split("."))
    if message.input != "batch":
        return path
    return ("ticks", [tick["symbol"] for tick in message.body["ticks"]].index(cell.coins[0]), *path)


def changed(body: dict[str, Any], path: Path, value: Any) -> dict[str, Any]:
    """Return a copy with one leaf changed, or without it."""
    tree = deepcopy(body)
    *above, name = path
    inner: Any = tree
    for each in above:
        inner = inner[each]
    if value is GONE:
        del inner[name]
    else:
        inner[name] = value
    return tree


def leaf(body: Any, path: Path) -> Any:
    for each in path:
        body = body[each]
    return body


def retimed(message: Message, memory: Memory, change: Callable[[int], int]) -> Message:
    path = path_of(message, memory.cell, "timestamp_ns")
    return message._replace(body=changed(message.body, path, change(leaf(message.body, path))))


class Fault:
    """What one cell does to the messages of its input from step `first` on: to one of them, or to all until `end`."""

    def __init__(self, cell: Cell, first: int, end: int, said: dict[Series, Message]) -> None:
        """`said`: the last message of each series before."""
        self.cell, self.first, self.end = cell, first, end
        self.memory = Memory(cell, said)
        self.hurt: dict[str, int] = {}
        """Step of the last message that it has hurt, by subject."""

    def __call__(self, message: Message, step: int) -> list[Sending]:
        """Return what becomes of a message."""
        if not self._concerns(message):
            return at_once(encoded(message))
        over = step >= self.end if self.cell.lasting else message.subject in self.hurt
        if step < self.first or over:
            return self._passed(message, step)
        self.hurt[message.subject] = step
        return self._spoilt(message)

    def _concerns(self, message: Message) -> bool:
        """Return whether the messages of this kind are hurt: the victim's, the other's where names are swapped.

        A policy that lasts in its fault gives every answer with it.
        """
        if message.input != self.cell.input:
            return False
        if message.input == "rl" and self.cell.lasting and self.cell.kind != "swapped":
            return True
        subjects = ("", *self.cell.coins) if self.cell.kind == "swapped" else ("", self.cell.coins[0])
        return message.subject in subjects and message.strategy == ACTOR

    def _passed(self, message: Message, step: int) -> list[Sending]:
        """Return a message that is not hurt, before the one that it has overtaken."""
        if step < self.first:
            self.memory.said[message.name] = message
        kept, self.memory.kept = self.memory.kept, None
        return at_once(encoded(message), *([] if kept is None else [kept]))

    def _spoilt(self, message: Message) -> list[Sending]:
        kind, cell = self.cell.kind, self.cell
        if not cell.field:
            return MESSAGES[kind](message, self.memory)
        path, before = path_of(message, cell, cell.field), self.memory.before(message)
        value = NUMBERS[kind](leaf(message.body, path), leaf(before.body, path))
        written = encoded(message._replace(body=changed(message.body, path, value)))
        return at_once(written.replace(f'"{NAN}"'.encode(), b"NaN").replace(NAN.encode(), b".nan"))


# -- which cells make sense ------------------------------------------------------------------------------------------
WITHOUT: dict[str, set[str]] = {
    "order": {"swapped"},
    "settings": {"swapped", "unit", "stuck", "delayed", "ahead", "duplicated", "reordered", "frozen"},
    "rl": {"unit", "ahead", "duplicated", "reordered", "delayed"},
}
"""Kinds that an input cannot have: orders and settings name no coin, a file and a reply have no time and no twin. A
delayed reply is a lost one."""
ALWAYS_THE_SAME = {
    "reading": {"frozen"},
    "signal": {"frozen"},
}
"""Inputs whose numbers stand still in this world anyway."""


def cells() -> list[Cell]:
    found = []
    for name, fields in FIELDS.items():
        out = WITHOUT.get(name, set()) | ALWAYS_THE_SAME.get(name, set())
        hurt = [(field, kind) for field in fields for kind in NUMBERS] + [("", kind) for kind in MESSAGES]
        found += [(name, field, kind) for field, kind in hurt if kind not in out]
    return [Cell(*each, lasting) for lasting in (False, True) for each in found]


LASTS = 21
"""Steps that a lasting fault lasts: three and a half minutes."""
