"""What a backtest is asked to do, and what of it can be done: files are read and checked before anything runs."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

from config.settings import Settings
from engines.parameters import DecisionParams
from schemas.errors import ConfigurationException
from streams.backtest import funding, signals_file
from streams.backtest.broker import Trading
from streams.backtest.run import Inputs
from streams.backtest.signals_file import FromFile
from streams.backtest.sources import BuiltIn, OfFunction, OnBar, SentSignal, SignalSource, Together, load_function
from streams.backtest.timeline import until
from streams.history.candles import Candles
from streams.history.strategies import STRATEGIES
from streams.reports.weight_history import instant

COMMAND_LINE: Final = "command line"
NEVER_NS: Final = 1 << 62


class Request(NamedTuple):
    """A backtest as its user describes it. `signals` and `strategies` exclude each other; neither: all built in."""

    market: Sequence[Candles]
    settings: Settings
    signals: Path | Iterable[Mapping[str, Any]] | None = None
    strategies: Sequence[str | OnBar] = ()
    since_ns: int = 0
    until_ns: int = NEVER_NS
    fee_ratio: float | None = None
    """None: what the settings assume; the same holds for slippage."""
    slippage_ratio: float | None = None
    delay_s: float = 0.0
    funding: Path | None = None
    tolerant: bool = False


class Prepared(NamedTuple):
    """A request whose files are read."""

    inputs: Inputs
    source: Callable[[Sequence[Candles]], SignalSource]
    """Returns the signals anew, for another run on the same or fewer candles."""
    custom: bool
    """Whether signals come from a user's function."""
    remarks: list[str]
    """What a reader of the result must know."""


def prepare(request: Request) -> Prepared:
    """Return what will run.

    Raises:
        InvalidSignalException, ConfigurationException: what is wrong with the request, in one line.
    """
    market = _period(request)
    remarks: list[str] = []
    params = _params(request, market, remarks)
    trading = _trading(request, params, remarks)
    source = _source(request, market, remarks)
    symbols = [each.symbol for each in market]
    payments = [] if request.funding is None else funding.read(request.funding, symbols)
    inputs = Inputs(market, source(market), params, trading, payments, request.since_ns)
    gaps = sum(each.found.gaps for each in request.market)
    if gaps:
        remarks.append(f"the candles have {gaps} gaps: nothing is filled or settled in them")
    return Prepared(inputs, source, any(callable(each) or ":" in each for each in request.strategies), remarks)


def _period(request: Request) -> list[Candles]:
    """Return the candles until the end of the period. Raises: ConfigurationException if none lies in it."""
    market = list(request.market)
    if request.until_ns < NEVER_NS:
        market = until(market, request.until_ns)
    within = any(each.end_ns(each.rows[-1]) > request.since_ns for each in market)
    if not within:
        first = min(each.rows[0].open_ns for each in request.market)
        last = max(each.end_ns(each.rows[-1]) for each in request.market)
        rule = f"must hold a candle between --from and --to; the files reach from {instant(first)} to {instant(last)}"
        raise ConfigurationException(COMMAND_LINE, "period", rule)
    return market


def _params(request: Request, market: Sequence[Candles], remarks: list[str]) -> DecisionParams:
    """Return the decision settings, with what candles of this width need."""
    params = request.settings.decision()
    width_s = max(each.width_s for each in market)
    changed: dict[str, Any] = params.model_dump()
    if params.validation_criteria.max_price_age_s < 2 * width_s:
        changed["validation_criteria"]["max_price_age_s"] = float(2 * width_s)
        remarks.append(f"validation_criteria.max_price_age_s is {2 * width_s} here: prices come every {width_s} s")
    if params.market.bar_s < width_s:
        changed["market"]["bar_s"] = width_s
        remarks.append(f"market.bar_s is {width_s} here: the candles are that wide")
    if params.rl.enabled:
        changed["rl"]["enabled"] = False
        remarks.append("the policy is not asked in a backtest")
    contracts = [each.symbol for each in market if each.symbol in params.position_sizing.contracts]
    if contracts:
        rule = f"must not name {contracts[0]}: a backtest trades coins, not contracts"
        raise ConfigurationException("settings", "position_sizing.contracts", rule)
    return DecisionParams.model_validate(changed)


def _trading(request: Request, params: DecisionParams, remarks: list[str]) -> Trading:
    """Return the costs of the broker: those of the request, else those that sizing reckons with."""
    assumed = params.position_sizing.costs
    pairs = (
        ("fee", request.fee_ratio, assumed.fee_ratio),
        ("slippage", request.slippage_ratio, assumed.slippage_ratio),
    )
    found = []
    for name, asked, reckoned in pairs:
        value = reckoned if asked is None else asked
        if not 0.0 <= value < 0.5:
            raise ConfigurationException(COMMAND_LINE, f"--{name}", f"must be a ratio in [0, 0.5), was {value}")
        if value != reckoned:
            key = f"position_sizing.costs.{name}_ratio"
            remarks.append(f"the broker takes {value:g} {name} a side, but sizing reckons with {key}: {reckoned:g}")
        found.append(value)
    if not found[1]:
        remarks.append("fills are at the open without slippage; look at the figures at twice the costs as well")
    if request.delay_s < 0.0:
        raise ConfigurationException(COMMAND_LINE, "--delay", f"must not be negative, was {request.delay_s:g}")
    return Trading(found[0], found[1], request.delay_s)


def _source(
    request: Request, market: Sequence[Candles], remarks: list[str]
) -> Callable[[Sequence[Candles]], SignalSource]:
    """Return what makes the source of signals."""
    if request.signals is not None:
        if request.strategies:
            raise ConfigurationException(COMMAND_LINE, "--signals", "must not stand beside --strategy")
        signals = _from_file(request, remarks)
        return lambda _: FromFile(signals)
    named = list(request.strategies) or list(STRATEGIES)
    functions = [
        (load_function(each), each.partition(":")[2]) if isinstance(each, str) else (each, "")
        for each in named
        if not isinstance(each, str) or ":" in each
    ]
    built_in = [each for each in named if isinstance(each, str) and ":" not in each]
    BuiltIn(built_in, market)  # refuses an unknown name before anything runs
    names = [*built_in, *(OfFunction(on_bar, market, name).names()[0] for on_bar, name in functions)]
    if len(set(names)) < len(names):
        raise ConfigurationException(COMMAND_LINE, "--strategy", f"must have different names, were {', '.join(names)}")

    def made(candles: Sequence[Candles]) -> SignalSource:
        sources: list[SignalSource] = [BuiltIn(built_in, candles)] if built_in else []
        return Together([*sources, *(OfFunction(on_bar, candles, name) for on_bar, name in functions)])

    return made


def _from_file(request: Request, remarks: list[str]) -> list[SentSignal]:
    """Return the signals of the request that lie in its period."""
    if isinstance(request.signals, Path):
        found, skipped = signals_file.read(request.signals, request.market, tolerant=request.tolerant)
    else:
        rows = ((f"signals, number {number}", each) for number, each in enumerate(request.signals or (), 1))
        found, skipped = signals_file.checked(rows, request.market, "signals", tolerant=request.tolerant)
    if skipped:
        remarks.append(f"{len(skipped)} invalid signals are skipped; the first: {skipped[0]}")
    within = [each for each in found if request.since_ns <= each.message.timestamp_ns <= request.until_ns]
    if not within:
        span = f"{instant(found[0].message.timestamp_ns)} to {instant(found[-1].message.timestamp_ns)}"
        raise ConfigurationException(COMMAND_LINE, "period", f"must hold a signal; the file reaches from {span}")
    if len(within) < len(found):
        remarks.append(f"{len(found) - len(within)} of {len(found)} signals lie outside the period")
    return within
