/**
 * Mutations of what lies on the wire: src/wire.
 */
import type { Mutation } from "./mutation.ts";

export const WIRE_ROWS: readonly Mutation[] = [
  {
    file: "src/wire/wireguard.ts",
    from: "return word <= TYPE_DATA ? word : 0;",
    to: "return word & 255;",
    tests: ["tests/unit/wireguard_wire_test.ts"],
    note: "WireGuard's reserved bytes are not looked at",
  },
  {
    file: "src/wire/wireguard.ts",
    from: "return padded > mtu && length <= mtu ? mtu : padded;",
    to: "return padded;",
    tests: ["tests/unit/wireguard_wire_test.ts"],
    note: "padding exceeds the MTU",
  },
  {
    file: "src/wire/wireguard.ts",
    from: "const padded = (length + PADDING_BYTES - 1) & -PADDING_BYTES;",
    to: "const padded = length;",
    tests: ["tests/unit/wireguard_wire_test.ts"],
    note: "WireGuard's packets are not padded",
  },
  {
    file: "src/wire/frame.ts",
    from: "if (this.#count === FRAMES_MAX) return FRAMES_MALFORMED;",
    to: "",
    tests: ["tests/unit/oxtunnel_test.ts"],
    note: "frames in a plaintext without number",
  },
  {
    file: "src/wire/frame.ts",
    from: "if (length === 0 || length > this.#end - at) return FRAMES_MALFORMED;",
    to: "if (length === 0) return FRAMES_MALFORMED;",
    tests: ["tests/unit/oxtunnel_test.ts"],
    note: "a frame reaches beyond its plaintext",
  },
  {
    file: "src/wire/frame.ts",
    from: "&& original <= LZ4_RATIO_MAX * length ? original : 0;",
    to: "? original : 0;",
    tests: ["tests/unit/oxtunnel_test.ts"],
    note: "a compressed packet grows without bound",
  },
  {
    file: "src/wire/oxtunnel.ts",
    from: "return candidate < COUNTER_LIMIT ? candidate : -1;",
    to: "return candidate;",
    tests: ["tests/unit/oxtunnel_test.ts"],
    note: "counters beyond their end",
  },
  {
    file: "src/wire/oxtunnel.ts",
    from: "if (distance < 2 ** 5) return 1;",
    to: "if (distance < 2 ** 8) return 1;",
    tests: ["tests/unit/oxtunnel_test.ts"],
    note: "a counter too short for what comes late",
  },
  {
    file: "src/wire/oxtunnel.ts",
    from: "if (view.getUint8(at + 1) !== OXTUNNEL_VERSION) return false;",
    to: "",
    tests: ["tests/unit/oxtunnel_test.ts"],
    note: "every version is taken",
  },
  {
    file: "src/wire/oxtunnel.ts",
    from: "return (flags & reserved) !== 0;",
    to: "return false;",
    tests: ["tests/unit/oxtunnel_test.ts"],
    note: "reserved flags are not looked at",
  },
  {
    file: "src/wire/control.ts",
    from: "if (readRequestFirst(view, at, i) === 0 || count === 0 || count > REQUEST_RUN_MAX) return false;",
    to: "",
    tests: ["tests/fuzz/oxtunnel_test.ts"],
    note: "a request may name any number of datagrams",
  },
  {
    file: "src/wire/oxtunnel.ts",
    from: "const flags = view.getUint8(at) ^ (mask[maskAt] & PROTECTED_FLAGS);",
    to: "const flags = view.getUint8(at);",
    tests: ["tests/unit/oxtunnel_test.ts"],
    note: "header protection is not taken off the flags",
  },
  {
    file: "src/wire/wireguard.ts",
    from: "return high >= 0x200000 ? -1 :",
    to: "return false ? -1 :",
    tests: ["tests/unit/wireguard_wire_test.ts"],
    note: "a counter beyond 2^53 is taken for another",
  },
  {
    file: "src/wire/oxtunnel.ts",
    from: "if (early !== 0) return false;",
    to: "",
    tests: ["tests/unit/oxtunnel_test.ts"],
    note: "a response may have early data",
  },
  {
    file: "src/wire/oxtunnel.ts",
    from: "return distance < DISTANCE_LIMIT ? 4 : 0;",
    to: "return 4;",
    tests: ["tests/unit/oxtunnel_test.ts"],
    note: "a sender goes on where its counter could be misread",
  },
];
