// Panels 2 and 3: targets, holdings and budgets.

import { byId, commandLine, element, keyed, setAge, setAttribute, setClass, setCommand, setText, show, tableRow } from "./dom.js";
import { percent, quantity, sideOf, signedUsd, usd, wholeUsd } from "./format.js";

const COLUMNS = [
  { key: "portfolio_id", title: "Portfolio", kind: "t" },
  { key: "symbol", title: "Symbol", kind: "t" },
  { key: "held_usd", title: "Held USD", kind: "n", hint: "Reported positions, or the targets before the newest decision (assumed)" },
  { key: "target_usd", title: "Target USD", kind: "n" },
  { key: "quantity", title: "Coins", kind: "n", hint: "Target in coins or contracts" },
  { key: "weight_ratio", title: "Weight", kind: "n", hint: "Target as a share of the portfolio's value" },
  { key: "to_trade_usd", title: "To trade USD", kind: "n" },
  { key: "bound", title: "Bound by", kind: "t" },
  { key: "price_ms", title: "Price age", kind: "n" },
];
const sort = { key: "", down: false };
let chosen = "";
let alone = null;

export function startTargets(page) {
  const head = byId("targets").tHead.insertRow();
  for (const column of COLUMNS) {
    const cell = element("th", column.kind === "n" ? "n" : "");
    cell.scope = "col";
    if (column.hint) cell.title = column.hint;
    const button = element("button", "sort", column.title);
    button.type = "button";
    button.addEventListener("click", () => {
      sort.down = sort.key === column.key ? !sort.down : column.kind === "n";
      sort.key = column.key;
      page.redraw("view");
    });
    cell.append(button);
    head.append(cell);
  }
  byId("filter").addEventListener("input", () => page.redraw("view"));
  byId("portfolio").addEventListener("change", () => {
    chosen = byId("portfolio").value;
    alone = null;
    page.redraw("view");
    page.redraw("decisions");
  });
  byId("csv").addEventListener("click", () => saveCsv(rowsShown(page.state.sections.view ?? { rows: [] })));
  setInterval(() => fetchAlone(page), 1000);
}

export const chosenPortfolio = () => chosen;

// The stream has the largest rows only; a portfolio that was chosen is fetched whole where some are left out.
async function fetchAlone(page) {
  const view = page.state.sections.view;
  if (!chosen || !view || view.rows_total <= view.rows.length || document.hidden) return;
  try {
    alone = await page.stream.get(`view?portfolio=${encodeURIComponent(chosen)}`);
    page.redraw("view");
  } catch {
    alone = null;
  }
}

function rowsShown(view) {
  const wanted = byId("filter").value.trim().toLowerCase();
  const source = chosen && alone ? alone.rows : view.rows;
  const rows = source.filter(
    (row) => (!chosen || row.portfolio_id === chosen) && (!wanted || row.symbol.toLowerCase().includes(wanted)),
  );
  if (sort.key) rows.sort((a, b) => order(a[sort.key], b[sort.key]) * (sort.down ? -1 : 1));
  return rows;
}

function order(a, b) {
  if (a === b) return 0;
  if (a === null || a === undefined) return -1;
  if (b === null || b === undefined) return 1;
  return typeof a === "number" ? Math.abs(a) - Math.abs(b) : String(a).localeCompare(String(b));
}

export function drawTargets(page, view) {
  choices(view);
  const rows = rowsShown(view);
  keyed(byId("targets").tBodies[0], rows, (row) => `${row.portfolio_id}\n${row.symbol}`, makeRow, fillRow);
  COLUMNS.forEach((column, place) => {
    const word = sort.key !== column.key ? null : sort.down ? "descending" : "ascending";
    setAttribute(byId("targets").tHead.rows[0].cells[place], "aria-sort", word);
  });
  drawEmpty(view, rows);
  drawNote(view, rows);
}

function choices(view) {
  const names = view.portfolios.map((each) => each.portfolio_id);
  const make = (name) => {
    const option = element("option", "", name || "all");
    option.value = name;
    return option;
  };
  keyed(byId("portfolio"), ["", ...names], (name) => name, make, () => {});
  const fixed = byId("portfolio").querySelectorAll("option[value='']");
  if (fixed.length > 1) fixed[0].remove();
}

function makeRow() {
  const row = tableRow(COLUMNS);
  const bound = row.cells[7];
  bound.append(element("span", "bound"));
  return row;
}

function fillRow(row, item) {
  const cells = row.cells;
  setText(cells[0], item.portfolio_id);
  setText(cells[1], item.symbol);
  setText(cells[2], usd(item.held_usd));
  setAttribute(cells[2], "title", `${item.held_basis}: ${quantity(item.held_quantity)}`);
  setClass(cells[2], `n basis ${item.held_basis}`);
  setText(cells[3], signedUsd(item.target_usd));
  setClass(cells[3], `n strong ${sideOf(item.target_usd)}`);
  setText(cells[4], quantity(item.quantity));
  setText(cells[5], percent(item.weight_ratio));
  setText(cells[6], item.kept ? "kept" : signedUsd(item.to_trade_usd));
  setClass(cells[6], `n ${item.kept ? "dim" : sideOf(item.to_trade_usd)}`);
  const notes = [...item.bound.map(capWord), ...item.reasons, ...(item.unmanaged ? ["unmanaged"] : [])];
  setText(cells[7].firstElementChild, notes.join(", "));
  setAttribute(cells[7], "title", notes.join("\n") || null);
  setAge(cells[8], item.price_ms);
  setClass(cells[8], item.stale ? "n stale-price" : "n");
}

// A cap of this row in few words: symbol, cell momentum, strategy momentum, portfolio.
function capWord(cap) {
  const [level, name = ""] = cap.split(/:(.*)/s);
  if (level === "strategy") return cap.replace(":", " ");
  return level === "cell" ? `cell ${name.split("/")[0]}` : level;
}

function drawEmpty(view, rows) {
  const empty = byId("view-empty");
  const none = rows.length === 0;
  show(empty, none);
  show(byId("targets").parentElement, !none);
  if (!none) return;
  if (!empty.firstChild) empty.append(element("p"), commandLine(""));
  const [text, command] = empty.children;
  const filtered = view.rows.length > 0;
  const reading = !view.complete && view.portfolios.length === 0;
  const words = filtered
    ? "No symbol matches the filter."
    : view.portfolios.length
      ? "Nothing is held and nothing is targeted."
      : reading
        ? "No allocation yet; older ones are still being searched. To try it out:"
        : "No allocation yet. To try it out:";
  setText(text, words);
  show(command, Boolean(view.try) && !filtered);
  setCommand(command, view.try);
}

function drawNote(view, rows) {
  const notes = [];
  if (view.rows_total > view.rows.length && !chosen) notes.push(`${view.rows.length} of ${view.rows_total} rows, the largest; choose a portfolio for all of its rows.`);
  if (view.portfolios_total > view.portfolios.length) notes.push(`${view.portfolios.length} of ${view.portfolios_total} portfolios.`);
  if (view.left_out) notes.push(`${view.left_out} allocations of further portfolios are not shown.`);
  if (rows.some((row) => row.held_basis === "assumed")) notes.push("Held in italics is assumed: no positions are reported.");
  for (const each of view.missing) notes.push(`Positions of partition ${each.partition} are with ${each.owner ?? "its worker"}.`);
  setText(byId("view-note"), notes.slice(0, 4).join(" "));
}

// -- budgets ---------------------------------------------------------------------------------------------------------
const LEVELS = [["portfolio", "total"], ["strategy", "strategy"], ["position", "symbol"]];

export function drawBudgets(page, view) {
  const portfolios = view.portfolios.filter((each) => !chosen || each.portfolio_id === chosen);
  setText(byId("budgets-note"), portfolios.length ? "" : "No portfolio has an allocation yet.");
  keyed(byId("budget-list"), portfolios, (each) => each.portfolio_id, makePortfolio, fillPortfolio);
}

function makePortfolio() {
  const box = element("div", "budget");
  const head = element("h3");
  head.append(element("span", "name"), element("span", "value"));
  box.append(head, element("p", "facts"), element("div", "levels"), commandLine(""));
  return box;
}

function fillPortfolio(box, item) {
  const [head, facts, levels, command] = box.children;
  setText(head.children[0], item.portfolio_id);
  setText(head.children[1], `${usd(item.value_usd)} USD`);
  const words = [`gross ${wholeUsd(item.gross_usd)}`, `net ${wholeUsd(item.net_usd)}`, `${percent(item.utilization_ratio)} in use`];
  words.push(item.drawdown_ratio === null ? "drawdown unknown" : `drawdown ${percent(item.drawdown_ratio)}`);
  words.push(`allocation ${item.sequence}`);
  if (!item.final) words.push("not final");
  setText(facts, words.join(" · "));
  const rows = [];
  if (item.budgets) for (const [level, word] of LEVELS) for (const each of item.budgets[level]) rows.push({ level, word, ...each });
  else rows.push({ level: "", word: "unknown", name: item.budgets_unknown, unknown: true });
  keyed(levels, rows, (row) => `${row.level}\n${row.name}`, makeLevel, fillLevel);
  setCommand(command, item.commands.show);
}

function makeLevel() {
  const line = element("div", "level");
  const bar = element("span", "meter");
  bar.append(element("span"));
  bar.setAttribute("aria-hidden", "true");
  line.append(element("span", "label"), bar, element("span", "n"), element("span", "n share"));
  return line;
}

function fillLevel(line, row) {
  const [label, bar, amount, share] = line.children;
  setText(label, row.unknown ? `budgets unknown: ${row.name}` : `${row.word} ${row.name}`);
  setAttribute(label, "title", label.textContent);
  setClass(line, row.unknown ? "level unknown" : row.ratio > 1 ? "level over" : row.ratio > 0.9 ? "level near" : "level");
  if (row.unknown) return;
  const width = `${Math.min(100, 100 * (row.ratio ?? 0)).toFixed(1)}%`;
  if (bar.firstElementChild.style.width !== width) bar.firstElementChild.style.width = width;
  setText(amount, `${wholeUsd(row.held_usd)} of ${wholeUsd(row.cap_usd)}`);
  setText(share, (row.ratio > 1 ? "over " : row.ratio > 0.9 ? "near " : "") + percent(row.ratio, 0));
}

// -- CSV -------------------------------------------------------------------------------------------------------------
const FIELDS = ["portfolio_id", "symbol", "held_usd", "held_basis", "target_usd", "quantity", "weight_ratio", "to_trade_usd", "bound", "price", "price_ms"];

function cell(value) {
  if (value === null || value === undefined) return "";
  if (typeof value === "number") return String(value);
  const text = Array.isArray(value) ? value.join(" ") : String(value);
  const safe = /^[=+\-@\t\r]/.test(text) ? `'${text}` : text;
  return `"${safe.replaceAll('"', '""')}"`;
}

function saveCsv(rows) {
  const lines = [FIELDS.join(","), ...rows.map((row) => FIELDS.map((field) => cell(row[field])).join(","))];
  const link = element("a");
  link.href = URL.createObjectURL(new Blob([`${lines.join("\r\n")}\r\n`], { type: "text/csv" }));
  link.download = "himari-targets.csv";
  link.click();
  URL.revokeObjectURL(link.href);
}
