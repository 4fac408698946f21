"""`himari control`: halt, reduce and resume trading, set equity, free slots, and list the orders in force."""

import asyncio
import functools
from collections.abc import Callable, Mapping
from typing import Any

import click

from schemas.vocabulary import PolicyMode
from streams.cli.answers import leave, show
from streams.cli.common import BY, clock, common, connection, loaded, names, not_empty, operator
from streams.cli.terminal import say, say_all, say_json
from streams.kafka import orders, read
from streams.kafka.state_snapshot import folded_all
from streams.reports import trading_states
from streams.stages.control import asked, effective, forget_order, mode_order, trading_order, value_order

WAIT_S = 30.0
HELP = {
    "halt": "Halt a scope: targets go to zero immediately, and nothing opens until it is resumed.",
    "reduce": "Set a scope to reduce-only: positions may shrink, but not open or grow, until it is resumed.",
    "resume": "Resume a halted or reduce-only scope: it is sized again immediately.",
}
WAITS = frozenset({"halt", "reduce"})
"""Orders that wait for confirmation by default: the operator must know whether they are in force."""


@click.group()
def control() -> None:
    """Halt, reduce and resume trading. Kill switch: himari control halt --scope all --reason WHY."""


def _ordering(word: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Return a decorator that adds the options common to all orders."""
    return lambda command: _with_options(command, waits=word in WAITS)


def _with_options(command: Callable[..., Any], *, waits: bool) -> Callable[..., Any]:
    options = (
        click.option("--reason", required=True, help="Reason, recorded in the journal."),
        BY,
        click.option(
            "--wait",
            type=click.FloatRange(min=0.1),
            is_flag=False,
            flag_value=WAIT_S,
            metavar="[SECONDS]",
            help=f"Wait until it is in force on every journal partition, at most SECONDS (default {WAIT_S:g})."
            + (" On by default." if waits else ""),
        ),
        click.option("--no-wait", is_flag=True, help="Return once the order is published, without confirmation."),
        click.option("--json", "as_json", is_flag=True, help="Print one JSON object."),
        common,
    )

    @functools.wraps(command)
    def ordered(wait: float | None, *, no_wait: bool, **others: Any) -> None:
        if no_wait and wait is not None:
            msg = "--wait and --no-wait are mutually exclusive"
            raise click.UsageError(msg)
        command(wait=None if no_wait else wait or (WAIT_S if waits else None), **others)

    decorated: Callable[..., Any] = ordered
    for option in reversed(options):
        decorated = option(decorated)
    return decorated


def _trading(word: str) -> None:
    @control.command(word, help=HELP[word])
    @click.option("--scope", required=True, help="all, portfolio:P, strategy:S or symbol:X.")
    @_ordering(word)
    def command(scope: str, reason: str, by: str | None, *, everything: bool = False, **options: Any) -> None:
        order = trading_order(
            word, scope, not_empty("--reason", reason), operator(by), clock().now_ns(), everything=everything
        )
        _give(order, **options)

    if word == "resume":
        everything = "With --scope all: also end every halt and reduction of a portfolio, strategy or symbol."
        command.params.append(click.Option(["--everything"], is_flag=True, help=everything))


for _word in HELP:
    _trading(_word)


@control.command()
@click.option("--portfolio", required=True, help="Portfolio to set.")
@click.option("--usd", type=float, required=True, help="Equity in USD.")
@click.option("--reset-peak", is_flag=True, help="Reset the equity peak to this value, which clears the drawdown.")
@_ordering("value")
def value(portfolio: str, usd: float, reason: str, by: str | None, *, reset_peak: bool, **options: Any) -> None:
    """Set a portfolio's equity. Sizes and drawdown follow it."""
    payload = {"portfolio_id": portfolio, "value_usd": usd, "reset_peak": reset_peak}
    _give(value_order(payload, not_empty("--reason", reason), operator(by), clock().now_ns()), **options)


@control.command("rl-mode")
@click.argument("mode", type=click.Choice(["off", "shadow", "live"]))
@click.option("--scope", default="all", show_default=True, help="all, portfolio:P or strategy:S.")
@_ordering("rl-mode")
def rl_mode(mode: PolicyMode, scope: str, reason: str, by: str | None, **options: Any) -> None:
    """Set how far the policy may act: off, shadow (scored only) or live. A closed gate restarts its evidence."""
    _give(mode_order(mode, scope, not_empty("--reason", reason), operator(by), clock().now_ns()), **options)


@control.command()
@click.option("--scope", required=True, help="strategy:S, or portfolio:P for all its idle strategies.")
@click.option("--portfolio", help="With strategy:S: only in this portfolio.")
@_ordering("forget")
def forget(scope: str, portfolio: str | None, reason: str, by: str | None, **options: Any) -> None:
    """Free the slots of strategies without a live claim and without a position. What they have learnt is lost."""
    payload = {"scope": scope} | ({} if portfolio is None else {"portfolio_id": portfolio})
    _give(forget_order(payload, not_empty("--reason", reason), operator(by), clock().now_ns()), **options)


def _give(
    order: Mapping[str, Any], config: str | None, bootstrap: str | None, wait: float | None, *, as_json: bool
) -> None:
    """Publish an order and report the answers. Exit 6 if a partition does not answer, 1 if one refuses."""
    asked(order, 1)  # an invalid order is refused here, before connecting
    settings = loaded(config, bootstrap).settings
    cluster, topics = connection(settings), names(settings)
    if wait is None:
        asyncio.run(orders.give(cluster, topics, order))
        answers, missing = orders.OrderAnswers({}, [])
    else:
        answers, missing = asyncio.run(orders.give_and_wait(cluster, topics, order, wait))
    _report(order, answers, missing, waited=wait is not None, as_json=as_json)
    leave(answers, missing)


def _report(
    order: Mapping[str, Any], answers: Mapping[int, str], missing: list[int], *, waited: bool, as_json: bool
) -> None:
    if as_json:
        by_partition = {str(partition): answer for partition, answer in sorted(answers.items())}
        say_json({"order": order, "waited": waited, "answers": by_partition, "missing": missing})
        return
    say(f"order {order['control_id']} published" + ("" if waited else ", not confirmed"))
    show(answers)


@control.command("list")
@click.option("--history", is_flag=True, help="List every order in the journal instead, oldest first.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object per line.")
@common
def list_states(config: str | None, bootstrap: str | None, *, history: bool, as_json: bool) -> None:
    """List the trading states in force: who ordered them, why and when. Read from the journal; needs no worker."""
    settings = loaded(config, bootstrap).settings
    cluster, topics = connection(settings), names(settings)

    async def in_force() -> list[dict[str, Any]]:
        count = len(await read.places(cluster, topics.topic("journal")))
        states = await folded_all(cluster, topics, range(count))
        held = {partition: scopes for partition, state in enumerate(states) if (scopes := trading_states.scopes(state))}
        found = {at: await orders.orders_behind(cluster, topics, at, scopes) for at, scopes in _first(held).items()}
        return trading_states.view(states, found)

    async def every_order() -> list[dict[str, Any]]:
        count = len(await read.places(cluster, topics.topic("journal")))
        each = await asyncio.gather(*(orders.orders(cluster, topics, partition) for partition in range(count)))
        unique = {order.source: order for found in each for order in effective(found)}
        ranked = sorted(unique.values(), key=lambda order: (order.journaled_at_ns, order.source))
        return [
            {"kind": o.body["kind"], "payload": _short(o.body["payload"]), **trading_states.as_dict(o)} for o in ranked
        ]

    rows = asyncio.run(every_order() if history else in_force())
    if as_json:
        for row in rows:
            say_json(row)
        return
    say_all(trading_states.history(rows) if history else trading_states.lines(rows))
    if not rows:
        say("no orders in the journal" if history else "all ACTIVE", err=True)


def _first(held: Mapping[int, Mapping[str, str]]) -> dict[int, Mapping[str, str]]:
    """Return each scope under the first journal partition that holds it."""
    sought: dict[int, Mapping[str, str]] = {}
    known: set[tuple[str, str]] = set()
    for partition, scopes in held.items():
        fresh = {scope: word for scope, word in scopes.items() if (scope, word) not in known}
        if fresh:
            sought[partition] = fresh
            known |= set(fresh.items())
    return sought


def _short(payload: Mapping[str, Any]) -> dict[str, Any]:
    """Return a payload without the settings tree, which its hash identifies."""
    return {name: value for name, value in payload.items() if name != "tree"}
