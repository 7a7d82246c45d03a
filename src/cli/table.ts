/**
 * Tables of text for a terminal. Invariant: a row takes one line, and columns begin at the same place in all of them. Cuts nothing.
 */

/** Rows of cells as left-aligned columns with two spaces between. */
export function renderTable(rows: string[][]): string {
  const widths = rows[0].map((_, column) => Math.max(...rows.map((row) => row[column].length)));
  return rows.map((row) => row.map((cell, column) => cell.padEnd(widths[column])).join("  ").trimEnd()).join(
    "\n",
  );
}
