"use strict";
// Elements. Whatever comes out of the document becomes a text node or an attribute, never markup.

const SVG = "http://www.w3.org/2000/svg";

function filled(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined));
  return element;
}

function h(name, attributes, ...children) {
  return filled(document.createElement(name), attributes, children);
}

function s(name, attributes, ...children) {
  return filled(document.createElementNS(SVG, name), attributes, children);
}

// columns: label, number (aligned right), title. rows: arrays of texts and elements; a cell may be {cell, best}.
function table(columns, rows, caption) {
  const kind = (column) => (column.number ? "number" : null);
  const cell = (value, place) => {
    const { cell: content, best } = value?.cell === undefined ? { cell: value } : value;
    if (place === 0) return h("th", { scope: "row", class: kind(columns[0]) }, content);
    return h("td", { class: [kind(columns[place]), best ? "best" : null].filter(Boolean).join(" ") || null }, content);
  };
  return h("div", { class: "scroll" },
    h("table", null,
      caption ? h("caption", null, caption) : null,
      h("thead", null, h("tr", null, columns.map((column) =>
        h("th", { scope: "col", class: kind(column), title: column.title }, column.label)))),
      h("tbody", null, rows.map((row) => h("tr", null, row.map(cell))))));
}

function choice(label, options, onchange) {
  const select = h("select", { onchange: () => onchange(select.value) },
    options.map(([value, text]) => h("option", { value }, text)));
  return h("label", null, label, select);
}

function section(id, title, ...children) {
  return h("section", { id, "aria-labelledby": `${id}-title` }, h("h2", { id: `${id}-title` }, title), children);
}

function figure(caption, ...children) {
  return h("figure", null, h("figcaption", null, caption), children);
}

const METRICS = { mrr: "MRR" };
const metricName = (metric) => METRICS[metric] ?? metric.replace(/^(hr|ndcg)_/, (_, name) => `${name.toUpperCase()}@`)
  .replace(/^coverage_/, "coverage@");
const fixed = (value, digits = 4) => (value === null || value === undefined ? "–" : value.toFixed(digits));
const signed = (value, digits = 4) => (value < 0 ? "−" : "+") + Math.abs(value).toFixed(digits);
const count = (value) => value.toLocaleString("en");
const percent = (value, digits = 1) => `${(100 * value).toFixed(digits)} %`;
const colour = (place) => `s${place % 8}`;
