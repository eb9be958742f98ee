"use strict";
// Sort, filter and open the queries of a table, by mouse and by key. Without this script every query is open, unless the details are packed.

const packed = new Map(); // SQL and HTML of the details by the id of a query, if they are packed
const bodiesOf = (table) => Array.from(table.tBodies);
const sqlOf = (body) => body.querySelector(".sql")?.textContent ?? packed.get(body.id)?.[0] ?? "";
const linkOf = (body) => body.rows[0].cells[0].querySelector("a");

function valueOf(body, column) {
  const cell = body.rows[0].cells[column];
  const text = (cell.dataset.value || cell.textContent).replace(/[≥,]/g, "").trim();
  const value = { other: 1, same: 0 }[text.split(/\s/)[0]] ?? parseFloat(text);
  return Number.isNaN(value) ? null : value;
}

function sortBy(table, heading, column) {
  const ascending = heading.getAttribute("aria-sort") !== "ascending";
  for (const other of table.tHead.querySelectorAll("th[aria-sort]")) other.setAttribute("aria-sort", "none");
  heading.setAttribute("aria-sort", ascending ? "ascending" : "descending");
  const bodies = bodiesOf(table).map((body) => [valueOf(body, column), body]);
  bodies.sort(([a], [b]) => (a === null) - (b === null) || (ascending ? a - b : b - a)); // queries without a value stay at the end
  table.append(...bodies.map(([, body]) => body));
}

function filter(form) {
  const bodies = bodiesOf(document.getElementById(form.dataset.table));
  const words = form.elements.text.value.toLowerCase().split(/\s+/).filter(Boolean);
  const flag = form.elements.flag.value;
  let shown = 0;
  for (const body of bodies) {
    const text = `${linkOf(body).textContent} ${sqlOf(body)}`.toLowerCase();
    body.hidden = !(words.every((word) => text.includes(word)) && (!flag || body.dataset.flags.split(" ").includes(flag)));
    shown += !body.hidden;
  }
  const count = shown === bodies.length ? "" : `${shown} of `;
  form.querySelector("output").value = `${count}${bodies.length} ${bodies.length === 1 ? "query" : "queries"}`;
}

function open(body, opened = true) {
  body.classList.toggle("open", opened);
  linkOf(body).setAttribute("aria-expanded", opened);
  if (!opened) return;
  if (body.rows.length === 1 && packed.has(body.id)) body.insertAdjacentHTML("beforeend", packed.get(body.id)[1]);
  const plans = body.querySelector(".plans");
  if (plans && !plans.querySelector(".legend")) plans.prepend(body.closest(".run").querySelector(".legend").cloneNode(true));
  scrollByKey(body);
}

function scrollByKey(root) { // what scrolls must be in reach of the keyboard
  for (const area of root.querySelectorAll(".plan, .scroll")) {
    const scrolls = area.scrollWidth > area.clientWidth;
    area.toggleAttribute("tabindex", scrolls);
    if (scrolls) {
      area.tabIndex = 0;
      area.setAttribute("role", "group");
      area.setAttribute("aria-label", (area.querySelector("caption") || area.querySelector("th")).textContent);
    }
  }
}

function fit() { // a table that fits keeps its headings in sight; one that is wider scrolls sideways instead of the page
  for (const table of document.querySelectorAll("table.queries")) table.classList.toggle("fits", table.offsetWidth <= table.parentElement.clientWidth);
  scrollByKey(document);
}

function openAll(form) {
  const bodies = bodiesOf(document.getElementById(form.dataset.table)).filter((body) => !body.hidden);
  const opened = bodies.some((body) => !body.classList.contains("open"));
  for (const body of bodies) open(body, opened);
  form.querySelector("button").textContent = opened ? "close all" : "open all";
}

function openTarget() {
  const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (target instanceof HTMLTableSectionElement) show(target);
}

function show(body) {
  body.hidden = false;
  open(body);
  body.scrollIntoView();
  linkOf(body).focus({ preventScroll: true });
}

function step(by) {
  const current = document.activeElement.closest(".queries > tbody") || document.querySelector(".queries > tbody.open");
  const table = current ? current.parentElement : document.querySelector("table.queries");
  const bodies = bodiesOf(table).filter((body) => !body.hidden);
  const next = current ? bodies[bodies.indexOf(current) + by] : bodies[0];
  if (!next) return;
  if (current) open(current, false);
  show(next);
}

async function unpack(block) {
  const bytes = Uint8Array.from(atob(block.textContent), (character) => character.charCodeAt(0));
  const details = await new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"))).json();
  for (const [id, detail] of Object.entries(details)) packed.set(id, detail);
  const run = block.closest(".run");
  run.querySelector(".unpacking").remove();
  filter(run.querySelector("form.filter"));
  for (const body of run.querySelectorAll(".queries > tbody.open")) open(body); // those that could not wait
}

function moveInChart(event) {
  const marks = Array.from(event.currentTarget.querySelectorAll("a"));
  const by = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
  if (!by || !marks.length) return;
  const at = marks.indexOf(document.activeElement);
  marks[at < 0 ? 0 : Math.min(Math.max(at + by, 0), marks.length - 1)].focus();
  event.preventDefault();
}

document.documentElement.classList.add("js");
for (const table of document.querySelectorAll("table.queries")) {
  const [first, second] = table.tHead.rows;
  const headings = [...Array.from(first.cells).slice(0, 2), ...second.cells];
  headings.forEach((heading, column) => {
    heading.setAttribute("aria-sort", "none");
    heading.querySelector("button").addEventListener("click", () => sortBy(table, heading, column));
  });
  for (const body of table.tBodies) linkOf(body).setAttribute("aria-expanded", "false");
  table.addEventListener("click", (event) => {
    const row = event.target.closest("tr");
    const body = row && row.parentElement;
    if (!body || body.parentElement !== table || row !== body.rows[0] || body.tagName !== "TBODY" || String(getSelection())) return;
    event.preventDefault();
    open(body, !body.classList.contains("open"));
    history.replaceState(null, "", body.classList.contains("open") ? linkOf(body).hash : " ");
  });
}
for (const form of document.querySelectorAll("form.filter")) {
  form.addEventListener("input", () => filter(form));
  form.querySelector("button").addEventListener("click", () => openAll(form));
  form.addEventListener("submit", (event) => event.preventDefault());
  filter(form);
}
for (const chart of document.querySelectorAll("figure svg")) {
  for (const mark of chart.querySelectorAll("a")) mark.tabIndex = -1; // a chart is one stop for Tab; arrow keys go through its queries
  chart.addEventListener("keydown", moveInChart);
}
addEventListener("keydown", (event) => {
  const by = { j: 1, k: -1 }[event.key];
  if (by && !event.ctrlKey && !event.metaKey && !event.altKey && !event.target.closest("input, select, textarea")) step(by);
});
const folded = () => document.querySelectorAll("details:not([open])");
addEventListener("beforeprint", () => { for (const part of folded()) part.open = part.classList.toggle("unfolded", true); });
addEventListener("afterprint", () => { for (const part of document.querySelectorAll(".unfolded")) part.open = part.classList.toggle("unfolded", false); });
addEventListener("hashchange", openTarget);
addEventListener("resize", fit);
fit();
openTarget();
for (const block of document.querySelectorAll("script.details")) unpack(block);
