// Starts the page: connects, keeps the newest of each section, and draws what changed, at most once a frame.

import { byId, element, keyed, setAttribute, setText, show } from "./dom.js";
import { age, instant } from "./format.js";
import { Stream } from "./stream.js";
import { drawAttention, drawDeadLetters, drawOrders, drawPipeline, drawVerdict } from "./operations.js";
import { drawBudgets, drawTargets, startTargets } from "./targets.js";
import { drawDecisions, startDecisions } from "./decisions.js";
import { drawCorrelations, drawMarkets } from "./markets.js";
import { drawPolicy, drawStrategies } from "./learning.js";

const STALE_MS = 3000;
const GONE_MS = 10000;
const PANELS = [
  ["attention", "Attention"], ["view", "Targets"], ["budgets", "Budgets"], ["decisions", "Decisions"],
  ["markets", "Markets"], ["correlations", "Correlations"], ["strategies", "Strategies"], ["policy", "Policy"],
  ["pipeline", "Pipeline"], ["dead-letters", "Dead letters"], ["orders", "Orders"],
];

const state = { sections: {}, beatAt: 0, trouble: "", offset: 0, rate: 1 };
const dirty = new Set();
const page = { state, redraw, stream: null, now };

const DRAW = {
  verdict: drawVerdict,
  attention: drawAttention,
  view: (view) => {
    drawTargets(page, view);
    drawBudgets(page, view);
  },
  decisions: (decisions) => drawDecisions(page, decisions),
  markets: drawMarkets,
  correlations: drawCorrelations,
  strategies: drawStrategies,
  policy: drawPolicy,
  pipeline: drawPipeline,
  "dead-letters": drawDeadLetters,
  orders: drawOrders,
};

// -- what comes in ---------------------------------------------------------------------------------------------------
function take(name, value) {
  state.sections[name] = value;
  if (name === "verdict") beat(value);
  redraw(name);
}

// The workers' clock at this moment: as of the last beat, moved on at its own rate (the demo's runs faster).
function now() {
  return state.clockMs === undefined ? Date.now() : state.clockMs + state.rate * (performance.now() - state.beatAt);
}

function beat(verdict) {
  const at = performance.now();
  if (state.clockMs !== undefined && at - state.beatAt > 100) {
    const rate = (verdict.now_ms - state.clockMs) / (at - state.beatAt);
    state.rate = rate > 0.5 && rate < 2 ? 1 : Math.max(0, Math.min(rate, 1e5));
  }
  state.clockMs = verdict.now_ms;
  state.wallMs = verdict.wall_ms;
  state.beatAt = at;
  state.trouble = "";
}

let frame = 0;
function redraw(name) {
  dirty.add(name);
  if (!frame) frame = requestAnimationFrame(draw);
}

function draw() {
  frame = 0;
  const began = performance.now();
  for (const name of dirty) if (state.sections[name]) DRAW[name]?.(state.sections[name]);
  dirty.clear();
  tickAges();
  judge();
  performance.clearMeasures("draw");
  performance.measure("draw", { start: began });
}

// -- ages and liveness -----------------------------------------------------------------------------------------------
function tickAges() {
  const moment = now();
  for (const node of document.querySelectorAll("[data-ms]")) {
    const ms = Number(node.dataset.ms);
    setText(node, node.dataset.wall === undefined ? age(moment - ms) : age(Date.now() - ms));
  }
}

function judge() {
  const root = document.documentElement;
  const silent = state.beatAt ? performance.now() - state.beatAt : Infinity;
  const gone = silent > GONE_MS && (state.beatAt > 0 || state.trouble);
  const word = gone ? "disconnected" : silent === Infinity ? "connecting" : silent > STALE_MS ? "stale" : "live";
  if (root.dataset.state !== word) {
    const before = root.dataset.state;
    root.dataset.state = word;
    if (word === "disconnected") announce("Disconnected. The values shown are old.");
    if (word === "live" && before === "disconnected") announce("Connected again.");
    if (word === "live" && before === "connecting") announce("Connected.");
  }
  const asOf = byId("as-of");
  show(asOf, word === "stale" || word === "disconnected");
  const shown = state.wallMs === undefined ? "" : `as of ${instant(state.wallMs).slice(11)}`;
  const text = word === "stale" ? `No news for 3 s. Values ${shown}.` : `Disconnected${shown && `, values ${shown}`}${state.trouble && `: ${state.trouble}`}.`;
  setText(asOf, text);
  if (word === "disconnected" || word === "connecting") drawVerdict(null, word, state.trouble);
}

function announce(text) {
  byId("announce").textContent = text;
}

// -- token, theme, panels --------------------------------------------------------------------------------------------
function askForToken(wrong) {
  show(byId("gate"), true);
  show(byId("main"), false);
  setText(byId("gate-error"), wrong ? "This token is not accepted." : "");
  byId("token").focus();
}

byId("gate").addEventListener("submit", (event) => {
  event.preventDefault();
  page.stream.token = byId("token").value.trim();
  byId("token").value = "";
  show(byId("gate"), false);
  show(byId("main"), true);
  page.stream.open();
});

const THEMES = ["system", "dark", "light"];
function setTheme(name) {
  setAttribute(document.documentElement, "data-theme", name === "system" ? null : name);
  setText(byId("theme"), `Theme: ${name}`);
  localStorage.setItem("theme", name);
}
byId("theme").addEventListener("click", () => {
  const at = THEMES.indexOf(localStorage.getItem("theme") ?? "system");
  setTheme(THEMES[(at + 1) % THEMES.length]);
});
setTheme(THEMES.includes(localStorage.getItem("theme")) ? localStorage.getItem("theme") : "system");

keyed(byId("panels"), PANELS, ([id]) => id, ([id, title]) => {
  const item = element("li");
  const link = element("a", "", title);
  link.href = `#${id}`;
  item.append(link);
  return item;
}, () => {});

startTargets(page);
startDecisions(page);
page.stream = new Stream({
  onEvent: take,
  onRefused: askForToken,
  onTrouble: (text) => {
    state.trouble = text;
    judge();
  },
});
page.stream.open();
setInterval(() => {
  tickAges();
  judge();
}, 500);
