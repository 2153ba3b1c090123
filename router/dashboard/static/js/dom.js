/**
 * Building the page: elements, text and icons. All text goes in as text nodes; nothing here parses markup.
 * Owns no state but a counter of ids. Must never set style attributes or markup from strings (the CSP forbids both).
 */

const SVG = "http://www.w3.org/2000/svg";
const PROPERTIES = new Set(["value", "checked", "selected", "indeterminate", "disabled", "open"]);
let ids = 0;

/**
 * An HTML element. `h("button", {class: "button", onclick: save, disabled: busy}, "Save")`
 * @param {string} tag
 * @param {Object<string, *>|null} [props] attributes; `on...` with a function listens; null, undefined and false are left
 *   out, true is an empty attribute; `class` may be an array (falsy parts left out); `dataset` an object
 * @param {...(Node|string|number|null|undefined|false|Array)} children
 * @returns {HTMLElement}
 */
export function h(tag, props, ...children) {
  return build(document.createElement(tag), props, children);
}

/** The same for SVG elements. */
export function svg(tag, props, ...children) {
  return build(document.createElementNS(SVG, tag), props, children);
}

function build(element, props, children) {
  for (const [name, value] of Object.entries(props ?? {})) {
    setProperty(element, name, value);
  }
  element.append(...nodesOf(children));
  return element;
}

function setProperty(element, name, value) {
  if (name.startsWith("on") && typeof value === "function") {
    element.addEventListener(name.slice(2).toLowerCase(), value);
  } else if (name === "class") {
    const names = Array.isArray(value) ? value.filter(Boolean).join(" ") : value;
    if (names) element.setAttribute("class", names);
  } else if (name === "dataset") {
    Object.assign(element.dataset, value);
  } else if (name === "style") {
    throw new Error("No style attributes: use a class.");
  } else if (PROPERTIES.has(name) && name in element) {
    if (value !== undefined && value !== null) element[name] = value;
  } else if (value === true) {
    element.setAttribute(name, "");
  } else if (value !== null && value !== undefined && value !== false) {
    element.setAttribute(name, String(value));
  }
}

function nodesOf(children) {
  return children
    .flat(Infinity)
    .filter((child) => child !== null && child !== undefined && child !== false && child !== "")
    .map((child) => (child instanceof Node ? child : document.createTextNode(String(child))));
}

/**
 * Put these children in place of whatever the element holds.
 * @template {Element} T
 * @param {T} element
 * @returns {T}
 */
export function replace(element, ...children) {
  element.replaceChildren(...nodesOf(children));
  return element;
}

/** Set a text only where it differs, so that screen readers and selections are left alone. */
export function setText(element, text) {
  if (element.textContent !== String(text)) element.textContent = String(text);
}

/** An id that no other element has. @param {string} prefix */
export function uniqueId(prefix) {
  ids += 1;
  return `${prefix}-${ids}`;
}

/** The element that was given `dataset: {focus: name}`, also after it was drawn again. @param {string|undefined} name */
export function findFocus(name) {
  return name ? document.querySelector(`[data-focus="${CSS.escape(name)}"]`) : null;
}

/** Text for screen readers only. */
export function hidden(text) {
  return h("span", { class: "visually-hidden" }, text);
}

const ICONS = {
  overview: "M3 13h5V3H3zM12 17h5V9h-5zM3 17h5M12 3h5v2.5h-5z",
  keys: "M12.5 11a4 4 0 1 0-3.6-2.2L3 14.7V17h2.6v-1.9h2V13h1.7l1-1.1a4 4 0 0 0 2.2-.9zM13.4 6.6h.01",
  vaults: "M3 5.5C3 4.1 6.1 3 10 3s7 1.1 7 2.5S13.9 8 10 8 3 6.9 3 5.5zM3 5.5v9C3 15.9 6.1 17 10 17s7-1.1 7-2.5v-9M3 10c0 1.4 3.1 2.5 7 2.5s7-1.1 7-2.5",
  providers: "M7 3v4M13 3v4M5 7h10v2.5a5 5 0 0 1-10 0zM10 14.5V17",
  playground: "M3 4.5h14v9H9l-3.5 3v-3H3zM6.5 8h7M6.5 10.5h4",
  usage: "M3 17h14M5.5 14V9M10 14V4M14.5 14v-7",
  settings: "M3 6h8M15 6h2M3 14h2M9 14h8M13 8a2 2 0 1 0 0-4 2 2 0 0 0 0 4zM7 16a2 2 0 1 0 0-4 2 2 0 0 0 0 4z",
  cluster: "M7.5 3h5v4h-5zM3 13h5v4H3zM12 13h5v4h-5zM10 7v3M5.5 13v-3h9v3",
  audit: "M5 3h10v14H5zM7.5 7h5M7.5 10h5M7.5 13h3",
  copy: "M7 7h9v9H7zM4 13V4h9",
  clock: "M10 17a7 7 0 1 0 0-14 7 7 0 0 0 0 14zM10 6v4.2l2.8 1.8",
  gauge: "M4.2 15a7.5 7.5 0 1 1 11.6 0M10 11.5l3.5-4",
  check: "M4 10.5l4 4 8-9",
  close: "M5 5l10 10M15 5L5 15",
  plus: "M10 4v12M4 10h12",
  search: "M9 14.5a5.5 5.5 0 1 0 0-11 5.5 5.5 0 0 0 0 11zM13 13l4 4",
  more: "M5 10h.01M10 10h.01M15 10h.01",
  menu: "M3 5.5h14M3 10h14M3 14.5h14",
  sun: "M10 13.5a3.5 3.5 0 1 0 0-7 3.5 3.5 0 0 0 0 7zM10 2v1.5M10 16.5V18M2 10h1.5M16.5 10H18M4.3 4.3l1.1 1.1M14.6 14.6l1.1 1.1M15.7 4.3l-1.1 1.1M5.4 14.6l-1.1 1.1",
  moon: "M16.5 11.5A7 7 0 0 1 8.5 3.5a7 7 0 1 0 8 8z",
  auto: "M10 3a7 7 0 1 0 0 14zM10 3a7 7 0 0 1 0 14",
  leave: "M12 6V3.5H3.5v13H12V14M8 10h9M14 7l3 3-3 3",
  left: "M12.5 4.5L7 10l5.5 5.5",
  right: "M7.5 4.5L13 10l-5.5 5.5",
  warning: "M10 3l7.5 13.5h-15zM10 8v4M10 14.3h.01",
  info: "M10 17a7 7 0 1 0 0-14 7 7 0 0 0 0 14zM10 9.3v4M10 6.6h.01",
  trash: "M4 5.5h12M8 5.5V3.5h4v2M5.5 5.5l.8 11h7.4l.8-11M8.5 8.5v5M11.5 8.5v5",
  edit: "M4 16l.8-3.4L13 4.4a1.7 1.7 0 0 1 2.5 2.5l-8.2 8.2zM11.5 6l2.5 2.5",
  undo: "M7.5 4L4 7.5 7.5 11M4 7.5h7.5a4.5 4.5 0 0 1 0 9H8",
  download: "M10 3v9M6.5 8.5L10 12l3.5-3.5M4 16.5h12",
  upload: "M10 12.5V3.5M6.5 7L10 3.5 13.5 7M4 16.5h12",
  play: "M6 4l10 6-10 6z",
  stop: "M5.5 5.5h9v9h-9z",
  refresh: "M16 10a6 6 0 1 1-1.8-4.3M16.5 3v3.5H13",
};

/**
 * A line icon of 20 by 20, hidden from screen readers: give its button a label.
 * @param {keyof typeof ICONS} name
 */
export function icon(name) {
  return svg(
    "svg",
    { class: "icon", viewBox: "0 0 20 20", "aria-hidden": "true", focusable: "false" },
    svg("path", { d: ICONS[name] ?? ICONS.info }),
  );
}
