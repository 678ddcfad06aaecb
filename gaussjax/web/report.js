// A report's tables sort by a click on a column, and its pairs of pictures are compared under a wipe.

for (const input of document.querySelectorAll(".pair input"))
  input.addEventListener("input", () => input.parentElement.style.setProperty("--wipe", `${input.value}%`));

for (const pair of document.querySelectorAll(".pair"))
  pair.addEventListener("pointermove", (event) => {
    if (event.pointerType === "touch" || event.target.localName === "input") return;
    const box = pair.getBoundingClientRect();
    const input = pair.querySelector("input");
    input.value = (100 * (event.clientX - box.left)) / box.width;
    input.dispatchEvent(new Event("input"));
  });

function sort(table, column, heading) {
  const descending = heading.getAttribute("aria-sort") !== "descending";
  for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
  heading.setAttribute("aria-sort", descending ? "descending" : "ascending");
  const keyed = [...table.tBodies[0].rows].map((row) => {
    const text = row.cells[column].dataset.value ?? row.cells[column].textContent;
    return { row, text, value: text === "" ? NaN : Number(text) };
  });
  const numbers = keyed.some(({ value }) => !Number.isNaN(value));
  const rank = ({ value }) => (Number.isNaN(value) ? Infinity : descending ? -value : value); // no number: last
  const order = numbers
    ? (a, b) => rank(a) - rank(b) || 0
    : (a, b) => (descending ? -1 : 1) * a.text.localeCompare(b.text, "en", { numeric: true });
  table.tBodies[0].append(...keyed.sort(order).map(({ row }) => row));
}

for (const table of document.querySelectorAll("table.sortable"))
  [...table.tHead.rows[0].cells].forEach((heading, column) =>
    heading.querySelector("button")?.addEventListener("click", () => sort(table, column, heading)),
  );
