"use strict";
// Sort and filter the tables of queries, open all sections, or the one that a link points to. The page is complete without this script.

function cellOf(row, column) {
  return row.cells[column];
}

function valueOf(row, column) {
  const text = cellOf(row, column).dataset.value;
  return text === "" ? null : Number(text);
}

function sortBy(table, heading, column) {
  const ascending = heading.getAttribute("aria-sort") !== "ascending";
  for (const other of table.tHead.querySelectorAll("th[aria-sort]")) other.setAttribute("aria-sort", "none");
  heading.setAttribute("aria-sort", ascending ? "ascending" : "descending");
  const rows = Array.from(table.tBodies[0].rows, (row) => [valueOf(row, column), row]);
  rows.sort(([a], [b]) => (a === null) - (b === null) || (ascending ? a - b : b - a)); // rows without a value stay at the end
  table.tBodies[0].append(...rows.map(([, row]) => row));
}

function filter(form) {
  const rows = Array.from(document.getElementById(form.dataset.table).tBodies[0].rows);
  const words = form.elements.text.value.toLowerCase().split(/\s+/).filter(Boolean);
  const flag = form.elements.flag.value;
  let shown = 0;
  for (const row of rows) {
    const matches = words.every((word) => row.dataset.text.includes(word)) && (!flag || row.dataset.flags.split(" ").includes(flag));
    row.hidden = !matches;
    sectionOf(row).hidden = !matches;
    shown += matches;
  }
  form.querySelector("output").value = shown === rows.length ? `${rows.length} queries` : `${shown} of ${rows.length} queries`;
}

function sectionOf(row) {
  return document.getElementById(decodeURIComponent(row.cells[0].querySelector("a").hash.slice(1)));
}

function openShown(form) {
  const rows = Array.from(document.getElementById(form.dataset.table).tBodies[0].rows);
  const sections = rows.filter((row) => !row.hidden).map(sectionOf);
  const open = sections.some((section) => !section.open);
  for (const section of sections) section.open = open;
  form.querySelector("button").textContent = open ? "close all" : "open all";
}

function openTarget() {
  const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (target instanceof HTMLDetailsElement) {
    target.hidden = false;
    target.open = true;
    target.scrollIntoView();
  }
}

for (const table of document.querySelectorAll("table.queries")) {
  const [first, second] = table.tHead.rows;
  const headings = [...Array.from(first.cells).slice(0, 2), ...second.cells];
  headings.forEach((heading, column) => {
    heading.setAttribute("aria-sort", "none");
    heading.querySelector("button").addEventListener("click", () => sortBy(table, heading, column));
  });
}
for (const form of document.querySelectorAll("form.filter")) {
  form.addEventListener("input", () => filter(form));
  form.querySelector("button").addEventListener("click", () => openShown(form));
  form.addEventListener("submit", (event) => event.preventDefault());
  filter(form);
}
addEventListener("hashchange", openTarget);
openTarget();
