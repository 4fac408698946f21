"""Outputs that were published before a restart: each must come out of the fold again, as it was."""

from collections.abc import Sequence
from typing import NoReturn

from schemas.errors import ProcessorStopped
from streams.processing.ports import Fold, Identity, Send


class Known:
    """The audited outputs that recovery found from `progress` on, each to be met again by the fold.

    `outputs`: (place in the audited topic, value); `offset`: that of `progress`. Those of entries at or below it do
    not come out again, but no other output may bear their name.

    Raises: ProcessorStopped where a record of the topic is no output.
    """

    def __init__(self, fold: Fold, partition: int, outputs: Sequence[tuple[int, bytes]], offset: int) -> None:
        self._topic, self._partition = fold.audited, partition
        self._copies: dict[Identity, list[bytes]] = {}
        self._due: dict[int, list[tuple[int, bytes]]] = {}
        for place, value in outputs:
            try:
                identity, entry = fold.identify(value)
            except (ValueError, KeyError, TypeError) as error:
                self._stop(f"the record at {place} is no output: {error!r}")
            self._copies.setdefault(identity, []).append(value)
            if entry > offset:
                self._due.setdefault(entry, []).append((place, value))

    def __bool__(self) -> bool:
        return bool(self._copies or self._due)

    @property
    def first_due(self) -> int | None:
        """The place of the first output that has still to come out again; None: there is none."""
        return min((copies[0][0] for copies in self._due.values()), default=None)

    @property
    def last_entry(self) -> int:
        """The last entry whose output has still to come out again; -1: there is none."""
        return max(self._due, default=-1)

    def missing(self, entry: int, sends: Sequence[Send]) -> list[Send]:
        """Return what, of one entry's sends, is not published yet.

        Raises: ProcessorStopped where a published copy differs, or where one does not come out again.
        """
        topic = self._topic
        again = {send.identity: send.value for send in sends if send.topic == topic}
        published = {identity: self._copies.pop(identity, []) for identity in again if identity is not None}
        for identity, copies in published.items():
            if any(copy != again[identity] for copy in copies):
                self._stop(f"entry {entry} gives another output than is published as {identity}")
        for place, value in self._due.pop(entry, ()):
            if value not in again.values():
                self._stop(f"entry {entry} does not give the output at {place} again")
        return [s for s in sends if s.topic != topic or s.identity is None or not published[s.identity]]

    def _stop(self, reason: str) -> NoReturn:
        msg = f"{self._topic} partition {self._partition}: {reason}"
        raise ProcessorStopped(msg)
