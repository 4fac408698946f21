"""The sections of the page as encoded once for all streams: a client gets those that it has not seen in this form."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import orjson


class EncodedSection(NamedTuple):
    """One section as sent: an event of the stream."""

    version: int
    body: bytes
    """JSON."""
    event: bytes


class Board:
    """The newest form of each section."""

    def __init__(self) -> None:
        self.sections: dict[str, EncodedSection] = {}
        self._version = 0

    def put(self, name: str, value: Mapping[str, Any]) -> None:
        """Encode a section; one that has not changed keeps its version."""
        body = orjson.dumps(value, option=orjson.OPT_NON_STR_KEYS)
        known = self.sections.get(name)
        if known is not None and known.body == body:
            return
        self._version += 1
        event = b"event: " + name.encode() + b"\ndata: " + body + b"\n\n"
        self.sections[name] = EncodedSection(self._version, body, event)

    def since(self, version: int) -> tuple[int, bytes]:
        """Return the newest version, and the events of all sections that are newer than `version`."""
        newer = [section.event for section in self.sections.values() if section.version > version]
        return self._version, b"".join(newer)
