// Hot path.
/**
 * A step of ingress, for OxTunnel only: one kernel call makes the masks that remove header protection, which reveals flags,
 * counter length and counter (PROTOCOL §12). Invariant: no row goes on to opening whose header and tag do not fit its
 * length, or whose counter is out of range. Authenticates nothing: a wrong header fails to open.
 * Keeps PROTOCOL R38, R41 and R110.
 */
import { MASK_STRIDE } from "../codec/kernels.ts";
import { DROP } from "../metrics.ts";
import { type Burst, TO_OPEN_DATAGRAM, TO_UNPROTECT } from "../vector/burst.ts";
import {
  keyPhase,
  PATH_SHIFT,
  plaintextBytes,
  readTruncatedCounter,
  recoverCounter,
  SHORT_HEADER_MIN_BYTES,
  shortHeaderBytes,
  unprotectHeader,
} from "../wire/oxtunnel.ts";
import type { IngressContext } from "./context.ts";

export function unprotect(burst: Burst, context: IngressContext): void {
  const { count, view, offset, length, next, session, path, counter, headerBytes, phase } = burst;
  const { table, datagramAead, masks } = context;
  if (datagramAead === undefined || !burst.has(TO_UNPROTECT)) return;
  datagramAead.masks(burst, masks);
  const { replay: { highest }, pathNumber } = table;
  for (let row = 0; row < count; row++) {
    if (next[row] !== TO_UNPROTECT) continue;
    const flags = unprotectHeader(view, offset[row], masks, MASK_STRIDE * row);
    if (plaintextBytes(flags, length[row]) < 0) {
      next[row] = DROP.bad_length;
      continue;
    }
    headerBytes[row] = shortHeaderBytes(flags);
    // Of a session's first path, which has its row, nothing more is read.
    const of = path[row], number = of === session[row] ? 0 : pathNumber[of];
    phase[row] = keyPhase(flags) | number << PATH_SHIFT;
    counter[row] = recoverCounter(
      readTruncatedCounter(view, offset[row]),
      headerBytes[row] - SHORT_HEADER_MIN_BYTES + 1,
      highest[of],
    );
    next[row] = counter[row] < 0 ? DROP.expired : TO_OPEN_DATAGRAM;
  }
}
