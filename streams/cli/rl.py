"""`himari rl`: serve a reference policy, check a policy endpoint, compare policy and rules."""

import asyncio
import os
import signal
import sys

import click
from pydantic import ValidationError

from config.policy import TensorNames
from config.security import bearer_token
from config.settings import Settings
from engines.state.partition import State
from schemas.errors import NotFound, PortTaken
from schemas.rules import first
from streams.cli.common import common, connection, loaded, names, policy_url
from streams.cli.terminal import say, say_all, say_json
from streams.kafka.allocations import places
from streams.kafka.state_snapshot import folded_all
from streams.policy.conformance import Probe, Report
from streams.policy.http_transport import Link
from streams.policy.reference_server import HOST, MODEL, WRONGS, Endpoint, Switches, serve
from streams.policy.report import render, rows

UNREACHABLE = 6


@click.group()
def rl() -> None:
    """Check a policy endpoint, serve a reference one, and compare policy with rules."""


@rl.command("serve")
@click.option(
    "--port",
    type=click.IntRange(0, 65_535),
    default=8888,
    show_default=True,
    help="Port to listen on; 0 picks a free one.",
)
@click.option(
    "--protocol",
    type=click.Choice(["oip", "predict", "both"]),
    default="both",
    show_default=True,
    help="Protocol to serve: Open Inference Protocol v2, POST /predict, or both.",
)
@click.option("--model", default=MODEL, show_default=True, help="Model name (oip).")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Seed of the random weights.")
@click.option("--slow", type=click.FloatRange(0), default=0.0, metavar="SECONDS", help="Delay every answer.")
@click.option("--wrong", type=click.Choice(WRONGS), help="Break every answer in this way.")
@click.option("--dead", is_flag=True, help="Drop every connection.")
@click.option(
    "--error-rate", type=click.FloatRange(0, 1), default=0.0, metavar="P", help="Share of questions answered with 500."
)
def serve_(
    port: int,
    protocol: str,
    model: str,
    seed: int,
    slow: float,
    wrong: str | None,
    error_rate: float,
    *,
    dead: bool,
) -> None:
    """Serve the reference policy on 127.0.0.1 until interrupted: a small untrained transformer that answers noise.

    Use it to test the policy client, the circuit breaker and the gate. Never trade on its answers.
    """
    switches = Switches(slow, wrong, dead, error_rate)  # type: ignore[arg-type]
    endpoint = Endpoint(seed=seed, protocol=protocol, switches=switches, model=model)  # type: ignore[arg-type]
    asyncio.run(_serve(endpoint, port))


async def _serve(endpoint: Endpoint, port: int) -> None:
    try:
        listening = await serve(endpoint, port)
    except OSError as error:
        raise PortTaken(f"port {port} on {HOST} is in use: {error.strerror}") from error
    say(f"himari: untrained reference policy on {listening.url}, and {listening.url}/predict", err=True)
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    try:
        await stop.wait()
    finally:
        await listening.runner.cleanup()
    say(f"himari: {endpoint.answered} questions answered", err=True)


@rl.command()
@click.option("--url", required=True, help="Endpoint; for predict, include the path.")
@click.option(
    "--protocol",
    type=click.Choice(["oip", "predict"]),
    help="Protocol of the endpoint (default: predict if the URL ends in it, else oip).",
)
@click.option("--model", default=MODEL, show_default=True, help="Model name (oip).")
@click.option(
    "--timeout",
    "timeout_s",
    type=click.FloatRange(0.001),
    default=None,
    metavar="SECONDS",
    help="Timeout of one question (default: rl.timeout_sec).",
)
@click.option(
    "--count", type=click.IntRange(1, 10_000), default=50, show_default=True, help="Questions to measure latency with."
)
@click.option(
    "--tensor",
    "tensors",
    multiple=True,
    metavar="OURS=THEIRS",
    help="The model's name of an input or output: state=INPUT__0, nudge=output__0.",
)
@click.option("--proxy", metavar="URL", help="URL of an HTTP proxy.")
@click.option("--token-env", metavar="NAME", help="Environment variable that holds a bearer token.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def check(
    url: str,
    protocol: str | None,
    model: str,
    timeout_s: float | None,
    count: int,
    tensors: tuple[str, ...],
    proxy: str | None,
    token_env: str | None,
    *,
    as_json: bool,
) -> None:
    """Check that a policy endpoint conforms, and measure its latency. Exit 1 if it does not, 6 if unreachable."""
    for name, value in (("url", url), ("proxy", proxy)):
        policy_url(name, value)
    chosen = protocol or ("predict" if url.rstrip("/").endswith("predict") else "oip")
    chosen_s = timeout_s or Settings().rl.timeout_sec
    named = _named(tensors)
    link = Link(url.rstrip("/"), token=_token(token_env), proxy=proxy)
    probe = Probe(link, chosen, model=model, tensors=named, timeout_s=chosen_s, count=count)
    report = asyncio.run(probe.report())
    if as_json:
        say_json(report.plain())
    else:
        say_all(_render(report))
    sys.exit(0 if report.fits else 1 if report.reachable else UNREACHABLE)


@rl.command()
@click.option("--portfolio", help="Report only this portfolio.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object per portfolio.")
@common
def report(portfolio: str | None, config: str | None, bootstrap: str | None, *, as_json: bool) -> None:
    """Compare what the policy's and the rules' sizes earned on the same outcomes, and show the gate's status."""
    settings = loaded(config, bootstrap).settings

    async def work() -> list[State]:
        cluster, topics = connection(settings), names(settings)
        partitions = len(await places(cluster, topics))
        return await folded_all(cluster, topics, range(partitions))

    found = [row for row in rows(asyncio.run(work())) if portfolio in {None, row["portfolio_id"]}]
    if portfolio is not None and not found:
        raise NotFound(f"portfolio {portfolio} does not use a policy and has no scored decisions")
    if as_json:
        for row in found:
            say_json(row)
    else:
        say_all(render(found))


def _token(variable: str | None) -> str | None:
    """Return the token in an environment variable, None if none is named."""
    if variable is None:
        return None
    token = bearer_token(os.environ.get(variable, ""))
    if token is None:
        rule = "--token-env must name a variable with a token of printable ASCII (its value is not shown)"
        raise click.BadOptionUsage("token_env", rule)
    return token


def _named(tensors: tuple[str, ...]) -> TensorNames:
    """Return the names given by --tensor, with the defaults for the others."""
    given = {ours: theirs for ours, _, theirs in (each.partition("=") for each in tensors)}
    try:
        return TensorNames.model_validate(given)
    except ValidationError as error:
        fault = first(error)
        raise click.BadOptionUsage("tensor", f"--tensor {fault.field} {fault.rule}") from None


def _render(report: Report) -> list[str]:
    lines = [f"{report.url} ({report.protocol})"]
    lines += [f"  {each.name:<12} {each.verdict:<13} {each.detail}" for each in report.findings]
    lines.append("fits" if report.fits else "does not fit" if report.reachable else "unreachable")
    return lines
