/**
 * Mutations of the doors, of the loop between them, and of what they are told to be: src/io and src/config.ts.
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
  {
    file: "ffi/src/udp.rs",
    from: "offload && set_option(fd, SOL_UDP, UDP_GRO, 1) &&",
    to: "offload && set_option(fd, SOL_UDP, UDP_GRO, 0) &&",
    tests: ["tests/system/offloads_test.ts"],
    note: "GRO is off",
  },
  {
    file: "ffi/src/udp.rs",
    from: "while row != NOBODY && run < SEGMENTS_MAX {",
    to: "while row != NOBODY && run < 1 {",
    tests: ["tests/system/offloads_test.ts"],
    note: "GSO is off",
  },
  {
    file: "src/config.ts",
    from: "if (new Set(config.cpus).size < config.cpus.length) {",
    to: "if (false) {",
    tests: ["tests/unit/config_test.ts"],
    note: "two Workers share a processor",
  },
  {
    file: "src/config.ts",
    from: 'if (config.workers > 1 && config.io === "portable") {',
    to: "if (false) {",
    tests: ["tests/unit/config_test.ts"],
    note: "several Workers with a port that cannot be shared",
  },
  {
    file: "src/config.ts",
    from: 'if (config.tunnelIpv6 !== "off" && config.mtu < MTU_MIN_IPV6) {',
    to: "if (false) {",
    tests: ["tests/unit/config_test.ts"],
    note: "an MTU below what IPv6 has to carry",
  },
];
