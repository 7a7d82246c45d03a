/**
 * The table of paths: which path leads to a peer, what stays of a session's path when the session ends, when a peer has
 * roamed, and that whoever gets a removed peer's id inherits no endpoint.
 */
import { assertEquals } from "@std/assert";
import { BASE_BYTES } from "../../src/control/path_size.ts";
import { Metrics } from "../../src/metrics.ts";
import { EventRing } from "../../src/session/events.ts";
import { Paths } from "../../src/session/paths.ts";
import { PeerTable } from "../../src/session/peers.ts";

const SESSIONS = 8, PEERS = 4, PEER = 2, SESSION = 5;
const A = Uint32Array.of(0, 0, 0xffff, 0xc0000201), B = Uint32Array.of(0x20010db8, 0, 0, 7);
const LOCAL = Uint32Array.of(0, 0, 0xffff, 0x0a000001), NOWHERE = new Uint32Array(4);

function table() {
  const metrics = new Metrics(), events = new EventRing();
  const paths = new Paths(SESSIONS, new PeerTable(PEERS), metrics, events);
  const endpoint = (path: number) => [
    [...paths.address.subarray(4 * path, 4 * path + 4)],
    paths.port[path],
    [...paths.local.subarray(4 * path, 4 * path + 4)],
  ];
  return { paths, metrics, events, endpoint };
}

Deno.test("paths: a peer is at home until a session has a path, and again when that session has ended", () => {
  const { paths, endpoint } = table();
  const home = paths.homeOf(PEER);
  assertEquals([paths.of(PEER), paths.port[home]], [home, 0]);
  paths.roam(PEER, A, 0, 1000, LOCAL);
  paths.begin(SESSION, PEER);
  assertEquals([paths.of(PEER), endpoint(SESSION)], [home, [[...A], 1000, [...LOCAL]]]);
  assertEquals(
    [
      paths.datagramBytes[SESSION],
      paths.rttUs[SESSION],
      paths.acknowledged[SESSION],
      paths.searchAtUs[SESSION],
    ],
    [BASE_BYTES, -1, -1, Infinity],
  );
  paths.use(PEER, SESSION);
  paths.set(SESSION, B, NOWHERE, 0, 2000);
  assertEquals([paths.of(PEER), endpoint(home)], [SESSION, [[...A], 1000, [...LOCAL]]]);
  // The end of another session's path changes nothing for the peer.
  paths.release(PEER, SESSION + 1);
  assertEquals(paths.of(PEER), SESSION);
  paths.release(PEER, SESSION);
  assertEquals([paths.of(PEER), endpoint(home)], [home, [[...B], 2000, [...NOWHERE]]]);
  assertEquals(paths.of(PEER + 1), paths.homeOf(PEER + 1));
});

Deno.test("paths: a session's path begins anew, whatever its row had before", () => {
  const { paths } = table();
  paths.ecn.fill(9);
  paths.acknowledged[SESSION] = paths.rttUs[SESSION] = 77;
  paths.begin(SESSION, PEER);
  assertEquals([paths.acknowledged[SESSION], paths.rttUs[SESSION]], [-1, -1]);
  assertEquals(
    [...paths.ecn].map((count, i) => count === (i >> 2 === SESSION ? 0 : 9)),
    Array(32).fill(true),
  );
});

Deno.test("paths: a peer roams when its known endpoint changes in any word or in the port", () => {
  const { paths, metrics, events, endpoint } = table();
  const home = paths.homeOf(PEER);
  paths.roam(PEER, A, 0, 1000, LOCAL);
  assertEquals(metrics.get("roamed"), 0, "it was nowhere before");
  for (const [i, word] of [[3, 1], [2, 2], [1, 3], [0, 4]]) {
    const moved = paths.address.slice(4 * home, 4 * home + 4);
    moved[i] ^= word;
    paths.roam(PEER, moved, 0, 1000, LOCAL);
    paths.roam(PEER, moved, 0, 1000, NOWHERE); // only this host's address differs
    assertEquals(endpoint(home), [[...moved], 1000, [...NOWHERE]]);
  }
  paths.roam(PEER, paths.address.slice(4 * home, 4 * home + 4), 0, 1001, LOCAL);
  assertEquals(metrics.get("roamed"), 5);
  for (let i = 0; i < 5; i++) assertEquals(events.take()?.id, PEER);
  assertEquals(events.take(), undefined);
});

Deno.test("paths: a WireGuard packet that moves a peer from an OxTunnel path counts from where that path led", () => {
  const { paths, metrics, endpoint } = table();
  paths.begin(SESSION, PEER);
  paths.set(SESSION, B, LOCAL, 0, 2000);
  paths.use(PEER, SESSION);
  paths.roam(PEER, B, 0, 2000, NOWHERE);
  assertEquals([paths.of(PEER), metrics.get("roamed")], [paths.homeOf(PEER), 0]);
  paths.use(PEER, SESSION);
  paths.roam(PEER, A, 0, 2000, NOWHERE);
  assertEquals([endpoint(paths.of(PEER)), metrics.get("roamed")], [[[...A], 2000, [...NOWHERE]], 1]);
  assertEquals(endpoint(SESSION), [[...B], 2000, [...LOCAL]], "the session's own path stays");
});

Deno.test("paths: whoever gets a removed peer's id is nowhere", () => {
  const { paths } = table();
  paths.roam(PEER, A, 0, 1000, LOCAL);
  paths.begin(SESSION, PEER);
  paths.use(PEER, SESSION);
  paths.forget(PEER);
  assertEquals([paths.of(PEER), paths.port[paths.of(PEER)]], [paths.homeOf(PEER), 0]);
});
