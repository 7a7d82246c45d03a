/**
 * Mutations of the doors, of the loop between them, and of what is counted: src/io and src/exit.
 */
import type { Mutation } from "./mutation.ts";

export const IO_ROWS: readonly Mutation[] = [
  {
    file: "src/io/native_udp.ts",
    from: "const options = way | (offload ? OFFLOAD : 0);",
    to: "const options = way;",
    tests: ["tests/system/offloads_test.ts"],
    note: "GSO and GRO are off",
  },
  {
    file: "src/io/driver.ts",
    from: "const descriptors = this.port.waitWith?.(others) ?? new PollSet([outer, ...others]);",
    to: "const descriptors = new PollSet([outer, ...others]);",
    tests: ["tests/system/offloads_test.ts"],
    note: "the ring is not what the driver waits in",
  },
  {
    file: "src/io/driver.ts",
    from: "if (ring !== undefined) exit.readBy?.(ring);",
    to: "",
    tests: ["tests/system/offloads_test.ts"],
    note: "the ring does not read the exit",
  },
  {
    file: "src/io/driver.ts",
    from: "if (++emptyWakes > EMPTY_WAKES_MAX) nap();",
    to: "",
    tests: ["tests/unit/driver_test.ts"],
    note: "a device that is gone makes the driver spin",
  },
];
