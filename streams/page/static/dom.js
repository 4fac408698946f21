// Small helpers: text only through textContent, attributes only when they change, rows by key.

export const byId = (id) => document.getElementById(id);

export function element(name, className = "", text = "") {
  const made = document.createElement(name);
  if (className) made.className = className;
  if (text) made.textContent = text;
  return made;
}

export function setText(node, text) {
  const value = String(text);
  if (node.textContent !== value) node.textContent = value;
}

export function setClass(node, className) {
  if (node.className !== className) node.className = className;
}

export function setAttribute(node, name, value) {
  if (value === null || value === undefined) node.removeAttribute(name);
  else if (node.getAttribute(name) !== String(value)) node.setAttribute(name, value);
}

export function show(node, visible) {
  if (node.hidden === visible) node.hidden = !visible;
}

// Keep one child of `parent` for each item, in order. A child is made once for a key, then filled again and again,
// so focus and scroll position stay where they are.
export function keyed(parent, items, keyOf, make, fill) {
  const known = parent.keyedNodes ?? (parent.keyedNodes = new Map());
  const wanted = new Set();
  let place = parent.firstElementChild;
  for (const item of items) {
    const key = keyOf(item);
    if (wanted.has(key)) continue;
    wanted.add(key);
    let node = known.get(key);
    if (!node) {
      node = make(item);
      known.set(key, node);
    }
    fill(node, item);
    if (node === place) place = place.nextElementSibling;
    else parent.insertBefore(node, place);
  }
  for (const [key, node] of known) {
    if (!wanted.has(key)) {
      node.remove();
      known.delete(key);
    }
  }
}

// A table with fixed columns: {title, kind: "n" | "t", width, hint}.
export function tableHead(table, columns) {
  const head = table.tHead;
  if (head.rows.length) return;
  const row = head.insertRow();
  for (const column of columns) {
    const cell = element("th", column.kind === "n" ? "n" : "");
    cell.scope = "col";
    if (column.title) cell.textContent = column.title;
    if (column.hint) cell.title = column.hint;
    if (column.className) cell.classList.add(column.className);
    row.append(cell);
  }
}

export function tableRow(columns) {
  const row = element("tr");
  columns.forEach((column, place) => {
    const cell = element(place === 0 ? "th" : "td", column.kind === "n" ? "n" : "");
    if (place === 0) cell.scope = "row";
    if (column.className) cell.classList.add(column.className);
    row.append(cell);
  });
  return row;
}

// A moment whose age is kept up to date by `tickAges`.
export function setAge(node, ms) {
  if (ms === null || ms === undefined) {
    delete node.dataset.ms;
    setText(node, "–");
  } else if (node.dataset.ms !== String(ms)) {
    node.dataset.ms = String(ms);
    node.textContent = "";
  }
}

export function commandLine(text) {
  const line = element("span", "command");
  const code = element("code", "", text);
  const button = element("button", "copy", "Copy");
  button.type = "button";
  button.addEventListener("click", () => copy(code, button));
  line.append(code, button);
  return line;
}

export function setCommand(line, text) {
  setText(line.firstElementChild, text);
  setAttribute(line.lastElementChild, "aria-label", `Copy ${text}`);
}

export async function copy(code, button) {
  try {
    await navigator.clipboard.writeText(code.textContent);
    told(button, "Copied");
  } catch {
    getSelection().selectAllChildren(code);
    told(button, "Selected");
  }
}

function told(button, text) {
  const before = button.dataset.label ?? (button.dataset.label = button.textContent);
  button.textContent = text;
  byId("announce").textContent = text;
  setTimeout(() => {
    button.textContent = before;
  }, 1500);
}
