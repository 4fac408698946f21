"""Learning: an outcome finds the claim it settles and moves the cell's posterior and scores.

Source: docs/pipeline.md, stage 0; docs/methods.md, sections 1 and 2.
"""

from typing import Any, NamedTuple

from engines.handlers.effects import FoldResult, Journaled, Refusal, alert, warn_of_drift
from engines.models import bars, calibration, conformal, policy_gate
from engines.parameters import DecisionParams
from engines.state import policy, strategies
from engines.state.partition import State
from engines.state.records import Bars, CellPosterior, CellRecord, Claim
from schemas.vocabulary import ErrorCode

SECOND_NS = 1_000_000_000
SPANS = 256
CLOCKS_NS = 5 * SECOND_NS
"""Largest difference between the clocks of a strategy and of the reporter of its outcomes."""
SIDES = {"buy": 1, "long": 1, "sell": -1, "short": -1}


class SettledClaim(NamedTuple):
    """What an outcome taught."""

    key: tuple[str, str, str]
    claim: Claim
    won: bool
    weight: float
    residual: float
    """|side·r − m₀|/(s·u): the miss, in claimed volatilities and usual misses at the decision."""


class NotLearnt(NamedTuple):
    """Why an outcome is not taken."""

    code: ErrorCode
    """Of its dead letter."""
    field: str
    text: str


def fold_outcome(state: State, entry: Journaled, folded: FoldResult) -> None:
    """Fold an outcome: the cell, its strategies and the policy learn; one that settles no claim is refused."""
    learnt = learn(state, entry.body, entry.offset)
    if isinstance(learnt, NotLearnt):
        text = f"{entry.topic or 'call'}: {learnt.text}"
        folded.refusals.append(Refusal(entry.topic, learnt.code, learnt.field, text))
    else:
        _of_strategies(state, entry, learnt, folded)
        _of_the_policy(state, entry, learnt, folded)
        folded.note("trade", "win" if learnt.won else "loss")
        folded.note("residual", "", learnt.residual)


def _of_strategies(state: State, entry: Journaled, learnt: SettledClaim, folded: FoldResult) -> None:
    """Let an outcome move the weights of the portfolio's strategies; a drift that reaches the threshold alerts."""
    portfolio, strategy, _ = learnt.key
    claim = learnt.claim
    drifted = strategies.learn(
        state, portfolio, strategy, claim.side, entry.body["realized_return"], claim.volatility, learnt.weight
    )
    if drifted:
        warn_of_drift(state, folded, entry.offset, portfolio)


def _of_the_policy(state: State, entry: Journaled, learnt: SettledClaim, folded: FoldResult) -> None:
    """Score the policy's size against the rules' on this outcome, where a window of the gate took its decision."""
    portfolio = learnt.key[0]
    before, after = policy.score(state, portfolio, learnt.claim, entry.body["realized_return"])
    if after.decisions == before.decisions:
        return
    folded.note("scored", portfolio)
    if after.status != before.status:
        lower, _ = policy_gate.interval(after, state.params.rl.gate)
        severity = "info" if after.status == "open" else "warning"
        alert(
            state,
            folded,
            entry.offset,
            "rl_gate",
            portfolio,
            severity=severity,
            value=lower,
            threshold=0.0,
            result=after.status,
        )


def learn(state: State, body: dict[str, Any], offset: int) -> SettledClaim | NotLearnt:
    """Fold the outcome of the entry at `offset`; return what it taught, or why it is not taken; then nothing is learnt.

    A claim is settled once. `signal_id` names the claim; `decision_id` names the cell's claim of that decision, or the
    latest before it where the decision was another cell's. Where both are given they must name the same claim.
    """
    key = (body.get("portfolio_id", "main"), body["strategy_id"], body["symbol"])
    cell = state.predictions.get(key)
    named = _named(body)
    if cell is None:
        return NotLearnt("unmatched", named, f"{named} {body[named]}: cell {'/'.join(key)} has made no claim")
    claim = _settled(state, cell, body, offset)
    if isinstance(claim, str):
        return NotLearnt("unmatched", named, f"{named} {body[named]}: {claim}")
    refused = _inconsistent(claim, body) or _contradiction(state, key[2], claim, body)
    if refused is not None:
        return refused
    realised = body["realized_return"] * claim.side
    end_ns = body["timestamp_ns"]
    holding_s = body.get("holding_s")
    span = (end_ns - int((claim.horizon_s if holding_s is None else holding_s) * SECOND_NS), end_ns)
    learned = state.posteriors.get(key)
    spans = () if learned is None else learned.spans
    weight = 1.0 / (1 + sum(1 for start, end in spans if start < span[1] and span[0] < end))
    won = realised > claim.costs
    params = state.params.position_sizing
    before = None if learned is None else learned.posterior
    posterior = calibration.observe(
        before,
        claim.confidence * claim.expected_return / claim.volatility,
        realised / claim.volatility,
        won,
        weight,
        params.bayesian_kelly,
    )
    state.posteriors.put(key, CellPosterior(posterior, (*spans[1 - SPANS :], span)))
    state.pools.put(key[:2], calibration.pooled(state.pools.get(key[:2]), before, posterior))
    predicted = claim.mean + claim.costs if claim.gross is None else claim.gross
    scores = conformal.observe(
        state.scores.get(key),
        realised,
        predicted,
        claim.volatility,
        params.conformal_prediction,
        claim.scale,
    )
    state.scores.put(key, scores)
    claims = tuple(each for each in cell.claims if each is not claim)
    state.predictions.put(key, cell._replace(claims=claims, silent=False))
    residual = abs(realised - predicted) / (claim.volatility * claim.scale)
    return SettledClaim(key, claim, won, weight, residual)


def _inconsistent(claim: Claim, body: dict[str, Any]) -> NotLearnt | None:
    """Return how an outcome contradicts the claim that it names, None where it does not."""
    side, end_ns = body.get("side"), body["timestamp_ns"]
    if side is not None and _sign(side) != claim.side:
        return NotLearnt("inconsistent", "side", f"side {side} contradicts the claim's side {claim.side:+d}")
    if end_ns < claim.timestamp_ns - CLOCKS_NS:
        rule = f"must not be before its claim at {claim.timestamp_ns}"
        return NotLearnt("inconsistent", "timestamp_ns", f"timestamp_ns {rule}, was {end_ns}")
    return None


def _contradiction(state: State, symbol: str, claim: Claim, body: dict[str, Any]) -> NotLearnt | None:
    """Return how prices contradict a realised return, None where they do not or cannot tell.

    An outcome that ends now and was held from the claim on is compared with what the price has made since; any other
    one with 0, twice as generously. The bound is `outcome_sd` volatilities of the bars over the holding and
    `outcome_slack`.
    """
    market = state.markets.get((symbol,))
    bars_ = None if market is None else market.bars
    if bars_ is None:
        return None
    holding_s = body.get("holding_s") or claim.horizon_s
    volatility = bars.volatility(bars_, holding_s, state.params.market)
    if volatility is None:
        return None
    criteria, returned = state.params.validation_criteria, body["realized_return"]
    bound = criteria.outcome_sd * volatility + criteria.outcome_slack
    if claim.price and _spans_prices(bars_, claim, body["timestamp_ns"], holding_s, state.params):
        moved = bars_.last_price / claim.price - 1.0
        rule = f"must be within {bound:.4g} of {moved:.4g}, what prices made in that time"
    elif bars_.closed >= state.params.market.warmup_bars:
        moved, bound = 0.0, 2.0 * bound
        rule = f"must be within {bound:.4g}, {2.0 * criteria.outcome_sd:g} volatilities of the prices in that time"
    else:
        return None
    if abs(returned - moved) <= bound:
        return None
    return NotLearnt("out_of_range", "realized_return", f"realized_return {rule}, was {returned!r}")


def _spans_prices(known: Bars, claim: Claim, end_ns: int, holding_s: float, params: DecisionParams) -> bool:
    """Return whether an outcome was held from the price of its claim to the last price, give or take a tenth."""
    fresh = abs(end_ns - known.last_ns) <= params.validation_criteria.max_price_age_s * SECOND_NS
    since_claim = end_ns - claim.timestamp_ns
    return fresh and 10 * abs(since_claim - int(holding_s * SECOND_NS)) <= int(holding_s * SECOND_NS)


def round_trip(params: DecisionParams) -> float:
    """Return the costs of opening and closing, as a ratio of the notional."""
    costs = params.position_sizing.costs
    return 2.0 * (costs.fee_ratio + costs.slippage_ratio)


def _named(body: dict[str, Any]) -> str:
    """Return the field by which an outcome names its claim."""
    return "decision_id" if body.get("signal_id") is None else "signal_id"


def _settled(state: State, cell: CellRecord, body: dict[str, Any], offset: int) -> Claim | str:
    """Return the claim that an outcome names, or why there is none."""
    signal_id = body.get("signal_id")
    if signal_id is None:
        return _of_decision(state, cell, body, offset)
    decided = None if body.get("decision_id") is None else _of_decision(state, cell, body, offset)
    if isinstance(decided, str):
        return decided
    said = next((claim for claim in reversed(cell.claims) if claim.signal_id == signal_id), None)
    if said is None:
        return f"no open claim of signal {signal_id}"
    if decided is not None and decided is not said:
        return f"decision {body['decision_id']} was about signal {decided.signal_id}"
    return said


def _of_decision(state: State, cell: CellRecord, body: dict[str, Any], offset: int) -> Claim | str:
    """Return the newest claim of a cell at a decision, or why there is none."""
    decision_id = body["decision_id"]
    decided = _offset_of(state, decision_id, body.get("portfolio_id", "main"))
    if decided is None:
        return f"decision {decision_id} is not of this journal partition and portfolio"
    if decided >= offset:
        return f"decision {decision_id} was never made"
    for claim in reversed(cell.claims):
        if claim.offset <= decided:
            return claim
    return f"no open claim at decision {decision_id}"


def _offset_of(state: State, decision_id: str, portfolio: str) -> int | None:
    journal_id, _, rest = decision_id.partition("-")
    partition, _, rest = rest.partition("-")
    offset, _, name = rest.partition("-")
    known = state.progress is not None and journal_id == state.progress.journal_id
    if not known or partition != str(state.partition) or name != portfolio or not offset.isdecimal():
        return None
    return int(offset)


def _sign(side: int | str) -> int:
    """Return +1 or −1 for a side as the wire has it: 1, −1, buy, sell, long or short."""
    return side if isinstance(side, int) else SIDES[side]
