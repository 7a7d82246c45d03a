// Hot path.
/**
 * Second node of ingress: hands handshake messages to the associations, which answer in place. Invariant: a
 * row leaves as an answer to transmit, as done, or as a drop. Looks at no transport data.
 */
import { type Burst, DONE, TO_COOKIE, TO_INITIATION, TO_RESPONSE } from "../vector/burst.ts";
import type { IngressContext } from "./context.ts";

export function admit(burst: Burst, context: IngressContext, nowUs: number): void {
  const { count, next } = burst;
  const { associations } = context;
  for (let row = 0; row < count; row++) {
    if (next[row] === TO_INITIATION) {
      associations.onInitiation(burst, row, nowUs);
    } else if (next[row] === TO_RESPONSE) {
      next[row] = DONE;
      associations.onResponse(burst, row, nowUs);
    } else if (next[row] === TO_COOKIE) {
      next[row] = DONE;
      associations.onCookie(burst, row, nowUs);
    }
  }
}
