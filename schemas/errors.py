# ruff: noqa: N818 - these names are public, so they stay as they are
"""The exception tree; the number is the exit code of the command line.

    SizingError                              1
    ├── InvalidMessage                       5   a record cannot be used: it goes to the dead-letter topic
    │   ├── InvalidSignalException
    │   ├── InvalidCascadeIndicatorsException
    │   ├── InvalidPriceException
    │   ├── InvalidOutcomeException
    │   ├── InvalidPositionsException
    │   ├── InvalidControlException
    │   ├── InvalidAllocationException
    │   ├── InvalidEntryException
    │   └── InvalidAdviceException
    ├── ConfigurationException               5   invalid settings: nothing changes
    ├── UnwritableMessage                    1   a value cannot be written as JSON
    ├── ProcessorStopped                     1   an invariant is broken: the worker stops
    │   └── StrayRecord                           a record of the journal that no worker wrote
    ├── PortTaken                            1   the port is in use
    ├── NotAllowed                           1   the broker's ACLs forbid the request
    ├── LoginRefused                         5   authentication with the broker failed
    ├── Unheard                              6   a command was sent, but its answers cannot be read
    ├── NotFound                             3   a portfolio, decision or record does not exist
    ├── VerificationMismatch                 4   an allocation cannot be reproduced
    ├── AllocationFork                       4   different bytes for one sequence, or a broken hash chain: halt
    ├── AllocationGap                        4   a sequence is missing: fetch again
    ├── TopicsUnfit                          6   topics are missing, or a partition count is wrong
    ├── BrokerUnreachable                    6   no broker answers at the configured address
    ├── BrokerUntrusted                      6   the broker's certificate is not trusted
    ├── CircuitBreakerOpenException          6   the policy endpoint is not called for now
    ├── WorkerStuck                          7   a part of the worker is stuck: restart it
    └── AnotherVersion                       8   the entries belong to another decision version

An error text names place, rule and value: "signals[0]@7: confidence must be at most 1, was 1.2".
"""

from typing import ClassVar

from schemas.vocabulary import ErrorCode


class SizingError(Exception):
    """Base of every exception that this package raises on purpose."""

    exit_code: ClassVar[int] = 1


class InvalidMessage(SizingError):
    """A record that cannot be used.

    `code` is one of `ErrorCode`; `field` is the dotted path, "" if the error concerns the whole record.
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
    """A price, or a message of many prices, that cannot be used."""


class InvalidOutcomeException(InvalidMessage):
    """A trade outcome that cannot be used."""


class InvalidPositionsException(InvalidMessage):
    """A report of positions that cannot be used."""


class InvalidControlException(InvalidMessage):
    """An operator command that cannot be executed."""


class InvalidAllocationException(InvalidMessage):
    """An allocation or an alert that its reader cannot use."""


class InvalidEntryException(InvalidMessage):
    """A journal entry that cannot be folded."""


class InvalidAdviceException(InvalidMessage):
    """A policy's answer, or the request for one, that cannot be used."""


class ConfigurationException(SizingError):
    """Invalid settings; nothing changes.

    `file` is the path, "environment" or "command line"; `key` the dotted key ("" if the error concerns the whole
    file); `rule` the rule and the value that broke it; `line` counts from 1, None if unknown.
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
    """A value that cannot be written as JSON: NaN, infinity, or a type without a JSON equivalent."""


class ProcessorStopped(SizingError):
    """An invariant is broken: later results cannot be trusted, so the worker stops and commits nothing past it."""


class StrayRecord(ProcessorStopped):
    """A record that no worker wrote, or a time that cannot be: nothing of it is folded, and the worker stops."""


class PortTaken(SizingError):
    """The port is in use."""


class NotAllowed(SizingError):
    """The broker does not authorise this user for the request."""


class LoginRefused(SizingError):
    """Authentication with the broker failed: password, user, mechanism or certificate."""

    exit_code = 5


class Unheard(SizingError):
    """A command was sent, but its answers could not be read."""

    exit_code = 6


class NotFound(SizingError):
    """A portfolio, decision or record does not exist."""

    exit_code = 3


class VerificationMismatch(SizingError):
    """An allocation cannot be reproduced byte for byte."""

    exit_code = 4


class AllocationFork(SizingError):
    """Two allocations have the same sequence in a portfolio: the reader halts."""

    exit_code = 4


class AllocationGap(SizingError):
    """A sequence is missing: the reader fetches again from the last one it applied."""

    exit_code = 4


class TopicsUnfit(SizingError):
    """Topics are missing, or their partition counts differ from those of the settings or the journal."""

    exit_code = 6


class BrokerUnreachable(SizingError):
    """No broker answers at the configured address."""

    exit_code = 6


class BrokerUntrusted(SizingError):
    """The broker's certificate is not trusted: nothing is sent to it, and no password."""

    exit_code = 6


class CircuitBreakerOpenException(SizingError):
    """The policy endpoint failed too often and is not called for now."""

    exit_code = 6


class WorkerStuck(SizingError):
    """A part of the worker makes no progress and will not recover by itself."""

    exit_code = 7


class AnotherVersion(SizingError):
    """Part of the journal belongs to another decision version; the text says what to install or run."""

    exit_code = 8
