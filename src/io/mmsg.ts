/**
 * The port over recvmmsg and sendmmsg (ffi/src/port/mmsg.rs), for kernels and containers where io_uring is forbidden or
 * brings nothing. Invariant and limits are those of native_udp.ts.
 */
import { NativePort, type NativePortOptions } from "./native_udp.ts";

export class MmsgPort extends NativePort {
  constructor(options: NativePortOptions) {
    super("mmsg", 0, options);
  }
}
