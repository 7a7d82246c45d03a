/** What `connect --priority` takes, and in which words it refuses the rest. */
import { assertEquals, assertThrows } from "@std/assert";
import { UsageError } from "../../src/process/help.ts";
import { readPriorities } from "../../src/connect/priorities.ts";
import {
  CLASS_BULK,
  CLASS_DEFAULT,
  CLASS_GAME,
  CLASS_INTERACTIVE,
  CLASS_VOICE,
} from "../../src/control/traffic_class.ts";
import { formatAddress } from "../../src/wire/address.ts";

Deno.test("priorities: a class for a protocol, an address, a port, and any of the three", () => {
  const expected: Record<string, [number, number, string, number]> = {
    "game=udp:27015": [CLASS_GAME, 17, "::", 27015],
    "bulk=tcp:443": [CLASS_BULK, 6, "::", 443],
    "bulk=tcp": [CLASS_BULK, 6, "::", 0],
    "interactive=:22": [CLASS_INTERACTIVE, 0, "::", 22],
    "voice=203.0.113.5": [CLASS_VOICE, 0, "203.0.113.5", 0],
    "voice=udp:203.0.113.5:3478": [CLASS_VOICE, 17, "203.0.113.5", 3478],
    "default=2001:db8::5": [CLASS_DEFAULT, 0, "2001:db8::5", 0],
    "game=udp:[2001:db8::5]:7777": [CLASS_GAME, 17, "2001:db8::5", 7777],
  };
  for (const [text, [trafficClass, protocol, address, port]] of Object.entries(expected)) {
    const [read] = readPriorities([text]);
    assertEquals(
      [read.trafficClass, read.protocol, formatAddress(read.remote), read.remotePort],
      [trafficClass, protocol, address, port],
      text,
    );
    assertEquals(formatAddress(read.client), address.includes(".") ? "0.0.0.0" : "::");
    assertEquals(read.clientPort, 0);
  }
});

Deno.test("priorities: what is wrong is refused with an example", () => {
  const wrong = [
    "",
    "game",
    "game=",
    "toString=udp:1",
    "fast=udp:1",
    "game=udp:0",
    "game=udp:65536",
    "game=udp:example.com:5",
    "game=udp:1.2.3.4.5",
    "game=sctp:5",
    "game=:x",
    `game=${"9".repeat(100)}`,
  ];
  for (const text of wrong) {
    assertThrows(() => readPriorities([text]), UsageError, "such as game=udp:27015");
  }
  assertThrows(() => readPriorities(Array(65).fill("game=udp:1")), UsageError, "at most 64");
});
