/**
 * Mutations of the userspace stack's TCP, in ffi/src and src/exit, and of the verdict over a run of the tests.
 */
import type { Mutation } from "./mutation.ts";

const SPLICE = ["tests/unit/tcp_splice_test.ts"];

export const TCP_ROWS: readonly Mutation[] = [
  {
    file: "ffi/src/connection.rs",
    from: "KEEP_US: i64 = 7_440_000_000",
    to: "KEEP_US: i64 = 120_000_000",
    tests: SPLICE,
    note: "idle connections end after two minutes",
  },
  {
    file: "ffi/src/connection.rs",
    from: "const SILENT_US: i64 = 120_000_000",
    to: "const SILENT_US: i64 = 1_200_000_000",
    tests: SPLICE,
    note: "who acknowledges nothing is kept for twenty minutes",
  },
  {
    file: "ffi/src/connection.rs",
    from: "if segment.header.seq == nxt {",
    to: "if true {",
    tests: SPLICE,
    note: "a reset anywhere in the window ends a connection (RFC 5961)",
  },
  {
    file: "ffi/src/connection.rs",
    from: "Phase::TimeWait => before(self.rx.nxt(), syn.header.seq.wrapping_add(1))",
    to: "Phase::TimeWait => false",
    tests: SPLICE,
    note: "a new SYN is swallowed while the old connection waits for its end",
  },
  {
    file: "ffi/src/tcp.rs",
    from: "searched_us: 0",
    to: "searched_us: i64::MIN",
    tests: SPLICE,
    note: "nobody looks for a flow that may give way",
  },
  {
    file: "ffi/src/tcp/flow.rs",
    from: "(!is_ending, self.active_us)",
    to: "(is_ending, self.active_us)",
    tests: SPLICE,
    note: "open flows give way before half-closed ones",
  },
  {
    file: "src/exit/userspace/tcp_splice.ts",
    from: "WARNING_US = 60e6",
    to: "WARNING_US = 0",
    tests: SPLICE,
    note: "each look tells of flows that found no room",
  },
  {
    file: "tests/verdict.ts",
    from: "if (isTooSlow)",
    to: "if (false)",
    tests: ["tests/unit/verdict_test.ts"],
    note: "a half that hangs is not named so",
  },
];
