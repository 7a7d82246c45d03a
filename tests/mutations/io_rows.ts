/**
 * Mutations of the doors, of the loop between them, and of what they are told to be: src/io and src/config.ts.
 */
import type { Mutation } from "./mutation.ts";

const DOORS = "tests/system/doors_test.ts";

export const IO_ROWS: readonly Mutation[] = [
  {
    file: "src/io/multi_port.ts",
    from: "local[4 * row + DOOR_WORD] = door;",
    to: "local[4 * row + DOOR_WORD] = 0;",
    tests: [DOORS],
    note: "a row does not say by which door it came",
  },
  {
    file: "src/io/multi_port.ts",
    from: "if (doors === 1) return this.#send(0, burst);",
    to: "if (doors > 0) return this.#send(0, burst);",
    tests: [DOORS],
    note: "everything leaves by the way that the system chooses",
  },
  {
    file: "src/io/multi_port.ts",
    from: "if (isFailing === (this.#isFailing[door] === 1)) return;",
    to: "if (!isFailing) return;",
    tests: [DOORS],
    note: "an interface that refuses is told with every burst, and never that it is back",
  },
  {
    file: "src/io/bound_socket.ts",
    from: "libc().setsockopt(descriptor, SOL_SOCKET, SO_BINDTODEVICE, name, name.length) === 0",
    to: "libc().setsockopt(descriptor, SOL_SOCKET, SO_BINDTODEVICE, name, name.length) <= 0",
    tests: [DOORS],
    note: "a socket that is bound to no interface counts as bound",
  },
  {
    file: "src/io/native_udp.ts",
    from: "const options = way | (offload ? OFFLOAD : 0);",
    to: "const options = way;",
    tests: ["tests/system/offloads_test.ts"],
    note: "GSO and GRO are off",
  },
  {
    file: "src/io/uring.ts",
    from: 'override readonly wait: PortWait = { by: "port", join: (others) => this.join(others) };',
    to: 'override readonly wait: PortWait = { by: "descriptor", descriptor: this.descriptor };',
    tests: ["tests/system/offloads_test.ts"],
    note: "the ring is not what the driver waits in",
  },
  {
    file: "src/io/uring.ts",
    from: "device !== undefined && native.ox_tun_read_by(device, port) === 0;",
    to: "device === -1 && native.ox_tun_read_by(device, port) === 0;",
    tests: ["tests/system/offloads_test.ts"],
    note: "the ring does not read the exit",
  },
  {
    file: "src/io/wait_set.ts",
    from: "this.#isPortReady = this.#hasArrived();",
    to: "this.#isPortReady = false;",
    tests: ["tests/unit/wait_set_test.ts"],
    note: "a port that is looked at is never seen to have something",
  },
  {
    file: "src/io/driver.ts",
    from: "if (++emptyWakes > EMPTY_WAKES_MAX) nap();",
    to: "",
    tests: ["tests/unit/driver_test.ts"],
    note: "a device that is gone makes the driver spin",
  },
  {
    file: "ffi/src/port/udp.rs",
    from: "offload && set_option(fd, SOL_UDP, UDP_GRO, 1) &&",
    to: "offload && set_option(fd, SOL_UDP, UDP_GRO, 0) &&",
    tests: ["tests/system/offloads_test.ts"],
    note: "GRO is off",
  },
  {
    file: "ffi/src/port/outgoing.rs",
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
