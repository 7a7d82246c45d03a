/**
 * A QR code for the terminal: half blocks, two modules a character, in explicit black on white with a quiet
 * zone, so that a phone reads it on dark and light themes alike. Draws only.
 */
import { encode } from "uqr";

/** Modules of white around the code (ISO/IEC 18004 asks for 4). */
const QUIET_ZONE = 4;

/** The lines of a QR code for `text`, with ANSI colours. Throws when the text exceeds about 2900 bytes. */
export function renderQr(text: string): string {
  const { data, size } = encode(text, { ecc: "L", border: QUIET_ZONE });
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
