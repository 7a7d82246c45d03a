/**
 * Who is let in at the fallback and who has to leave for it: bounds in all, of one source and of the unproven, and a
 * newcomer that many connections of few networks cannot lock out.
 */
import { assert, assertEquals } from "@std/assert";
import { Crowd, crowdLimits } from "../../src/serve/fallback_crowd.ts";

const LIMITS = { all: 100, unproven: 32, ofOneSource: 16, ofOneHolder: 20 };

function scene() {
  const crowd = new Crowd(LIMITS);
  const closed: string[] = [];
  /** Lets in a connection of a source in a network; false when it is refused. */
  const guest = (name: string, network: string, source = network, holder = source) => {
    const visitor = { source, holder, network, close: () => closed.push(name) };
    return { visitor, isIn: crowd.enter(visitor) };
  };
  return { crowd, closed, guest };
}

Deno.test("fallback crowd: networks full of unproven connections lock no newcomer out, and the newcomer stays", () => {
  const { crowd, closed, guest } = scene();
  for (let i = 0; i < 32; i++) assert(guest(`a${i}`, `net ${i % 2}`, `source ${i % 4}`).isIn);
  assert(guest("honest", "home").isIn);
  assertEquals(closed, ["a0"]);
  // However many more the others open, they push out their own.
  for (let i = 32; i < 1000; i++) assert(guest(`a${i}`, `net ${i % 2}`, `source ${i % 4}`).isIn);
  assert(!closed.includes("honest"));
  assertEquals(crowd.size, 32);
});

Deno.test("fallback crowd: the oldest unproven of the greediest network's greediest source leaves", () => {
  const { closed, guest } = scene();
  for (let i = 0; i < 10; i++) guest(`few ${i}`, "small");
  for (let i = 0; i < 8; i++) guest(`one ${i}`, "large", `neighbour ${i}`);
  for (let i = 0; i < 14; i++) guest(`many ${i}`, "large", "greedy");
  guest("newcomer", "home");
  guest("newcomer", "office");
  assertEquals(closed, ["many 0", "many 1"]);
});

Deno.test("fallback crowd: who has proven itself is not made to leave, by its source neither", () => {
  const { crowd, closed, guest } = scene();
  const proven = Array.from({ length: 15 }, (_, i) => guest(`proven ${i}`, "home").visitor);
  proven.forEach((visitor) => crowd.prove(visitor));
  guest("waiting", "home");
  assert(guest("next", "home").isIn);
  assertEquals(closed, ["waiting"]);
  crowd.prove(guest("last", "home").visitor);
  assertEquals(closed, ["waiting", "next"]);
  assert(!guest("one too many", "home").isIn);
  crowd.leave(proven[0]);
  crowd.leave(proven[0]);
  assert(guest("in its place", "home").isIn);
  assertEquals(crowd.size, 16);
});

Deno.test("fallback crowd: their number is bounded, and closing ends each", () => {
  const { crowd, closed, guest } = scene();
  for (let i = 0; i < 68; i++) crowd.prove(guest(`${i}`, `network ${i}`).visitor);
  for (let i = 0; i < 32; i++) assert(guest(`waiting ${i}`, `network ${i}`).isIn);
  assertEquals([crowd.size, closed.length], [100, 0]);
  assert(guest("one more", "home").isIn);
  assertEquals([crowd.size, closed], [100, ["waiting 0"]]);
  crowd.close();
  assertEquals([crowd.size, closed.length], [0, 101]);
});

Deno.test("fallback crowd: one that has proven itself everywhere fills nothing, and others who prove themselves stay", () => {
  const { crowd, closed, guest } = scene();
  const prove = (name: string, network: string, source?: string, holder?: string) =>
    crowd.prove(guest(name, network, source, holder).visitor);
  for (let i = 0; i < 10; i++) prove(`honest ${i}`, `home ${i}`);
  // Each /64 of a /56 is a source of its own.
  for (let i = 0; i < 1000; i++) prove(`greedy ${i}`, "wide", `64 ${i}`, "56");
  assertEquals([closed.length, crowd.size], [980, 30]);
  assertEquals(closed[0], "greedy 0");
  // Holders with two connections each reach the bound over all: each new one then ends the oldest of the holder with the most.
  for (let i = 0; i < 200; i++) prove(`spread ${i}`, `far ${i >> 1}`);
  assertEquals(crowd.size, 68, "what is left is for those that have proven nothing yet");
  assertEquals(closed.filter((name) => name.startsWith("honest")), []);
  assert(guest("newcomer", "office").isIn);
  prove("honest too", "elsewhere");
  assertEquals(crowd.size, 69);
});

Deno.test("fallback crowd: no unproven connection makes a proven one leave, and bounds shrink with the room", () => {
  const { crowd, closed, guest } = scene();
  for (let i = 0; i < 68; i++) crowd.prove(guest(`proven ${i}`, `home ${i >> 1}`).visitor);
  for (let i = 0; i < 500; i++) guest(`waiting ${i}`, `network ${i}`);
  assertEquals(closed.filter((name) => name.startsWith("proven")), []);
  assertEquals([crowd.size, crowdLimits(64).unproven, crowdLimits(1024).unproven], [100, 16, 256]);
});
