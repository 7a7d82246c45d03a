/**
 * A QR code for the terminal: half blocks, two modules a character, in explicit black on white with a quiet
 * zone, so that a phone reads it on dark and light themes alike. Invariant: no line is wider than the terminal, whose wrapped
 * lines no phone could read. Draws only.
 */
import { encode } from "uqr";

/** Modules of white around the code: what ISO/IEC 18004 asks for, and what phones still read. */
const QUIET_ZONE = 4, NARROW_QUIET_ZONE = 1;

/** A code that fits the terminal, if one does, and what a person should know about it. */
export interface FittingQr {
  code?: string;
  note?: string;
}

/** The lines of a QR code for `text`, with ANSI colours. Throws when the text exceeds about 2900 bytes. */
export function renderQr(text: string, quietZone = QUIET_ZONE): string {
  const { data, size } = encode(text, { ecc: "L", border: quietZone });
  const lines: string[] = [];
  for (let y = 0; y < size; y += 2) {
    let line = "";
    for (let x = 0; x < size; x++) {
      const [upper, lower] = [data[y][x], data[y + 1]?.[x] ?? false];
      line += upper ? (lower ? "█" : "▀") : lower ? "▄" : " ";
    }
    lines.push(`\x1b[30;107m${line}\x1b[0m`);
  }
  return lines.join("\n");
}

/**
 * The code for a terminal of `columns` and `rows` characters, with less white around it where that makes it fit; a terminal that
 * does not know its size (0) gets the code as it is.
 */
export function fitQr(text: string, { columns, rows }: { columns: number; rows: number }): FittingQr {
  const { size: modules } = encode(text, { ecc: "L", border: 0 });
  const needed = modules + 2 * NARROW_QUIET_ZONE;
  if (columns > 0 && columns < needed) {
    return {
      note:
        `The QR code is left out: it needs ${needed} columns and this terminal has ${columns}. Make the window wider or its ` +
        "font smaller, then remove the peer and add it again; or load the text above as a file.",
    };
  }
  const quietZone = columns > 0 && columns < modules + 2 * QUIET_ZONE ? NARROW_QUIET_ZONE : QUIET_ZONE;
  const lines = Math.ceil((modules + 2 * quietZone) / 2);
  return {
    code: renderQr(text, quietZone),
    ...(rows > 0 && rows <= lines
      ? {
        note:
          `The QR code has ${lines} lines and this terminal ${rows}: enlarge the window until all of it shows.`,
      }
      : {}),
  };
}
