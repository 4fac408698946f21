# ruff: noqa: N818 - users know these names; half of them are the mission's, so none ends in Error
"""Everything that can go wrong by name, as one tree; the number is the command line's exit code.

    SizingError                              1
    ├── InvalidMessage                       5   a record that cannot be used: it goes to the dead-letter topic
    │   ├── InvalidSignalException
    │   ├── InvalidCascadeIndicatorsException
    │   ├── InvalidPriceException
    │   ├── InvalidOutcomeException
    │   ├── InvalidPositionsException
    │   ├── InvalidControlException
    │   ├── InvalidAllocationException
    │   ├── InvalidEntryException
    │   └── InvalidAdviceException
    ├── ConfigurationException               5   settings that cannot be used: nothing changes
    ├── UnwritableMessage                    1   a value that JSON cannot carry
    ├── ProcessorStopped                     1   a broken invariant: the worker stops, loudly
    ├── PortTaken                            1   somebody else listens there
    ├── NotAllowed                           1   the broker's ACLs forbid it
    ├── LoginRefused                         5   the broker does not believe who we are
    ├── Unheard                              6   an order was given, and its answers cannot be read
    ├── NotFound                             3   a portfolio, decision or record that is not there
    ├── VerificationMismatch                 4   an allocation that does not come out again
    ├── AllocationFork                       4   a reader met other bytes, or a broken chain: halt
    ├── AllocationGap                        4   a reader missed a sequence: fetch again
    ├── TopicsUnfit                          6   topics missing, or partition counts that do not fit
    ├── BrokerUnreachable                    6   no broker where one was named
    ├── BrokerUntrusted                      6   it cannot show that it is the broker that was named
    ├── CircuitBreakerOpenException          6   the policy endpoint is not asked for now
    ├── WorkerStuck                          7   a part of the worker does not move: start it anew
    └── AnotherVersion                       8   what was decided by another decision version, and no other can

A text names place, rule and value: "signals[0]@7: confidence must be at most 1, was 1.2".
"""

from typing import ClassVar

from schemas.vocabulary import ErrorCode


class SizingError(Exception):
    """Whatever this package raises on purpose."""

    exit_code: ClassVar[int] = 1


class InvalidMessage(SizingError):
    """A record that cannot be used.

    `code` is from the closed set `ErrorCode`; `field` is the dotted path, "" where the whole record is meant.
    """

    exit_code = 5

    def __init__(self, code: ErrorCode, field: str, text: str) -> None:
        super().__init__(text)
        self.code = code
        self.field = field
        self.text = text

    def __reduce__(self) -> tuple[type["InvalidMessage"], tuple[ErrorCode, str, str]]:
        return type(self), (self.code, self.field, self.text)


class InvalidSignalException(InvalidMessage):
    """A tactical signal that cannot be sized."""


class InvalidCascadeIndicatorsException(InvalidMessage):
    """Cascade indicators that cannot be read."""


class InvalidPriceException(InvalidMessage):
    """A price, or a message of many, that cannot be used."""


class InvalidOutcomeException(InvalidMessage):
    """A trade outcome that cannot be learnt from."""


class InvalidPositionsException(InvalidMessage):
    """Positions that cannot be taken as held."""


class InvalidControlException(InvalidMessage):
    """An operator's record that cannot be carried out."""


class InvalidAllocationException(InvalidMessage):
    """An allocation or an alert that its reader cannot use."""


class InvalidEntryException(InvalidMessage):
    """A journal entry that cannot be folded."""


class InvalidAdviceException(InvalidMessage):
    """A policy's answer, or the request for one, that cannot be used."""


class ConfigurationException(SizingError):
    """Settings that cannot be used; they change nothing.

    `file` is the path, "environment" or "command line"; `key` the dotted key ("" where the whole file is meant);
    `rule` what is asked for and what was there; `line` counts from 1, None where it is not known.
    """

    exit_code = 5

    def __init__(self, file: str, key: str, rule: str, line: int | None = None) -> None:
        place = file if line is None else f"{file}, line {line}"
        super().__init__(f"{place}: {rule}" if not key else f"{place}: {key}: {rule}")
        self.file = file
        self.key = key
        self.rule = rule
        self.line = line

    def __reduce__(self) -> tuple[type["ConfigurationException"], tuple[str, str, str, int | None]]:
        return type(self), (self.file, self.key, self.rule, self.line)


class UnwritableMessage(SizingError):
    """A value that JSON cannot carry: NaN, infinity, or no JSON type at all."""


class ProcessorStopped(SizingError):
    """A broken invariant: what follows cannot be trusted, so the worker stops and commits nothing past it."""


class PortTaken(SizingError):
    """Somebody else listens on the port."""


class NotAllowed(SizingError):
    """The broker does not let this user do what was asked."""


class LoginRefused(SizingError):
    """The broker does not believe who we are: password, user, mechanism or certificate."""

    exit_code = 5


class Unheard(SizingError):
    """An order was given, and nobody could listen to what came of it."""

    exit_code = 6


class NotFound(SizingError):
    """A portfolio, decision or record that is not there."""

    exit_code = 3


class VerificationMismatch(SizingError):
    """An allocation that does not come out again byte for byte."""

    exit_code = 4


class AllocationFork(SizingError):
    """Two allocations claim one place in a portfolio's sequence: the reader halts."""

    exit_code = 4


class AllocationGap(SizingError):
    """A sequence was not seen: the reader fetches again from the last one it took."""

    exit_code = 4


class TopicsUnfit(SizingError):
    """Topics are missing, or their partition counts are not those of the settings or the journal."""

    exit_code = 6


class BrokerUnreachable(SizingError):
    """No broker answers where one was named."""

    exit_code = 6


class BrokerUntrusted(SizingError):
    """What answers cannot show that it is the broker that was named: nothing is sent to it, no password either."""

    exit_code = 6


class CircuitBreakerOpenException(SizingError):
    """The policy endpoint failed too often and is not asked for now."""

    exit_code = 6


class WorkerStuck(SizingError):
    """A part of the worker does not move any more, and will not by itself."""

    exit_code = 7


class AnotherVersion(SizingError):
    """A stretch of the journal belongs to another decision version; the text says what to install or run."""

    exit_code = 8
