"""Outputs published before a restart: the fold must reproduce each of them, byte for byte."""

from collections.abc import Sequence
from typing import NoReturn

from schemas.errors import ProcessorStopped
from streams.processing.ports import Fold, Identity, Send


class PublishedOutputs:
    """The audited outputs that recovery found from `progress` on, which the fold has to reproduce.

    `outputs`: (offset in the audited topic, value); `offset`: that of `progress`. Outputs of entries at or below it are
    not reproduced, but no other output may have their identity.

    Raises:
        ProcessorStopped: a record of the topic is not an output.
    """

    def __init__(self, fold: Fold, partition: int, outputs: Sequence[tuple[int, bytes]], offset: int) -> None:
        self._topic, self._partition = fold.audited, partition
        self._copies: dict[Identity, list[bytes]] = {}
        self._due: dict[int, list[tuple[int, bytes]]] = {}
        for at, value in outputs:
            try:
                identity, entry = fold.identify(value)
            except (ValueError, KeyError, TypeError) as error:
                self._stop(f"the record at {at} is not an output: {error!r}")
            self._copies.setdefault(identity, []).append(value)
            if entry > offset:
                self._due.setdefault(entry, []).append((at, value))

    def __bool__(self) -> bool:
        return bool(self._copies or self._due)

    @property
    def first_due(self) -> int | None:
        """Offset of the first output not reproduced yet; None: none is left."""
        return min((copies[0][0] for copies in self._due.values()), default=None)

    @property
    def last_entry(self) -> int:
        """Last entry whose output is not reproduced yet; -1: none is left."""
        return max(self._due, default=-1)

    def missing(self, entry: int, sends: Sequence[Send]) -> list[Send]:
        """Return those of one entry's sends that are not published yet.

        Raises:
            ProcessorStopped: a published copy differs, or is not reproduced.
        """
        topic = self._topic
        made = {send.identity: send.value for send in sends if send.topic == topic}
        published = {identity: self._copies.pop(identity, []) for identity in made if identity is not None}
        for identity, copies in published.items():
            if any(copy != made[identity] for copy in copies):
                self._stop(f"entry {entry} gives an output that differs from the one published as {identity}")
        for at, value in self._due.pop(entry, ()):
            if value not in made.values():
                self._stop(f"entry {entry} does not reproduce the output at {at}")
        return [s for s in sends if s.topic != topic or s.identity is None or not published[s.identity]]

    def _stop(self, reason: str) -> NoReturn:
        msg = f"{self._topic} partition {self._partition}: {reason}"
        raise ProcessorStopped(msg)
