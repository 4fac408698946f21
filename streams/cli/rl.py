"""`himari rl`: a policy endpoint to try things with, whether an endpoint fits, and policy against rules."""

import asyncio
import json
import os
import signal
import sys

import click
from pydantic import ValidationError

from config.policy import TensorNames
from config.settings import Settings
from engines.state.partition import State
from schemas.errors import NotFound, PortTaken
from schemas.rules import first
from streams.cli.common import common, connection, loaded, names
from streams.kafka.allocations import places
from streams.kafka.state_snapshot import folded_all
from streams.policy.conformance import Probe, Report
from streams.policy.http_transport import Link
from streams.policy.reference_server import HOST, MODEL, WRONGS, Endpoint, Switches, serve
from streams.policy.report import rows, told

OUT_OF_REACH = 6


@click.group()
def rl() -> None:
    """The policy that may nudge: an endpoint to try, and a probe of yours."""


@rl.command("serve")
@click.option("--port", type=click.IntRange(0, 65_535), default=8888, show_default=True, help="0: any free one.")
@click.option("--protocol", type=click.Choice(["oip", "predict", "both"]), default="both", show_default=True)
@click.option("--model", default=MODEL, show_default=True, help="Name of the model (oip).")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Of its weights.")
@click.option("--slow", type=click.FloatRange(0), default=0.0, metavar="SECONDS", help="Answer so late.")
@click.option("--wrong", type=click.Choice(WRONGS), help="Let this be wrong with every answer.")
@click.option("--dead", is_flag=True, help="Break every connection.")
@click.option("--error-rate", type=click.FloatRange(0, 1), default=0.0, metavar="P", help="Answer so many with 500.")
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
    """Serve the reference policy on 127.0.0.1 until interrupted: a small transformer, untrained: it answers noise.

    For trying the way to a policy, the breaker and the gate; not for money.
    """
    switches = Switches(slow, wrong, dead, error_rate)  # type: ignore[arg-type]
    endpoint = Endpoint(seed=seed, protocol=protocol, switches=switches, model=model)  # type: ignore[arg-type]
    asyncio.run(_serve(endpoint, port))


async def _serve(endpoint: Endpoint, port: int) -> None:
    try:
        listening = await serve(endpoint, port)
    except OSError as error:
        raise PortTaken(f"port {port} on {HOST} is taken: {error.strerror}") from error
    click.echo(f"himari: untrained reference policy on {listening.url}, and {listening.url}/predict", err=True)
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    try:
        await stop.wait()
    finally:
        await listening.runner.cleanup()
    click.echo(f"himari: {endpoint.answered} questions answered", err=True)


@rl.command()
@click.option("--url", required=True, help="Of the endpoint; for predict with its path.")
@click.option("--protocol", type=click.Choice(["oip", "predict"]), help="Default: predict where the URL ends so.")
@click.option("--model", default=MODEL, show_default=True, help="Name of the model (oip).")
@click.option("--timeout", "timeout_s", type=click.FloatRange(0.001), default=None, metavar="SECONDS")
@click.option(
    "--count", type=click.IntRange(1, 10_000), default=50, show_default=True, help="Questions for the latency."
)
@click.option(
    "--tensor",
    "tensors",
    multiple=True,
    metavar="OURS=THEIRS",
    help="What the model calls an input or output: state=INPUT__0, nudge=output__0.",
)
@click.option("--proxy", metavar="URL", help="HTTP proxy on the way.")
@click.option("--token-env", metavar="NAME", help="Variable with a bearer token.")
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
    """Probe an endpoint, and say what fits and what does not; exit 1 where something does not, 6 out of reach."""
    chosen = protocol or ("predict" if url.rstrip("/").endswith("predict") else "oip")
    patience_s = timeout_s or Settings().rl.timeout_sec
    named = _named(tensors)
    link = Link(url.rstrip("/"), token=os.environ.get(token_env) if token_env else None, proxy=proxy)
    probe = Probe(link, chosen, model=model, tensors=named, timeout_s=patience_s, count=count)
    report = asyncio.run(probe.report())
    click.echo(json.dumps(report.plain(), sort_keys=True) if as_json else _told(report))
    sys.exit(0 if report.fits else 1 if report.reachable else OUT_OF_REACH)


@rl.command()
@click.option("--portfolio", help="Of this one alone.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object for each portfolio.")
@common
def report(portfolio: str | None, config: str | None, bootstrap: str | None, *, as_json: bool) -> None:
    """Show what the policy's sizes have earned beside the rules' on the same outcomes, and how the gate stands."""
    settings = loaded(config, bootstrap).settings

    async def work() -> list[State]:
        way, topics = connection(settings), names(settings)
        partitions = len(await places(way, topics))
        return await folded_all(way, topics, range(partitions))

    found = [row for row in rows(asyncio.run(work())) if portfolio in {None, row["portfolio_id"]}]
    if portfolio is not None and not found:
        raise NotFound(f"portfolio {portfolio} asks no policy, and was never scored")
    for line in (json.dumps(row, sort_keys=True) for row in found) if as_json else told(found):
        click.echo(line)


def _named(tensors: tuple[str, ...]) -> TensorNames:
    """Return the names that --tensor gives, the others as they are by default."""
    given = {ours: theirs for ours, _, theirs in (each.partition("=") for each in tensors)}
    try:
        return TensorNames.model_validate(given)
    except ValidationError as error:
        fault = first(error)
        raise click.BadOptionUsage("tensor", f"--tensor {fault.field} {fault.rule}") from None


def _told(report: Report) -> str:
    lines = [f"{report.url} ({report.protocol})"]
    lines += [f"  {each.name:<12} {each.verdict:<13} {each.detail}" for each in report.findings]
    lines.append("fits" if report.fits else "does not fit" if report.reachable else "out of reach")
    return "\n".join(lines)
