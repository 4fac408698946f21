"""Dead letters: a refused record, byte for byte, with headers that name place, rule and value."""

from schemas.errors import InvalidMessage
from streams.journal import Place
from streams.ports import Headers, Record, Send


def dead_letter(place: Place, record: Record, error: InvalidMessage) -> Send:
    """Return a refused source record for its dead-letter topic."""
    return letter(place, record.key, record.value, record.headers, error)


def letter(place: Place, key: bytes | None, value: bytes | None, headers: Headers, error: InvalidMessage) -> Send:
    """Return a dead letter made of the original key, value and headers."""
    why = (
        ("__streams.errors.exception", type(error).__name__),
        ("__streams.errors.message", str(error)),
        ("__streams.errors.topic", place.topic),
        ("__streams.errors.partition", str(place.partition)),
        ("__streams.errors.offset", str(place.offset)),
        ("himari.error.code", error.code),
        ("himari.error.field", error.field),
    )
    return Send(f"{place.topic}.dlq", None, key, value, (*headers, *((name, text.encode()) for name, text in why)))
