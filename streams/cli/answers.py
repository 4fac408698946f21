"""What the journal partitions said to an order: shown, and made an exit code."""

from collections.abc import Mapping, Sequence
from typing import Final

import click

TAKEN: Final = frozenset({"applied", "no_op"})
"""The answers of a partition on which the order is in force."""
REFUSED, UNANSWERED = 1, 6
"""Exit codes."""


def show(answers: Mapping[int, str]) -> None:
    """Print each partition's answer."""
    for partition, answer in sorted(answers.items()):
        click.echo(f"journal partition {partition}: {answer}")


def leave(answers: Mapping[int, str], missing: Sequence[int]) -> None:
    """End the command, on stderr why, unless the order is in force on every partition that was asked.

    Exit 6 where a partition did not answer, else 1 where one refused.
    """
    refused: dict[str, list[int]] = {}
    for partition, answer in sorted(answers.items()):
        if answer not in TAKEN:
            refused.setdefault(answer, []).append(partition)
    for answer, partitions in refused.items():
        click.echo(f"not in force on journal partitions {_listed(partitions)}: {answer}", err=True)
    if missing:
        click.echo(f"no answer from journal partitions {_listed(missing)}", err=True)
        click.get_current_context().exit(UNANSWERED)
    if refused:
        click.get_current_context().exit(REFUSED)


def _listed(partitions: Sequence[int]) -> str:
    return ", ".join(map(str, partitions))
