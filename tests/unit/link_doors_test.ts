/**
 * Which interfaces lead to a relay, by what Linux tells in /proc; which door each of them has, as they come and go; and what the plane
 * opens for that.
 */
import { assert, assertEquals, assertMatch } from "@std/assert";
import { type DoorPlan, Doors, type PathWishes, planDoors } from "../../src/connect/link/doors.ts";
import {
  interfacesTo,
  leading,
  type LinkInterface,
  readIpv4Routes,
  readIpv6Routes,
  signalLevels,
} from "../../src/connect/link/interfaces.ts";
import { PlaneDoors } from "../../src/connect/link/plane_doors.ts";
import { parseAddress } from "../../src/wire/address.ts";

const WISHES: PathWishes = { metered: [], copied: 6 };
/** As Linux writes it: Wi-Fi and a modem with defaults, a LAN, a VPN's halves, and a default that leads nowhere. */
const IPV4 = `Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT
wlan0\t00000000\t0101A8C0\t0003\t0\t0\t600\t00000000\t0\t0\t0
wwan0\t00000000\t01000A0A\t0003\t0\t0\t700\t00000000\t0\t0\t0
dead0\t00000000\t00000000\t0200\t0\t0\t1\t00000000\t0\t0\t0
eth0\t0002A8C0\t00000000\t0001\t0\t0\t100\t00FFFFFF\t0\t0\t0
tun0\t00000000\t00000000\t0001\t0\t0\t50\t00000080\t0\t0\t0
host0\t090200CB\t00000000\t0005\t0\t0\t0\tFFFFFFFF\t0\t0\t0
`;
const IPV6 =
  `fd000000000000000000000000000000 40 00000000000000000000000000000000 00 00000000000000000000000000000000 00000100 00000001 00000000 00000001     eth0
00000000000000000000000000000000 00 00000000000000000000000000000000 00 fd000000000000000000000000000001 00000400 00000002 00000000 00000003    wlan0
00000000000000000000000000000000 00 00000000000000000000000000000000 00 00000000000000000000000000000000 ffffffff 00000001 00000000 00200200       lo
`;

Deno.test("interfaces: those with a route to the relay, the best first", () => {
  const v4 = (relay: string) => leading(readIpv4Routes(IPV4), parseAddress(relay)!).map(({ name }) => name);
  assertEquals(v4("203.0.2.1"), ["wlan0", "wwan0"], "the half of the VPN is the other one");
  assertEquals(v4("100.0.0.1"), ["tun0", "wlan0", "wwan0"], "the longest prefix, then the least metric");
  assertEquals(v4("192.168.2.7"), ["eth0", "wlan0", "wwan0"]);
  assertEquals(v4("203.0.2.9")[0], "host0");
  const v6 = (relay: string) => leading(readIpv6Routes(IPV6), parseAddress(relay)!).map(({ name }) => name);
  assertEquals(v6("2001:db8::1"), ["wlan0"]);
  assertEquals(v6("fd00::9"), ["eth0", "wlan0"]);
  assertEquals(leading(readIpv6Routes(IPV6), parseAddress("203.0.2.9")!), [], "IPv4 goes by no IPv6 route");
  for (const broken of ["", "x", "Iface\neth0\t00", "\n\n"]) {
    assertEquals([readIpv4Routes(broken), readIpv6Routes(broken)], [[], []]);
  }
  assert(interfacesTo("192.0.2.1", "").every(({ name, index }) => name !== "lo" && index > 0));
  assertEquals(interfacesTo("no address", ""), []);
});

Deno.test("interfaces: levels of radios, as drivers tell them", () => {
  const text = `Inter-| sta-|   Quality        |   Discarded packets               | Missed | WE
 face | tus | link level noise |  nwid  crypt   frag  retry   misc | beacon | 22
 wlan0: 0000   54.  -56.  -256        0      0      0      0     12        0
wlp3s0: 0000   70    30     0        0      0      0      0      0        0
`;
  assertEquals([...signalLevels(text)], [["wlan0", -56], ["wlp3s0", 30]]);
  assertEquals([...signalLevels("")], []);
});

function one(name: string, index: number, more: Partial<LinkInterface> = {}): LinkInterface {
  return { name, index, metric: 0, isWifi: false, isMetered: false, isTunnel: false, ...more };
}

const addresses = (name: string) => [`addr-${name}`];
const shown = (plan: readonly DoorPlan[]) =>
  plan.map(({ door, device, index }) => `${door} ${device} ${index}`);

Deno.test("doors: the system's choice is the first, and each other interface has its own while it is there", () => {
  const next = (before: DoorPlan[], found: LinkInterface[], wishes = WISHES) =>
    planDoors(before, found, wishes, addresses);
  const wifi = one("wlan0", 3, { isWifi: true }),
    lte = one("wwan0", 4, { isMetered: true }),
    lan = one("eth0", 2);
  const two = next([], [wifi, lte]);
  assertEquals(shown(two), ["0 wlan0 3", "1 wwan0 4"]);
  assertEquals(two.map(({ isMetered }) => isMetered), [false, true]);
  assertEquals(two[1].addresses, ["addr-wwan0"]);
  assertEquals(
    shown(next(two, [lan, wifi, lte])),
    ["0 wlan0 3", "1 wwan0 4", "2 eth0 2"],
    "nobody moves for a better one",
  );
  assertEquals(shown(next(two, [lte])), ["0 wlan0 3", "1 wwan0 4"], "the first path waits for its interface");
  assertEquals(shown(next(two, [wifi])), ["0 wlan0 3"]);
  assertEquals(shown(next(two, [])), [], "nothing to wait with");
  assertEquals(shown(next(next([], [wifi]), [lte])), ["0 wwan0 4"], "the only one moves");
  assertEquals(shown(next(two, [one("wlan0", 9), lte])), ["0 wlan0 9", "1 wwan0 4"], "made again");
  assertEquals(shown(next(two, [wifi, one("wwan0", 9)])), ["0 wlan0 3", "1 wwan0 9"]);
  const many = Array.from({ length: 9 }, (_, i) => one(`eth${i}`, i + 1));
  assertEquals(next([], many).length, 4, "paths at a time");
  assertEquals(
    shown(next([], [one("tun0", 7, { isTunnel: true }), wifi])),
    ["0 wlan0 3"],
    "no tunnel by itself",
  );
  const named = { ...WISHES, names: ["tun0", "wlan0", "gone0"], metered: ["wlan0"] };
  const chosen = next([], [wifi, lte, one("tun0", 7, { isTunnel: true })], named);
  assertEquals(shown(chosen), ["0 tun0 7", "1 wlan0 3"], "as named, in that order");
  assertEquals(chosen.map(({ isMetered }) => isMetered), [false, true]);
});

Deno.test("doors: what leads nowhere is said once, with its remedy", () => {
  const said: string[] = [];
  const doors = new Doors({ ...WISHES, names: ["lo"] }, "", (message) => said.push(message));
  for (let i = 0; i < 3; i++) doors.look("192.0.2.1", 0);
  assertEquals(said.length, 1);
  assertMatch(said[0], /^lo has no route to the relay.* ip route add default via GATEWAY dev lo metric 600$/);
});

Deno.test("doors: the plane opens what is new, closes what is gone, and leaves the rest alone", () => {
  const calls: string[] = [];
  let isRefused = false;
  const plane = new PlaneDoors({
    open: (door, device) => {
      if (isRefused) throw new Error("no");
      calls.push(`open ${door} ${device}`);
      return "";
    },
    shut: (door) => void calls.push(`shut ${door}`),
  }, {
    addDoor: (door, isMetered) => void calls.push(`add ${door} ${isMetered}`),
    dropDoor: (door) => void calls.push(`drop ${door}`),
    moved: () => void calls.push("moved"),
    setMetered: (door, isMetered) => void calls.push(`metered ${door} ${isMetered}`),
  });
  const did = (plan: DoorPlan[]) => {
    plane.set(plan, 0);
    return calls.splice(0);
  };
  const found = [one("wlan0", 3), one("wwan0", 4, { isMetered: true })];
  const two = planDoors([], found, WISHES, addresses);
  assertEquals(did(two), ["open 0 wlan0", "moved", "open 1 wwan0", "add 1 true"]);
  assertEquals(did(structuredClone(two)), []);
  const free = two.map((plan) => ({ ...plan, isMetered: false }));
  assertEquals(
    [did(free), did(two)],
    [["metered 1 false"], ["metered 1 true"]],
    "no path is asked anew for that",
  );
  assertEquals(
    did([two[0], { ...two[1], addresses: ["other"] }]),
    ["add 1 true"],
    "another network behind the same interface",
  );
  assertEquals(did([{ ...two[0], index: 9 }, { ...two[1], addresses: ["other"] }]), [
    "open 0 wlan0",
    "moved",
  ]);
  plane.note(1, true);
  assertEquals(plane.failing, [1]);
  assertEquals(did([two[0]]), ["open 0 wlan0", "moved", "shut 1", "drop 1"]);
  assertEquals(plane.failing, []);
  isRefused = true;
  assertEquals(did(two), [], "one is there and the other refused");
  assertEquals(plane.failing, [1], "what cannot be opened is failing");
  isRefused = false;
  assertEquals(did(two), ["open 1 wwan0", "add 1 true"], "and tried again");
  assertEquals(plane.failing, []);
  assertEquals(did([]), ["shut 0", "moved", "shut 1", "drop 1"]);
});

Deno.test("doors: before a radio changes cells, what costs money counts as free", () => {
  const found = [one("wlan0", 3, { isWifi: true }), one("wwan0", 4, { isMetered: true })];
  let dbm = -55;
  const doors = new Doors(WISHES, "", () => {}, {
    interfacesTo: () => found,
    signalLevels: () => new Map([["wlan0", dbm], ["wlan9", -90]]),
  });
  const metered = (second: number) =>
    doors.look("192.0.2.1", second * 1e6)?.map(({ isMetered }) => isMetered);
  assertEquals(metered(0), [false, true]);
  assertEquals(metered(1), undefined);
  dbm = -75;
  assertEquals(metered(2), [false, false]);
  assertEquals(doors.plan.map(({ isMetered }) => isMetered), [false, true], "what it is does not change");
  dbm = -55;
  assertEquals([metered(3), metered(3.9)], [undefined, undefined], "a warning holds");
  assertEquals(metered(4.1), [false, true]);
});

Deno.test("doors: a session's numbers for paths are counted, and a new session has them again", () => {
  const wifi = one("wlan0", 3), lte = one("wwan0", 4);
  let found = [wifi];
  const doors = new Doors(WISHES, "", () => {}, { interfacesTo: () => found, signalLevels: () => new Map() });
  doors.look("192.0.2.1", 0);
  for (let i = 1; i <= 8; i++) {
    assert(!doors.isUsedUp, `after ${i - 1}`);
    found = [wifi, lte];
    doors.look("192.0.2.1", i);
    if (i === 8) break;
    found = [wifi];
    doors.look("192.0.2.1", i);
  }
  assert(doors.isUsedUp);
  doors.forget();
  doors.look("192.0.2.1", 9);
  assert(!doors.isUsedUp);
});
