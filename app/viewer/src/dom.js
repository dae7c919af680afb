// Small helpers to build the page's elements. Text is only ever put in as text.

export function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === undefined || value === null || value === false) continue;
    if (name === "text") made.textContent = value;
    else if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else made.setAttribute(name, value === true ? "" : value);
  }
  made.append(...children.filter(Boolean));
  return made;
}

/**
 * A list to choose from. After a choice by the pointer the focus goes on to `next()`, so that keys
 * act on the images again; the keyboard stays, to step through the list.
 */
export function choice(label, act, next) {
  let pointed = false;
  const made = element("select", {
    "aria-label": label,
    title: label,
    onpointerdown: () => {
      pointed = true;
    },
    onkeydown: () => {
      pointed = false;
    },
    onchange: () => {
      act(made.value);
      if (pointed) next().focus({ preventScroll: true });
      pointed = false;
    },
  });
  return made;
}

const SVG = "http://www.w3.org/2000/svg";

/** A drawing of lines in a square of 16 units. */
export function icon(path, attributes = {}) {
  const drawing = document.createElementNS(SVG, "svg");
  const all = { viewBox: "0 0 16 16", "aria-hidden": "true", class: "icon", ...attributes };
  for (const [name, value] of Object.entries(all)) drawing.setAttribute(name, value);
  for (const one of [].concat(path)) {
    const line = document.createElementNS(SVG, "path");
    // "#" marks an area that is filled.
    if (one.startsWith("#")) line.setAttribute("class", "solid");
    line.setAttribute("d", one.replace("#", ""));
    drawing.append(line);
  }
  return drawing;
}

/** Fills {name} in a text. */
export function filled(text, values = {}) {
  return text.replace(/\{(\w+)\}/g, (whole, name) => (name in values ? String(values[name]) : whole));
}

/** Sets a text only where it differs, so that nothing is laid out anew in vain. */
export function write(node, text) {
  if (node.textContent !== text) node.textContent = text;
}
