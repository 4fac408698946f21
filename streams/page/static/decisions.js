// Panel 4: the last decisions, and the drawer with the waterfall of one.

import { byId, commandLine, element, keyed, setAge, setAttribute, setClass, setText, tableHead, tableRow } from "./dom.js";
import { chosenPortfolio } from "./targets.js";
import { instant, quantity, sideOf, signedUsd, usd } from "./format.js";

const COLUMNS = [
  { title: "Age", kind: "n", className: "narrow" },
  { title: "Portfolio", kind: "t" },
  { title: "Seq", kind: "n", className: "narrow" },
  { title: "Trigger", kind: "t" },
  { title: "Cell", kind: "t" },
  { title: "Cell USD", kind: "n" },
  { title: "Gross USD", kind: "n" },
  { title: "Bound by", kind: "t" },
  { title: "Chain", kind: "t", className: "narrow" },
];
let focused = "";
let page = null;

export function startDecisions(owner) {
  page = owner;
  const table = byId("decision-table");
  tableHead(table, COLUMNS);
  table.setAttribute("role", "grid");
  table.setAttribute("aria-labelledby", "decisions-title");
  table.tBodies[0].addEventListener("keydown", onKey);
  table.tBodies[0].addEventListener("click", (event) => openRow(event.target.closest("tr")));
  byId("close").addEventListener("click", () => byId("drawer").close());
  byId("drawer").addEventListener("click", (event) => {
    if (event.target === byId("drawer")) byId("drawer").close();
  });
}

export function drawDecisions(_page, section) {
  const chosen = chosenPortfolio();
  const rows = section.decisions.filter((each) => !chosen || each.portfolio_id === chosen);
  if (!rows.some((each) => each.decision_id === focused)) focused = rows[0]?.decision_id ?? "";
  keyed(byId("decision-table").tBodies[0], rows, (each) => each.decision_id, makeRow, fillRow);
  const chain = byId("chain");
  const broken = section.broken.length;
  const fork = section.broken.some((each) => each.chain === "fork");
  setText(chain, broken ? `▲ ${fork ? "FORK" : "gap"} in ${broken} of the chains` : rows.length ? "✓ chain intact" : "");
  setClass(chain, broken ? "chip critical" : "chip");
  setText(byId("decisions-note"), rows.length ? "" : "No decision yet.");
}

function makeRow() {
  const row = tableRow(COLUMNS);
  row.cells[0].replaceWith(Object.assign(element("td", "n narrow")));
  return row;
}

function fillRow(row, item) {
  const cells = row.cells;
  row.dataset.id = item.decision_id;
  row.tabIndex = item.decision_id === focused ? 0 : -1;
  setAttribute(row, "aria-label", `Decision ${item.sequence} of ${item.portfolio_id}`);
  setAge(cells[0], item.decided_ms);
  setAttribute(cells[0], "title", instant(item.decided_ms));
  setText(cells[1], item.portfolio_id);
  setText(cells[2], item.sequence);
  setText(cells[3], `${item.trigger.kind} ${item.trigger.id}`);
  setAttribute(cells[3], "title", cells[3].textContent);
  setText(cells[4], item.strategy_id === null ? "–" : `${item.strategy_id} ${item.symbol}`);
  setAttribute(cells[4], "title", cells[4].textContent);
  setText(cells[5], signedUsd(item.position_size_usd));
  setClass(cells[5], `n ${sideOf(item.position_size_usd)}`);
  setText(cells[6], usd(item.gross_usd));
  setText(cells[7], item.bound.length > 1 ? `${item.bound.length} caps` : (item.bound[0] ?? "").split(":")[0]);
  setAttribute(cells[7], "title", item.bound.join("\n") || null);
  setText(cells[8], item.linked === null ? "first read" : item.linked ? "✓" : "▲ FORK");
  setClass(cells[8], item.linked === false ? "narrow critical" : "narrow dim");
}

function onKey(event) {
  const row = event.target.closest("tr");
  const next = { ArrowDown: row?.nextElementSibling, ArrowUp: row?.previousElementSibling }[event.key];
  if (event.key === "Enter") openRow(row);
  else if (event.key === "Home" || event.key === "End") focusRow(event.key === "Home" ? row.parentElement.firstElementChild : row.parentElement.lastElementChild);
  else if (next) focusRow(next);
  else return;
  event.preventDefault();
}

function focusRow(row) {
  byId("decision-table").querySelector("tr[tabindex='0']")?.setAttribute("tabindex", "-1");
  row.tabIndex = 0;
  focused = row.dataset.id;
  row.focus();
}

// -- the drawer ------------------------------------------------------------------------------------------------------
async function openRow(row) {
  if (!row) return;
  focused = row.dataset.id;
  const body = byId("drawer-body");
  setText(byId("drawer-title"), row.getAttribute("aria-label"));
  body.replaceChildren(element("p", "note", "Reading …"));
  if (!byId("drawer").open) byId("drawer").showModal();
  try {
    fillDrawer(body, await page.stream.get(`decisions/${encodeURIComponent(focused)}`));
  } catch (error) {
    body.replaceChildren(element("p", "note", error.message));
  }
}

function fillDrawer(body, item) {
  const facts = element("dl", "pairs");
  const pairs = [
    ["Id", item.decision_id],
    ["Decided", instant(item.decided_ms)],
    ["Trigger", `${item.trigger.kind} ${item.trigger.id}`],
    ["Journal", `partition ${item.journal.partition}, offset ${item.journal.offset}`],
    ["Final", item.final ? "yes" : "no: a policy answer may still revise it"],
    ["Settings", item.settings_hash.slice(0, 16)],
    ["Chain", item.linked === null ? "the allocation before it was not read" : item.linked ? "follows the allocation before it" : "FORK"],
    ["Bound by", item.bound.join(", ") || "nothing"],
  ];
  for (const [name, text] of pairs) facts.append(element("dt", "", name), element("dd", "", text));
  const cell = item.strategy_id === null ? "" : `${item.strategy_id} ${item.symbol}`;
  body.replaceChildren(facts, commandLine(item.decision_id));
  if (item.waterfall.length) {
    const steps = item.waterfall.map((step) => [step.stage, step.before_cents / 100, step.after_cents / 100, step.reason]);
    body.append(element("h3", "", `Size of ${cell}, USD`), waterfall(steps));
  }
  let before = 0;
  const portfolio = item.portfolio_waterfall.map((step) => {
    const made = [step.stage, before, step.gross_cents / 100, ""];
    before = step.gross_cents / 100;
    return made;
  });
  if (portfolio.length) body.append(element("h3", "", "Gross of the portfolio, USD"), waterfall(portfolio));
  const targets = Object.entries(item.targets);
  body.append(element("h3", "", "Targets"), element("p", "note", targets.length ? "" : "Nothing is held."), targetTable(targets));
  if (item.reasons.length) {
    const list = element("ul");
    for (const reason of item.reasons) list.append(element("li", "", `${reason.symbol}: ${reason.text}`));
    body.append(element("h3", "", "Not sized"), list);
  }
  body.append(element("h3", "", "Explain and prove"), commandLine(item.commands.explain), commandLine(item.commands.bundle));
}

function targetTable(targets) {
  const columns = [{ title: "Symbol" }, { title: "Target USD", kind: "n" }, { title: "Coins", kind: "n" }];
  const table = element("table");
  table.append(element("thead"), element("tbody"));
  tableHead(table, columns);
  for (const [symbol, target] of targets) {
    const row = tableRow(columns);
    [symbol, signedUsd(target.notional_usd), quantity(target.quantity)].forEach((text, place) => setText(row.cells[place], text));
    table.tBodies[0].append(row);
  }
  return table;
}

// A table whose bars show what each stage left: from zero, to the left if short.
function waterfall(steps) {
  const largest = Math.max(1e-9, ...steps.map(([, before, after]) => Math.max(Math.abs(before), Math.abs(after))));
  const columns = [{ title: "Stage" }, { title: "Left", className: "chart" }, { title: "USD", kind: "n" }, { title: "Change", kind: "n" }, { title: "Reason" }];
  const table = element("table", "waterfall");
  table.append(element("thead"), element("tbody"));
  tableHead(table, columns);
  for (const [stage, before, after, reason] of steps) {
    const row = tableRow(columns);
    const [name, chart, left, change, why] = row.cells;
    name.textContent = stage;
    chart.setAttribute("aria-hidden", "true");
    const bar = element("span", `bar ${sideOf(after) || "none"}`);
    const removed = element("span", "bar removed");
    const kept = Math.min(Math.abs(before), Math.abs(after));
    bar.style.width = `${(100 * Math.abs(after)) / largest}%`;
    removed.style.width = `${(100 * Math.max(0, Math.abs(before) - kept)) / largest}%`;
    const track = element("span", "track");
    track.append(bar, removed);
    chart.append(track);
    left.textContent = usd(after);
    change.textContent = after === before ? "" : signedUsd(after - before);
    why.textContent = reason;
    if (after === before) row.className = "same";
    table.tBodies[0].append(row);
  }
  return table;
}
