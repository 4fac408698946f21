"""Journal entries, and the payloads that this package writes itself.

The bytes are kept for ever: a field may be added, none renamed.
"""

from typing import Annotated, Any, ClassVar

from pydantic import Field, Strict

from schemas.base import Message
from schemas.errors import InvalidEntryException, InvalidMessage
from schemas.units import Coins, Count, Id, Index, JournalId, Offset, Price, Sha256, TimestampNs
from schemas.vocabulary import EntryKind

Header = Annotated[tuple[str, str], Strict(strict=False)]
"""(name, base64 of the value). JSON has only arrays, so a list is accepted as a tuple."""


class Source(Message):
    """The record that an entry's value was read from."""

    topic: Id = Field(description="Logical name of the topic, without prefix and version.")
    epoch: Index = Field(description="Increases each time the topic is recreated.")
    partition: Index = Field(description="Partition of the topic.")
    offset: Offset = Field(description="Offset in the partition.")


class Entry(Message):
    """One journal entry: an event that can change a decision, at its position in the total order."""

    refused_as: ClassVar[type[InvalidMessage]] = InvalidEntryException

    kind: EntryKind = Field(description="Kind of value.")
    source: Source | None = Field(None, description="Record that it was read from; absent for internal kinds.")
    event_time_ns: TimestampNs = Field(description="Time of the event, ns since 1970 UTC.")
    journaled_at_ns: TimestampNs = Field(description="Clock when it was journaled, ns since 1970 UTC.")
    key: str | None = Field(None, description="Key of the record, base64.")
    value: str = Field(description="Value of the record, unchanged; for internal kinds the payload's JSON.")
    headers: list[Header] = Field(default_factory=list, description="Headers of the record: name, base64.")


class Genesis(Message):
    """Entry 0 of every journal partition."""

    refused_as: ClassVar[type[InvalidMessage]] = InvalidEntryException

    journal_id: JournalId = Field(description="Id of the journal: 8 base32 characters, the same in all partitions.")
    partitions: Count = Field(description="P, the number of journal partitions; never changes.")
    settings: dict[str, Any] = Field(description="Decision settings, fully resolved.")
    settings_hash: Sha256 = Field(description="sha256 of `settings` as JSON with sorted keys, as hex.")
    decision_version: Count = Field(description="Version of the decisions that follow.")


Prices = Annotated[tuple[Price, Price, Price, Price, Coins, Count], Strict(strict=False)]
"""Open, high, low, close in USD, volume in coins, number of ticks."""


class Step(Message):
    """Prices that one partition of `prices` received in one step of time."""

    refused_as: ClassVar[type[InvalidMessage]] = InvalidEntryException

    source_partition: Index = Field(description="Partition of `prices`; identifies the step together with `step`.")
    step: Offset = Field(description="k covers (k·step_s, (k+1)·step_s]; strictly increasing per source partition.")
    step_s: Annotated[int, Field(ge=1, le=60)] = Field(description="Width of the step in seconds.")
    symbols: dict[Id, Prices] = Field(description="By symbol: open, high, low, close (USD), volume (coins), ticks.")


class Tick(Message):
    """Marks the passing of time; the entry's own timestamps say how far."""

    refused_as: ClassVar[type[InvalidMessage]] = InvalidEntryException


class HandedOver(Message):
    """A part of the state that the previous decision version left at an `Engine` entry."""

    refused_as: ClassVar[type[InvalidMessage]] = InvalidEntryException

    offset: Offset = Field(description="Offset of the `Engine` entry that it belongs to.")
    digest: Sha256 = Field(description="Sum of sha256(table, key, value) over all records mod 2^256, as hex.")
    part: Index = Field(description="Number of this part, from 0.")
    parts: Count = Field(description="Number of parts.")
    meta: dict[str, Any] = Field(description="Further state: settings in force, high-water marks, times.")
    records: list[tuple[str, str, str]] = Field(description="Table, key, value (base64) of each record in this part.")


class Engine(Message):
    """Puts another decision version in force from here on; with `state`, carries the state that it took over."""

    refused_as: ClassVar[type[InvalidMessage]] = InvalidEntryException

    from_version: Count = Field(description="Decision version before.")
    to_version: Count = Field(description="Decision version after.")
    package: str | None = Field(
        None, description="Package version that decided before; install it to verify that part."
    )
    state: HandedOver | None = Field(None, description="Part of the state; an entry with it changes no version.")


class Adopt(Message):
    """An operator's confirmation that a source topic was recreated on purpose."""

    refused_as: ClassVar[type[InvalidMessage]] = InvalidEntryException

    topic: Id = Field(description="Logical name of the topic.")
    epoch: Index = Field(description="Epoch of the topic from now on.")
