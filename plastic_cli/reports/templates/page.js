"use strict";
// Every heading of a table becomes a button that sorts by its column. Rows without a value stay last either way.
for (const table of document.querySelectorAll("table.sortable")) {
  const body = table.tBodies[0];
  const collator = new Intl.Collator("en", { numeric: true });
  const headings = [...table.tHead.rows[0].cells];
  [...body.rows].forEach((row, index) => { row.dataset.index = index; });
  const compare = (numeric, first, second) => (numeric ? Number(first) - Number(second) : collator.compare(first, second));
  const sort = (heading, column) => {
    const direction = heading.getAttribute("aria-sort") === "ascending" ? "descending" : "ascending";
    const sign = direction === "ascending" ? 1 : -1;
    const numeric = [...body.rows].every((row) => Number.isFinite(Number(row.cells[column].dataset.sort)));
    const rows = [...body.rows].sort((first, second) => {
      const a = first.cells[column].dataset.sort;
      const b = second.cells[column].dataset.sort;
      const inOrder = Number(first.dataset.index) - Number(second.dataset.index);
      if (a === "" || b === "") return (a === "") - (b === "") || inOrder;
      return sign * compare(numeric, a, b) || inOrder;
    });
    headings.forEach((other) => other.removeAttribute("aria-sort"));
    heading.setAttribute("aria-sort", direction);
    body.append(...rows);
    document.getElementById("announcement").textContent = `Sorted by ${heading.textContent}, ${direction}`;
  };
  headings.forEach((heading, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...heading.childNodes);
    button.addEventListener("click", () => sort(heading, column));
    heading.append(button);
  });
}
