// Columns that stay at the left of a table: each begins where those before it end.

export function placePinned() {
  for (const table of document.querySelectorAll("table.trials")) {
    let left = 0;
    const places = [...table.tHead.rows[0].cells].map((cell) => {
      if (cell.dataset.pinned === undefined) return null;
      const place = left;
      left += cell.getBoundingClientRect().width;
      return place;
    });
    for (const row of table.rows) {
      [...row.cells].forEach((cell, at) => {
        if (places[at] !== null && places[at] !== undefined) cell.style.left = `${places[at]}px`;
      });
    }
  }
}

addEventListener("resize", placePinned);
