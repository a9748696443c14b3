// In a function of its own, because another page has names of its own.
(() => {
  "use strict";
  const announce = (text) => { document.getElementById("announcement").textContent = text; };

  // What a cell is sorted by: an attribute, or its text; a dash says that there is nothing.
  const key = (cell) => {
    const text = cell.dataset.sort ?? cell.textContent.replace(/\s+/g, " ").trim();
    return text === "\u2013" ? "" : text;
  };

  // A browser may take a table that is shown as cards for text.
  const roles = [["tr", "row"], ["thead th", "columnheader"], ["tbody th", "rowheader"], ["td", "cell"], ["thead, tbody", "rowgroup"]];
  for (const table of document.querySelectorAll("table.sortable")) {
    table.setAttribute("role", "table");
    for (const [parts, role] of roles) table.querySelectorAll(parts).forEach((part) => part.setAttribute("role", role));
  }

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
      const keys = new Map([...body.rows].map((row) => [row, key(row.cells[column])]));
      const numeric = [...keys.values()].every((text) => Number.isFinite(Number(text)));
      const rows = [...body.rows].sort((first, second) => {
        const a = keys.get(first);
        const b = keys.get(second);
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

  // Lists, a search and a box leave out rows and figures that are not asked for. What says nothing about it always stays.
  {
    const FEW = 10;
    const bar = document.getElementById("filters");
    const tables = [...document.querySelectorAll("table.sortable")];
    const rows = tables.flatMap((table) => [...table.tBodies[0].rows]);
    const marked = [...new Set([...document.querySelectorAll("[data-rules], [data-datasets], [data-recipes]"), ...rows])];
    const values = (element, key) => (element.dataset[key] ? JSON.parse(element.dataset[key]) : null);
    // A name and its value are one word, and spaces that do not break are spaces.
    const plain = (text) => text.toLowerCase().replace(/\s*=\s*/g, "=").replace(/\s+/g, " ");
    const texts = new Map(rows.map((row) => [row, plain([...row.cells].map((cell) => cell.textContent).join(" "))]));
    const add = (name, control) => {
      const label = document.createElement("label");
      // A browser that restores what was chosen would not filter by it.
      control.autocomplete = "off";
      label.append(`${name} `, control);
      bar.append(label);
      control.addEventListener("input", show);
      return control;
    };
    const input = (type) => Object.assign(document.createElement("input"), { type });
    const lists = [];
    for (const [key, name] of [["rules", "Rule"], ["datasets", "Data set"], ["recipes", "Recipe"]]) {
      const known = [...new Set(marked.flatMap((element) => values(element, key) ?? []))].sort();
      if (known.length < 2) continue;
      const select = document.createElement("select");
      select.append(new Option("all", ""), ...known.map((value) => new Option(value, value)));
      lists.push({ key, select: add(name, select) });
    }
    const search = tables.some((table) => table.tBodies[0].rows.length > FEW) ? add("Search", input("search")) : input("search");
    const kinds = new Set(marked.map((element) => element.dataset.control).filter(Boolean));
    const only = kinds.size > 1 ? add("Controls only", input("checkbox")) : input("checkbox");
    function show() {
      const words = plain(search.value).split(" ").filter(Boolean);
      for (const element of marked) {
        const text = texts.get(element);
        element.hidden = (only.checked && element.dataset.control === "no")
          || (text !== undefined && !words.every((word) => text.includes(word)))
          || lists.some(({ key, select }) => {
            const own = values(element, key);
            return select.value !== "" && own !== null && !own.includes(select.value);
          });
      }
      // A table without rows says nothing.
      for (const table of tables) {
        const own = [...table.tBodies[0].rows];
        table.closest(".scroll").classList.toggle("empty", own.length > 0 && own.every((row) => row.hidden));
      }
      for (const fold of document.querySelectorAll(".fold")) fold.classList.toggle("empty", fold.querySelector(".empty") !== null);
      const results = [...document.querySelectorAll("#results-table tbody tr")];
      count.textContent = `${results.filter((row) => !row.hidden).length} of ${results.length} results are shown`;
      announce(count.textContent);
    }
    // The words are also announced.
    const count = Object.assign(document.createElement("span"), { ariaHidden: "true" });
    bar.hidden = bar.childElementCount === 0;
    bar.append(count);
  }
})();
