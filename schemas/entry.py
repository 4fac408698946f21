"""The journal: what every entry holds, and the payloads that we write ourselves.

These bytes are kept for ever; a field may be added, none renamed.
"""

from typing import Annotated, Any, ClassVar

from pydantic import Field, Strict

from schemas.base import Message
from schemas.errors import InvalidEntryException, InvalidMessage
from schemas.units import Coins, Count, Id, Index, JournalId, Offset, Price, Sha256, TimestampNs
from schemas.vocabulary import EntryKind

Header = Annotated[tuple[str, str], Strict(strict=False)]
"""Name, base64 of the value; JSON has arrays only, so a list is taken for a tuple."""


class Source(Message):
    """Where an entry's value came from."""

    topic: Id = Field(description="Logical name of the topic, without prefix and version.")
    epoch: Index = Field(description="Rises when the topic is created anew.")
    partition: Index = Field(description="Partition of the topic.")
    offset: Offset = Field(description="Offset in it.")


class Entry(Message):
    """One entry of the journal: something that can change a decision, at its place in the one order."""

    refused_as: ClassVar[type[InvalidMessage]] = InvalidEntryException

    kind: EntryKind = Field(description="What the value is.")
    source: Source | None = Field(None, description="The record it was taken from; absent for our own kinds.")
    event_time_ns: TimestampNs = Field(description="When it happened, ns since 1970 UTC.")
    journaled_at_ns: TimestampNs = Field(description="The clock when it was journaled, ns since 1970 UTC.")
    key: str | None = Field(None, description="The record's key, base64.")
    value: str = Field(description="The record's value, as it came; for our own kinds the payload's JSON.")
    headers: list[Header] = Field(default_factory=list, description="The record's headers: name, base64.")


class Genesis(Message):
    """Entry 0 of every journal partition."""

    refused_as: ClassVar[type[InvalidMessage]] = InvalidEntryException

    journal_id: JournalId = Field(description="Names the journal: 8 base32 characters, the same in all partitions.")
    partitions: Count = Field(description="P, fixed for life.")
    settings: dict[str, Any] = Field(description="Decision settings, fully resolved.")
    settings_hash: Sha256 = Field(description="sha256 of `settings` as JSON with sorted keys, as hex.")
    decision_version: Count = Field(description="Version of the decisions that follow.")


Prices = Annotated[tuple[Price, Price, Price, Price, Coins, Count], Strict(strict=False)]
"""Open, high, low, close in USD, volume in coins, number of ticks."""


class Step(Message):
    """What one partition of `prices` saw in one step of time."""

    refused_as: ClassVar[type[InvalidMessage]] = InvalidEntryException

    source_partition: Index = Field(description="Partition of `prices`; with `step` it is the step's identity.")
    step: Offset = Field(description="k covers (k·step_s, (k+1)·step_s]; strictly increasing per source partition.")
    step_s: Annotated[int, Field(ge=1, le=60)] = Field(description="Width of the step in seconds.")
    symbols: dict[Id, Prices] = Field(description="By symbol: open, high, low, close (USD), volume (coins), ticks.")


class Tick(Message):
    """Time went by and nothing else happened; the entry's own times say how far."""

    refused_as: ClassVar[type[InvalidMessage]] = InvalidEntryException


class HandedOver(Message):
    """A part of the state at the place of an `Engine`, as the version before left it."""

    refused_as: ClassVar[type[InvalidMessage]] = InvalidEntryException

    offset: Offset = Field(description="Where the `Engine` stands that it belongs to.")
    digest: Sha256 = Field(description="Sum of sha256(table, key, value) over all records mod 2^256, as hex.")
    part: Index = Field(description="Number of this part, from 0.")
    parts: Count = Field(description="How many parts there are.")
    meta: dict[str, Any] = Field(description="What travels with the offset: settings in force, high-waters, times.")
    records: list[tuple[str, str, str]] = Field(description="Table, key, value (base64) of each record in this part.")


class Engine(Message):
    """From here on another version of the decisions is in force; or, with `state`, what that version took over."""

    refused_as: ClassVar[type[InvalidMessage]] = InvalidEntryException

    from_version: Count = Field(description="Version of the decisions before.")
    to_version: Count = Field(description="Version of the decisions after.")
    package: str | None = Field(None, description="Version of the package that decided before: what verifies it.")
    state: HandedOver | None = Field(None, description="A part of the state; such an entry hands nothing over itself.")


class Adopt(Message):
    """A source topic was created anew, and an operator says that this is right."""

    refused_as: ClassVar[type[InvalidMessage]] = InvalidEntryException

    topic: Id = Field(description="Logical name of the topic.")
    epoch: Index = Field(description="Its epoch from now on.")
