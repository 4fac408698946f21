"""What a processor tells of its work, for metrics."""

from typing import Protocol


class ProcessorObserver(Protocol):
    """Receives what a processor does; called synchronously, so it must be quick."""

    def recovered(self, source: str, offset: int, elapsed_ns: int) -> None:
        """Called after recovery, with the offset and the source used: `local`, `changelog` or `genesis`."""

    def taken(self, records: int, sends: int) -> None:
        """Called after a chunk is folded, with the number of its records and of the outputs published for it."""

    def checkpointed(self, offset: int, records: int, elapsed_ns: int) -> None:
        """Called after `progress` is written, with its offset and the number of records written before it."""
