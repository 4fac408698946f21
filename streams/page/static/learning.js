// Panels 7 and 8: strategies and policy.

import { byId, keyed, setAge, setAttribute, setClass, setText, show, tableHead, tableRow } from "./dom.js";
import { count, number, percent, signed, usd } from "./format.js";

const WEIGHTS = [
  { title: "Portfolio", kind: "t" },
  { title: "Strategy", kind: "t" },
  { title: "Weight", kind: "n" },
  { title: "Gross USD", kind: "n" },
  { title: "Weighed", kind: "n", hint: "Age of the decision that weighed the strategies" },
  { title: "Drift", kind: "t" },
];
const CELLS = [
  { title: "Cell", kind: "t" },
  { title: "Outcomes", kind: "n" },
  { title: "Win rate", kind: "n" },
  { title: "Calibration b", kind: "n", hint: "Realised return per unit of claimed return: 1 is honest, 0 is noise" },
  { title: "95 %", kind: "n", hint: "Interval of b" },
  { title: "Conformal n", kind: "n" },
];

export function drawStrategies(section) {
  const drift = new Map(section.drift.map((each) => [each.portfolio_id, each]));
  tableHead(byId("weight-table"), WEIGHTS);
  tableHead(byId("cell-table"), CELLS);
  keyed(byId("weight-table").tBodies[0], section.weights, (row) => `${row.portfolio_id}\n${row.strategy_id}`, () => tableRow(WEIGHTS), (row, item) => {
    const cells = row.cells;
    const all = drift.get(item.portfolio_id);
    setText(cells[0], item.portfolio_id);
    setText(cells[1], item.strategy_id);
    setText(cells[2], percent(item.weight));
    setText(cells[3], usd(item.gross_usd));
    setAge(cells[4], item.weighed_ms);
    setText(cells[5], item.drifted ? "▲ drifted" : all ? `${percent(all.ratio)} of portfolio` : "–");
    setClass(cells[5], item.drifted ? "warning" : "dim");
  });
  keyed(byId("cell-table").tBodies[0], section.cells, (row) => `${row.portfolio_id}\n${row.strategy_id}\n${row.symbol}`, () => tableRow(CELLS), (row, item) => {
    const cells = row.cells;
    setText(cells[0], `${item.portfolio_id} ${item.strategy_id} ${item.symbol}`);
    setAttribute(cells[0], "title", cells[0].textContent);
    setText(cells[1], count(item.outcomes));
    setText(cells[2], percent(item.win_rate));
    setText(cells[3], number(item.calibration));
    setText(cells[4], `${number(item.lower)} to ${number(item.upper)}`);
    setText(cells[5], count(item.conformal_samples));
  });
  show(byId("weight-table").parentElement, section.weights.length > 0);
  show(byId("cell-table").parentElement, section.cells.length > 0);
  const notes = [];
  if (!section.weights.length) notes.push("No strategy has spoken yet.");
  if (!section.cells.length && !section.missing.length) notes.push("No outcome has been reported yet.");
  if (section.weights_total > section.weights.length) notes.push(`${section.weights.length} of ${section.weights_total} weights.`);
  for (const each of section.missing.slice(0, 3)) notes.push(`What partition ${each.partition} has learnt is with ${each.owner ?? "its worker"}.`);
  setText(byId("strategies-note"), notes.join(" "));
}

const POLICY = [
  { title: "Portfolio", kind: "t" },
  { title: "Mode", kind: "t" },
  { title: "Gate", kind: "t" },
  { title: "Advantage bp", kind: "n", hint: "Mean return per window of the policy's sizes less the rules', in basis points of the portfolio's value" },
  { title: "95 %", kind: "n" },
];
const GATES = { collecting: "◔ collecting", open: "● open", closed: "▲ closed" };

export function drawPolicy(section) {
  const table = byId("policy-table");
  tableHead(table, POLICY);
  show(table.parentElement, section.asked);
  keyed(table.tBodies[0], section.portfolios, (row) => row.portfolio_id, () => tableRow(POLICY), (row, item) => {
    const cells = row.cells;
    setText(cells[0], item.portfolio_id);
    setText(cells[1], item.mode);
    setText(cells[2], GATES[item.gate.status]);
    setAttribute(cells[2], "title", `${item.gate.decisions} decisions scored in ${item.gate.windows} windows`);
    setText(cells[3], signed(1e4 * item.gate.advantage, 1));
    setText(cells[4], `${signed(1e4 * item.gate.lower, 1)} to ${signed(1e4 * item.gate.upper, 1)}`);
  });
  const breaker = section.breaker?.state ?? null;
  setText(byId("breaker"), breaker && section.asked ? `${breaker === "closed" ? "✓" : "▲"} breaker ${breaker}` : "");
  setClass(byId("breaker"), breaker === "closed" || !breaker ? "chip" : "chip warning");
  const others = section.breakers.map((each) => `${each.endpoint}: ${each.state}`);
  setText(byId("policy-note"), section.asked ? others.join("; ") : "No policy is asked: the rules size alone.");
}
