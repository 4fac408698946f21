// Panels 0, 1 and 9 to 11: verdict, attention, pipeline, dead letters and orders.

import { byId, commandLine, element, keyed, setAge, setAttribute, setClass, setCommand, setText, show, tableHead, tableRow } from "./dom.js";
import { WORDS, clock, count, instant } from "./format.js";

// -- verdict ---------------------------------------------------------------------------------------------------------
export function drawVerdict(section, word = "", trouble = "") {
  const shown = word || section.verdict;
  const [glyph, text] = WORDS[shown] ?? ["?", shown];
  const pill = byId("verdict");
  setClass(pill, `verdict ${shown}`);
  const [mark, name, why] = pill.children;
  setText(mark, glyph);
  setText(name, text);
  setText(why, section ? section.why : trouble);
  setAttribute(pill, "title", why.textContent || null);
  if (section) drawFacts(section);
}

function drawFacts(section) {
  const moved = section.journal_ms ?? section.newest_decision_ms;
  const facts = [
    [section.journal_ms === null ? "Last decision" : "Journal", "age", moved],
    ["Partitions", "text", section.role === "dashboard" ? (section.partitions ? `all ${section.partitions} read` : "–") : `${section.owned.length} of ${section.partitions || "–"}`],
    ["Settings", "text", section.settings_hashes.map((hash) => hash.slice(0, 8)).join(" ") || "–"],
    ["Journal time", "text", clock(moved)],
    ["UTC", "text", clock(section.wall_ms)],
    ...(Math.abs(section.wall_ms - section.now_ms) > 60000 ? [["Clock", "text", "market time"]] : []),
  ];
  const list = byId("facts");
  while (list.children.length > facts.length) list.lastElementChild.remove();
  facts.forEach(([name, kind, value], at) => {
    let box = list.children[at];
    if (!box) {
      box = element("div");
      box.append(element("dt"), element("dd"));
      list.append(box);
    }
    setText(box.children[0], name);
    if (kind === "age") setAge(box.children[1], value);
    else setText(box.children[1], value);
  });
}

// -- attention -------------------------------------------------------------------------------------------------------
const MARKS = { critical: "▲", warning: "◆", info: "○" };

export function drawAttention(section) {
  const none = byId("attention-none");
  show(none, section.items.length === 0);
  setText(none, "✓ Nothing needs attention.");
  keyed(byId("attention-items"), section.items, (item) => `${item.kind}\n${item.subject}\n${item.severity}`, makeItem, fillItem);
  const parts = Object.entries(section.counts).filter(([, number]) => number).map(([severity, number]) => `${number} ${severity}`);
  setText(byId("attention-title"), parts.length ? `Attention: ${parts.join(", ")}` : "Attention");
  const link = byId("panels").querySelector("a");
  if (link) setText(link, section.total ? `Attention ${section.total}` : "Attention");
  document.title = section.counts.critical ? `▲ ${section.counts.critical} · HIMARI Layer 3` : "HIMARI Layer 3";
}

function makeItem() {
  const item = element("li");
  const panel = element("a");
  item.append(element("span", "mark"), element("b"), panel, element("span", "text"), element("span", "since n"), element("span", "doc"), commandLine(""));
  return item;
}

function fillItem(node, item) {
  const [mark, kind, panel, text, since, doc, command] = node.children;
  setClass(node, item.severity);
  setText(mark, MARKS[item.severity]);
  setAttribute(mark, "title", item.severity);
  setText(kind, item.kind);
  setText(panel, item.subject);
  setAttribute(panel, "href", `#${item.panel}`);
  setText(text, item.text);
  setAge(since, item.since_ms);
  if (item.since_ms === null) setText(since, "");
  setText(doc, item.doc);
  show(command, Boolean(item.command));
  setCommand(command, item.command);
}

// -- pipeline --------------------------------------------------------------------------------------------------------
const PARTITIONS = [
  { title: "Partition", kind: "n", className: "narrow" },
  { title: "Owner", kind: "t" },
  { title: "Lag", kind: "n" },
  { title: "Journal age", kind: "n" },
  { title: "Checkpoint", kind: "n" },
];

export function drawPipeline(section) {
  const table = byId("partition-table");
  tableHead(table, PARTITIONS);
  keyed(table.tBodies[0], section.partitions, (row) => row.partition, () => tableRow(PARTITIONS), (row, item) => {
    const cells = row.cells;
    setText(cells[0], item.partition);
    setText(cells[1], item.owner === "here" ? "this worker" : (item.owner ?? "not known here"));
    setAttribute(cells[1], "title", cells[1].textContent);
    setText(cells[2], count(item.lag));
    setClass(cells[2], item.lag > 200 ? "n warning" : "n");
    setAge(cells[3], item.journal_ms);
    setText(cells[4], item.checkpoint_age_s === null ? "–" : `${count(item.checkpoint_age_s)} s`);
  });
  const latency = section.latency;
  const bound = (ms) => (ms === null ? "–" : `≤ ${count(ms)} ms`);
  setText(byId("latency"), latency?.count ? `p50 ${bound(latency.p50_ms)} · p99 ${bound(latency.p99_ms)} of ${count(latency.count)}` : "");
  const notes = section.feeds.filter((each) => each.problem).map((each) => `${each.feed}: ${each.problem}.`);
  if (section.problem) notes.unshift(section.problem);
  if (section.role === "dashboard") notes.push("Lag, journal and checkpoints are with the workers: open the page of one.");
  setText(byId("pipeline-note"), notes.join(" "));
}

// -- dead letters ----------------------------------------------------------------------------------------------------
export function drawDeadLetters(section) {
  const select = byId("code");
  const codes = Object.entries(section.codes);
  keyed(select, codes, ([code]) => code, () => element("option"), (option, [code, number]) => {
    option.value = code;
    setText(option, `${code} (${number})`);
  });
  select.onchange = () => drawDeadLetters(section);
  const letters = section.letters.filter((each) => !select.value || String(each.code) === select.value).slice(0, 50);
  keyed(byId("letter-list"), letters, (each) => `${each.topic}/${each.partition}/${each.offset}`, makeLetter, fillLetter);
  show(byId("letter-list").parentElement, letters.length > 0);
  setText(byId("letters-note"), section.problem || (letters.length ? "" : "No dead letter."));
}

function makeLetter() {
  const item = element("li", "warning");
  item.append(element("b"), element("span", "where"), element("span", "since n"), element("span", "text"), commandLine(""));
  item.children[2].dataset.wall = "";
  return item;
}

function fillLetter(node, item) {
  const [code, where, since, text, command] = node.children;
  setText(code, item.code ?? "no reason");
  setText(where, `${item.topic}.dlq/${item.partition}/${item.offset}${item.field ? ` · ${item.field}` : ""}`);
  setAge(since, item.time_ms);
  setText(text, item.message);
  setCommand(command, item.command);
}

// -- orders ----------------------------------------------------------------------------------------------------------
export function drawOrders(section) {
  const commands = Object.values(section.commands);
  keyed(byId("order-commands"), commands, (text) => text, commandLine, (line, text) => setCommand(line, text));
  keyed(byId("in-force"), section.in_force, (each) => each.scope, makeForce, fillForce);
  keyed(byId("order-list"), section.orders.slice(0, 60), (each) => each.control_id, makeOrder, fillOrder);
  show(byId("order-list").parentElement, section.orders.length > 0);
  const notes = [];
  if (section.problem) notes.push(`Orders: ${section.problem}. Only the answers are shown.`);
  if (!section.in_force.length) notes.push(section.in_force_known ? "Everything is ACTIVE." : "No halt among the orders read.");
  if (!section.orders.length) notes.push("No order yet.");
  setText(byId("orders-note"), notes.join(" "));
}

function makeForce() {
  const item = element("li");
  item.append(element("span", "mark"), element("b"), element("span", "where"), element("span", "text"), element("span", "since n"), commandLine(""));
  return item;
}

function fillForce(node, item) {
  const [mark, word, where, text, since, command] = node.children;
  setClass(node, item.state === "HALTED" ? "critical" : "warning");
  setText(mark, "▲");
  setText(word, item.state);
  setText(where, item.scope);
  setText(text, item.by ? `${item.by}: ${item.reason}` : "who and why is not among the orders read");
  setAge(since, item.ordered_ms ?? null);
  setCommand(command, item.command);
}

function makeOrder() {
  const item = element("li");
  item.append(element("b"), element("span", "where"), element("span", "text"), element("span", "since n"), element("span", "answers"), element("ul", "differences"));
  return item;
}

function fillOrder(node, item) {
  const [kind, where, text, since, answers, differences] = node.children;
  setText(kind, item.kind ?? "order");
  const what = item.what ? Object.entries(item.what).map(([name, value]) => `${name}=${String(value).slice(0, 24)}`).join(" ") : "";
  setText(where, what || item.control_id);
  setAttribute(where, "title", item.control_id);
  setText(text, item.by ? `${item.by}: ${item.reason}` : "");
  setAge(since, item.ordered_ms ?? item.answered_ms);
  setAttribute(since, "title", instant(item.ordered_ms ?? item.answered_ms));
  const given = new Map();
  for (const answer of Object.values(item.answers)) given.set(answer, (given.get(answer) ?? 0) + 1);
  setText(answers, [...given].map(([answer, number]) => `${answer} ×${number}`).join(", ") || "no answer read");
  setClass(node, [...given.keys()].some((answer) => answer !== "applied" && answer !== "no_op") ? "warning" : "");
  keyed(differences, item.differences ?? [], ([key]) => key, () => element("li"), (line, [key, before, after]) => setText(line, `${key}: ${before} → ${after}`));
}
