"use strict";
const announce = (text) => { document.getElementById("announcement").textContent = text; };

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
    announce(`Sorted by ${heading.textContent}, ${direction}`);
  };
  headings.forEach((heading, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...heading.childNodes);
    button.addEventListener("click", () => sort(heading, column));
    heading.append(button);
  });
}

// Two lists show only the rows and figures of one rule and one data set. What names neither always stays.
{
  const bar = document.getElementById("filters");
  const marked = [...document.querySelectorAll("[data-rules], [data-datasets]")];
  const values = (element, key) => (element.dataset[key] ? JSON.parse(element.dataset[key]) : null);
  const lists = [["rules", "Rule"], ["datasets", "Data set"]].map(([key, name]) => {
    const known = [...new Set(marked.flatMap((element) => values(element, key) ?? []))].sort();
    const label = document.createElement("label");
    const select = document.createElement("select");
    select.append(new Option("all", ""), ...known.map((value) => new Option(value, value)));
    label.append(`${name} `, select);
    if (known.length > 1) bar.append(label);
    return { key, select };
  });
  const show = () => {
    for (const element of marked) {
      element.hidden = lists.some(({ key, select }) => {
        const own = values(element, key);
        return select.value !== "" && own !== null && !own.includes(select.value);
      });
    }
    // A table without rows says nothing.
    for (const table of document.querySelectorAll("table.sortable")) {
      const rows = [...table.tBodies[0].rows];
      table.closest(".scroll").classList.toggle("empty", rows.length > 0 && rows.every((row) => row.hidden));
    }
    for (const fold of document.querySelectorAll(".fold")) fold.classList.toggle("empty", fold.querySelector(".empty") !== null);
    const rows = document.querySelectorAll("#results-table tbody tr");
    announce(`${[...rows].filter((row) => !row.hidden).length} of ${rows.length} results are shown`);
  };
  lists.forEach(({ select }) => select.addEventListener("change", show));
  bar.hidden = bar.childElementCount === 0;
}

// The values of the point that is closest to the pointer or to a touch.
{
  const reach = 28;
  const note = document.createElement("div");
  note.className = "value-note";
  note.hidden = true;
  document.body.append(note);
  for (const drawing of document.querySelectorAll(".plot svg")) {
    const circles = [...drawing.querySelectorAll(".values circle")];
    // The browser's own note comes late and not at all on a touch screen.
    circles.forEach((circle) => { circle.value = circle.textContent; circle.replaceChildren(); });
    const leave = () => { note.hidden = true; circles.forEach((circle) => circle.classList.remove("near")); };
    const point = (event) => {
      let nearest = null;
      let least = reach;
      for (const circle of circles) {
        const box = circle.getBoundingClientRect();
        const distance = Math.hypot(box.x + box.width / 2 - event.clientX, box.y + box.height / 2 - event.clientY);
        if (distance < least) { least = distance; nearest = circle; }
      }
      leave();
      if (nearest === null) return;
      nearest.classList.add("near");
      note.textContent = nearest.value;
      note.hidden = false;
      const box = nearest.getBoundingClientRect();
      const left = Math.min(Math.max(8, box.x + box.width / 2 - note.offsetWidth / 2), innerWidth - note.offsetWidth - 8);
      const above = box.y - note.offsetHeight - 8;
      note.style.translate = `${left + scrollX}px ${(above < 0 ? box.y + box.height + 8 : above) + scrollY}px`;
    };
    if (circles.length > 0) {
      drawing.addEventListener("pointermove", point);
      drawing.addEventListener("pointerdown", point);
      drawing.addEventListener("pointerleave", (event) => { if (event.pointerType === "mouse") leave(); });
    }
  }
}
