// Panels 5 and 6: cascade levels, regimes and correlations.

import { byId, element, keyed, setAge, setAttribute, setClass, setText, show, tableHead, tableRow } from "./dom.js";
import { number, percent, price, signed } from "./format.js";

const COLUMNS = [
  { title: "Symbol", kind: "t" },
  { title: "Price", kind: "n" },
  { title: "Age", kind: "n", className: "narrow" },
  { title: "Long", kind: "t", hint: "Cascade level and score against longs" },
  { title: "Short", kind: "t", hint: "Cascade level and score against shorts" },
  { title: "Regime", kind: "t" },
];
const LEVELS = {
  MONITOR: ["○", "monitor", "calm"],
  "REDUCE_50%": ["◐", "cut 50 %", "warning"],
  "REDUCE_75%": ["◕", "cut 75 %", "warning"],
  EXIT: ["●", "exit", "critical"],
};

export function drawMarkets(section) {
  const table = byId("market-table");
  tableHead(table, COLUMNS);
  keyed(table.tBodies[0], section.rows, (row) => row.symbol, () => tableRow(COLUMNS), fillMarket);
  setText(byId("markets-source"), section.source === "worker" ? "as of now" : "as of each symbol's last decision");
  const more = section.rows_total > section.rows.length ? `${section.rows.length} of ${section.rows_total} symbols.` : "";
  setText(byId("markets-note"), section.rows.length ? more : "No price and no decision yet.");
}

function fillMarket(row, item) {
  const cells = row.cells;
  setText(cells[0], item.symbol === "*" ? "whole market" : item.symbol);
  setText(cells[1], item.suspect ? `${price(item.price)} suspect` : price(item.price));
  setAge(cells[2], item.price_ms ?? item.as_of_ms);
  fillLevel(cells[3], item.long);
  fillLevel(cells[4], item.short);
  const next = item.candidate ? ` → ${item.candidate} ${percent(item.confirmation_ratio, 0)}` : "";
  setText(cells[5], item.regimes.length ? item.regimes.join(", ") + next : "–");
  setAttribute(cells[5], "title", cells[5].textContent);
  const readings = Object.entries(item.readings).map(([name, value]) => `${name} ${number(value, 4)}`);
  setAttribute(row, "title", readings.join("\n") || null);
}

function fillLevel(cell, latch) {
  const [glyph, word, look] = latch ? LEVELS[latch.level] ?? ["?", latch.level, ""] : ["", "", "dim"];
  const breaches = latch && latch.breaches !== null ? `, ${latch.breaches} components over their thresholds` : "";
  setText(cell, latch ? `${glyph} ${number(latch.score)} ${word}` : "–");
  setAttribute(cell, "title", latch ? latch.level + breaches : null);
  setClass(cell, `level-${look}`);
}

// -- correlations ----------------------------------------------------------------------------------------------------
let place = [0, 0];
let shownSymbols = [];

export function drawCorrelations(section) {
  const table = byId("grid");
  const grid = section.grid;
  show(table.parentElement, Boolean(grid?.symbols.length));
  setText(byId("correlation-mean"), grid?.symbols.length ? `mean ${signed(grid.mean)}` : "");
  if (grid?.symbols.length) fillGrid(table, grid);
  if (!grid?.symbols.length) setText(byId("grid-note"), section.missing);
  const held = section.portfolios.filter((each) => each.diversification);
  keyed(byId("diversification"), held, (each) => each.portfolio_id, () => element("p", "note"), (node, each) => {
    const cut = Object.entries(each.penalties).map(([symbol, share]) => `${symbol} ${percent(share, 0)}`);
    const text = `${each.portfolio_id}: diversification ${number(each.diversification.ratio)}, score ${number(each.diversification.score)}`;
    setText(node, cut.length ? `${text}; portfolio stage removed ${cut.slice(0, 6).join(", ")}` : text);
  });
}

function fillGrid(table, grid) {
  const same = shownSymbols.length === grid.symbols.length && shownSymbols.every((symbol, at) => symbol === grid.symbols[at]);
  if (!same) buildGrid(table, grid.symbols);
  grid.hundredths.forEach((line, i) => line.forEach((value, j) => {
    const cell = table.tBodies[0].rows[i].cells[j + 1];
    setText(cell, value > 0 ? `+${value}` : `${value}`.replace("-", "−"));
    setClass(cell, `heat ${i === j ? "self" : heat(value)}`);
  }));
  describe(table);
}

function heat(value) {
  const step = Math.min(5, Math.round(Math.abs(value) / 20));
  return step === 0 ? "h0" : value > 0 ? `pos h${step}` : `neg h${step}`;
}

function buildGrid(table, symbols) {
  shownSymbols = symbols;
  table.replaceChildren(element("thead"), element("tbody"));
  const head = table.tHead.insertRow();
  head.append(element("td"));
  for (const symbol of symbols) {
    const cell = element("th", "", symbol);
    cell.scope = "col";
    cell.title = symbol;
    head.append(cell);
  }
  for (const symbol of symbols) {
    const row = table.tBodies[0].insertRow();
    const name = element("th", "", symbol);
    name.scope = "row";
    name.title = symbol;
    row.append(name);
    for (const _ of symbols) row.insertCell().tabIndex = -1;
  }
  place = [Math.min(place[0], symbols.length - 1), Math.min(place[1], symbols.length - 1)];
  cellAt(table).tabIndex = 0;
  table.onkeydown = onKey;
  table.onfocusin = (event) => {
    const cell = event.target.closest("tbody td");
    if (!cell) return;
    move(table, cell.parentElement.rowIndex - 1, cell.cellIndex - 1, false);
  };
}

const cellAt = (table) => table.tBodies[0].rows[place[0]].cells[place[1] + 1];

function onKey(event) {
  const [row, column] = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key] ?? [0, 0];
  if (!row && !column) return;
  const last = shownSymbols.length - 1;
  move(event.currentTarget, Math.max(0, Math.min(last, place[0] + row)), Math.max(0, Math.min(last, place[1] + column)), true);
  event.preventDefault();
}

function move(table, row, column, focus) {
  cellAt(table).tabIndex = -1;
  place = [row, column];
  cellAt(table).tabIndex = 0;
  if (focus) cellAt(table).focus();
  describe(table);
}

function describe(table) {
  const [a, b] = [shownSymbols[place[0]], shownSymbols[place[1]]];
  setText(byId("grid-note"), `${a} and ${b}: ${cellAt(table).textContent} hundredths. Arrow keys walk the grid.`);
}
