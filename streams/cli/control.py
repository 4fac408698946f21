"""`himari control`: halt, reduce and resume trading, tell a portfolio's value, and see what is in force and why."""

import asyncio
import functools
import getpass
import os
import sys
from collections.abc import Callable, Mapping
from typing import Any

import click
import orjson

from schemas.vocabulary import PolicyMode
from streams.cli.answers import leave, show
from streams.cli.common import clock, common, connection, loaded, names
from streams.kafka import orders, read
from streams.kafka.state_snapshot import folded_all
from streams.reports import trading_states
from streams.stages.control import asked, effective, mode_order, trading_order, value_order

WAIT_S = 30.0
SAID = {
    "halt": "Halt a scope: its targets go to zero at once, and nothing opens until it is resumed.",
    "reduce": "Let a scope only become smaller: nothing is opened or added to until it is resumed.",
    "resume": "End the halt or the reducing of a scope: it is sized afresh at once.",
}
WAITS = frozenset({"halt", "reduce"})
"""Orders that wait unless they are told not to: whoever gives them must know whether they act."""


@click.group()
def control() -> None:
    """Halt, reduce and resume trading. The kill switch: himari control halt --scope all --reason WHY."""


def _ordering(word: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Return what gives a command the options that every order takes."""
    return lambda command: _with_options(command, waits=word in WAITS)


def _with_options(command: Callable[..., Any], *, waits: bool) -> Callable[..., Any]:
    options = (
        click.option("--reason", required=True, help="Why; goes into the journal."),
        click.option("--by", help="Who; goes into the journal. [default: the user of this process]"),
        click.option(
            "--wait",
            type=click.FloatRange(min=0.1),
            is_flag=False,
            flag_value=WAIT_S,
            metavar="[SECONDS]",
            help=f"Wait until it is in force on every journal partition, {WAIT_S:g} s at most or SECONDS."
            + (" This is the default." if waits else ""),
        ),
        click.option("--no-wait", is_flag=True, help="Return when the order is given, in force or not."),
        click.option("--json", "as_json", is_flag=True, help="Print one JSON object."),
        common,
    )

    @functools.wraps(command)
    def ordered(wait: float | None, *, no_wait: bool, **others: Any) -> None:
        if no_wait and wait is not None:
            msg = "--wait and --no-wait exclude each other"
            raise click.UsageError(msg)
        command(wait=None if no_wait else wait or (WAIT_S if waits else None), **others)

    taking: Callable[..., Any] = ordered
    for option in reversed(options):
        taking = option(taking)
    return taking


def _trading(word: str) -> None:
    @control.command(word, help=SAID[word])
    @click.option("--scope", required=True, help="all, portfolio:P, strategy:S or symbol:X.")
    @_ordering(word)
    def command(scope: str, reason: str, by: str | None, **options: Any) -> None:
        _give(trading_order(word, scope, reason, by or _user(), clock().now_ns()), **options)


for _word in SAID:
    _trading(_word)


@control.command()
@click.option("--portfolio", required=True, help="Whose equity.")
@click.option("--usd", type=float, required=True, help="The equity in USD.")
@click.option("--reset-peak", is_flag=True, help="Forget the running maximum, so that no drawdown is left.")
@_ordering("value")
def value(portfolio: str, usd: float, reason: str, by: str | None, *, reset_peak: bool, **options: Any) -> None:
    """Tell a portfolio's equity; sizes and drawdown follow it."""
    payload = {"portfolio_id": portfolio, "value_usd": usd, "reset_peak": reset_peak}
    _give(value_order(payload, reason, by or _user(), clock().now_ns()), **options)


@control.command("rl-mode")
@click.argument("mode", type=click.Choice(["off", "shadow", "live"]))
@click.option("--scope", default="all", show_default=True, help="all, portfolio:P or strategy:S.")
@_ordering("rl-mode")
def rl_mode(mode: PolicyMode, scope: str, reason: str, by: str | None, **options: Any) -> None:
    """Say how far the policy may act; a gate that has closed collects evidence anew."""
    _give(mode_order(mode, scope, reason, by or _user(), clock().now_ns()), **options)


def _give(
    order: Mapping[str, Any], config: str | None, bootstrap: str | None, wait: float | None, *, as_json: bool
) -> None:
    """Publish an order, and say what came of it; exit 6 where a partition does not answer, 1 where one refuses."""
    asked(order, 1)  # what would be a dead letter is refused before any connection
    settings = loaded(config, bootstrap).settings
    way, topics = connection(settings), names(settings)
    if wait is None:
        asyncio.run(orders.give(way, topics, order))
        answers, missing = orders.OrderAnswers({}, [])
    else:
        answers, missing = asyncio.run(orders.give_and_wait(way, topics, order, wait))
    _tell(order, answers, missing, waited=wait is not None, as_json=as_json)
    leave(answers, missing)


def _tell(
    order: Mapping[str, Any], answers: Mapping[int, str], missing: list[int], *, waited: bool, as_json: bool
) -> None:
    if as_json:
        said = {str(partition): answer for partition, answer in sorted(answers.items())}
        _print({"order": order, "waited": waited, "answers": said, "missing": missing})
        return
    click.echo(f"ordered {order['control_id']}" + ("" if waited else "; not waited for"))
    show(answers)


@control.command("list")
@click.option("--history", is_flag=True, help="Every order that the journal holds, oldest first, instead.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object for each line.")
@common
def list_states(config: str | None, bootstrap: str | None, *, history: bool, as_json: bool) -> None:
    """Show the trading states in force, with who said so, why and when; from the journal, no worker needed."""
    settings = loaded(config, bootstrap).settings
    way, topics = connection(settings), names(settings)

    async def in_force() -> list[dict[str, Any]]:
        count = len(await read.places(way, topics.topic("journal")))
        states = await folded_all(way, topics, range(count))
        held = {partition: scopes for partition, state in enumerate(states) if (scopes := trading_states.scopes(state))}
        found = {at: await orders.orders_behind(way, topics, at, scopes) for at, scopes in _apart(held).items()}
        return trading_states.view(states, found)

    async def ever() -> list[dict[str, Any]]:
        count = len(await read.places(way, topics.topic("journal")))
        each = await asyncio.gather(*(orders.orders(way, topics, partition) for partition in range(count)))
        unique = {order.source: order for found in each for order in effective(found)}
        ranked = sorted(unique.values(), key=lambda order: (order.journaled_at_ns, order.source))
        return [
            {"kind": o.body["kind"], "payload": _short(o.body["payload"]), **trading_states.told(o)} for o in ranked
        ]

    rows = asyncio.run(ever() if history else in_force())
    if as_json:
        for row in rows:
            _print(row)
        return
    for line in trading_states.history(rows) if history else trading_states.lines(rows):
        click.echo(line)
    if not rows:
        click.echo("no order was ever given" if history else "all ACTIVE", err=True)


def _apart(held: Mapping[int, Mapping[str, str]]) -> dict[int, Mapping[str, str]]:
    """Return which scopes to look for in which journal partition: each in the first that holds it."""
    sought: dict[int, Mapping[str, str]] = {}
    known: set[tuple[str, str]] = set()
    for partition, scopes in held.items():
        fresh = {scope: word for scope, word in scopes.items() if (scope, word) not in known}
        if fresh:
            sought[partition] = fresh
            known |= set(fresh.items())
    return sought


def _short(payload: Mapping[str, Any]) -> dict[str, Any]:
    """Return a payload without the tree of settings, which its hash names."""
    return {name: what for name, what in payload.items() if name != "tree"}


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return f"uid {os.getuid()}"


def _print(fields: Mapping[str, Any]) -> None:
    sys.stdout.write(orjson.dumps(dict(fields)).decode() + "\n")
