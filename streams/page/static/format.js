// Numbers and times as text. Unknown is a dash, never a zero.

const cents = new Intl.NumberFormat("en-US", { minimumFractionDigits: 2, maximumFractionDigits: 2 });
const whole = new Intl.NumberFormat("en-US", { maximumFractionDigits: 0 });
const coins = new Intl.NumberFormat("en-US", { maximumFractionDigits: 8 });
const prices = new Intl.NumberFormat("en-US", { maximumSignificantDigits: 8 });
export const UNKNOWN = "–";

const minus = (text) => text.replace("-", "−");
const known = (value) => value !== null && value !== undefined;

export const usd = (value) => (known(value) ? minus(cents.format(value)) : UNKNOWN);
export const wholeUsd = (value) => (known(value) ? minus(whole.format(value)) : UNKNOWN);
export const signedUsd = (value) => (known(value) ? (value >= 0.005 ? "+" : "") + usd(Math.abs(value) < 0.005 ? 0 : value) : UNKNOWN);
export const quantity = (value) => (known(value) ? minus(coins.format(value)) : UNKNOWN);
export const price = (value) => (known(value) ? prices.format(value) : UNKNOWN);
const fixed = (value, digits) => minus(value.toFixed(digits).replace(/^-(?=0(\.0*)?$)/, ""));
export const percent = (value, digits = 1) => (known(value) ? `${fixed(100 * value, digits)} %` : UNKNOWN);
export const number = (value, digits = 2) => (known(value) ? fixed(value, digits) : UNKNOWN);
export const signed = (value, digits = 2) => (known(value) ? (value > 0 ? "+" : "") + number(value, digits) : UNKNOWN);
export const count = (value) => (known(value) ? whole.format(value) : UNKNOWN);

export function sideOf(value) {
  return value > 0 ? "long" : value < 0 ? "short" : "";
}

export function age(ms) {
  const seconds = Math.max(0, ms) / 1000;
  if (seconds < 120) return `${seconds < 10 ? seconds.toFixed(1) : Math.round(seconds)} s`;
  if (seconds < 7200) return `${Math.round(seconds / 60)} min`;
  if (seconds < 172800) return `${Math.round(seconds / 3600)} h`;
  return `${Math.round(seconds / 86400)} d`;
}

export function clock(ms) {
  return known(ms) ? new Date(ms).toISOString().slice(11, 19) : UNKNOWN;
}

export function instant(ms) {
  return known(ms) ? `${new Date(ms).toISOString().slice(0, 19).replace("T", " ")} UTC` : UNKNOWN;
}

export const WORDS = {
  deciding: ["●", "Deciding"],
  late: ["◐", "Late"],
  not_ready: ["▲", "Not ready"],
  following: ["◆", "Following"],
  reading: ["○", "Reading"],
  unread: ["▲", "Not read"],
  disconnected: ["✕", "Disconnected"],
  connecting: ["○", "Connecting"],
};
