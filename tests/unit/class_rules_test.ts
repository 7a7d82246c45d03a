/**
 * Rules about what flows are: how they are written and refused, what each of their words fits, that the first one that fits
 * counts, and where they stand among hints, marks and recognition; in the config, on a reload, and over a capture.
 */
import { assertEquals, assertStringIncludes, assertThrows } from "@std/assert";
import { CaptureFlows } from "../../src/cli/capture_flows.ts";
import { programsOf, readRules } from "../../src/connect/priorities.ts";
import { ConfigError, DEFAULTS, parseConfig, RELOADABLE_KEYS } from "../../src/config.ts";
import { CLASS_RULES_MAX, ClassRules } from "../../src/control/class_rules.ts";
import { CLASS_BULK, CLASS_DEFAULT, CLASS_GAME, CLASS_VOICE } from "../../src/control/traffic_class.ts";
import { CLASS_NAMES } from "../../src/control/rule_text.ts";
import { CLASS_LABELS } from "../../src/metrics.ts";
import { ipv6Packet, udpPacket } from "../kit/packets.ts";

const FAR = "203.0.113.7", NEAR = "10.66.0.2", FAR_IPV6 = "2001:db8::7", NEAR_IPV6 = "fd00::2";
const MS = 1000;

interface Sent {
  payload?: number[];
  port?: number;
  dscp?: number;
  isIpv6?: boolean;
  comesBack?: boolean;
}

/** Sends packets of one flow and says each one's class. */
class Flow {
  readonly #flows = new CaptureFlows();
  #nowUs = 0;

  constructor(...rules: string[]) {
    this.rule(...rules);
  }

  rule(...rules: string[]): void {
    this.#flows.flows.setRules(rules.length === 0 ? undefined : new ClassRules(readRules(rules)));
  }

  send({ payload = [9, 9], port = 41_234, dscp = 0, isIpv6 = false, comesBack = false }: Sent = {}): number {
    const bytes = new Uint8Array(100);
    bytes.set(payload);
    const ends = isIpv6 ? [NEAR_IPV6, FAR_IPV6] : [NEAR, FAR];
    if (comesBack) ends.reverse();
    const packet = isIpv6
      ? ipv6Packet(ends[0], ends[1], new Uint8Array([...new Array(8).fill(0), ...bytes]))
      : udpPacket(ends[0], ends[1], bytes);
    const view = new DataView(packet.buffer), at = isIpv6 ? 40 : 20;
    view.setUint16(at, comesBack ? port : 40_000);
    view.setUint16(at + 2, comesBack ? 40_000 : port);
    if (isIpv6) view.setUint16(0, 0x6000 | dscp << 6);
    else view.setUint8(1, dscp << 2);
    this.#nowUs += 2000 * MS;
    return this.#flows.take({ timeUs: this.#nowUs, bytes: packet, length: packet.length })!.trafficClass;
  }
}

Deno.test("class rules: classes have the names that metrics give them", () => {
  assertEquals(CLASS_NAMES, [...CLASS_LABELS]);
});

Deno.test("class rules: each word of a rule is checked, and what is wrong is said with an example", () => {
  const wrong: [string, string][] = [
    ["", "expected one of"],
    ["game", "what it is for"],
    ["gaming port=1", "expected one of default, game"],
    ["game port", "expected protocol="],
    ["game port=", "expected protocol="],
    ["game speed=9", "expected protocol="],
    ["game port=0", "port is one"],
    ["game port=9-1", "port is one"],
    ["game port=70000", "up to 65535"],
    ["game port=1 port=2", "given twice"],
    ["game address=203.0.113", "address is one"],
    ["game dscp=64", "up to 63"],
    ["game protocol=icmp", "tcp or udp"],
    ["game at=4", "there is none"],
    ["game pattern=0x01", "no hex digit"],
    ["game pattern=00 at=64", "up to 63"],
    ["game pattern=0000 at=63", "beyond 64"],
    ["game program=a/b", "no name"],
    ["game program=quake port=1", "stands alone"],
  ];
  for (const [text, message] of wrong) {
    const error = assertThrows(() => readRules([text]), Error);
    assertStringIncludes(error.message, message, text);
    assertStringIncludes(error.message, "such as", text);
  }
  assertThrows(() => readRules(new Array(CLASS_RULES_MAX + 1).fill("game port=1")), Error, "at most 64");
});

Deno.test("class rules: port, address, DSCP, protocol and pattern must all fit, from either end", () => {
  const cases: [rule: string, sent: Sent, fits: boolean][] = [
    ["voice port=41234", {}, true],
    ["voice port=41000-41300", { comesBack: true }, true],
    ["voice port=41235", {}, false],
    ["voice address=203.0.113.0/24", {}, true],
    ["voice address=203.0.113.7", { comesBack: true }, true],
    ["voice address=203.0.112.0/24", {}, false],
    ["voice address=2001:db8::/32", { isIpv6: true }, true],
    ["voice address=2001:db8::8/128", { isIpv6: true }, false],
    ["voice address=0.0.0.0/0", { isIpv6: true }, false],
    ["voice dscp=9", { dscp: 9 }, true],
    ["voice dscp=9", { dscp: 8 }, false],
    ["voice protocol=udp", {}, true],
    ["voice protocol=tcp", {}, false],
    ["voice pattern=0[12]..ff at=1", { payload: [0, 1, 7, 255] }, true],
    ["voice pattern=0[12]..ff at=1", { payload: [0, 3, 7, 255] }, false],
    ["voice port=41234 pattern=01", { payload: [1] }, true],
    ["voice port=41235 pattern=01", { payload: [1] }, false],
  ];
  for (const [rule, sent, fits] of cases) {
    assertEquals(new Flow(rule).send(sent) === CLASS_VOICE, fits, `${rule} ${JSON.stringify(sent)}`);
  }
});

Deno.test("class rules: the first that fits counts, before marks, ports and what bytes say, and both ways", () => {
  const stun = [0, 1, 0, 80, 0x21, 0x12, 0xa4, 0x42];
  const flow = new Flow("bulk port=41234", "game port=41234");
  assertEquals([flow.send({ dscp: 46, payload: stun }), flow.send({ comesBack: true })], [
    CLASS_BULK,
    CLASS_BULK,
  ]);
  assertEquals(new Flow("bulk port=1").send({ payload: stun }), CLASS_VOICE, "a rule for something else");
  // A pattern that comes with a later packet, one of the first eight.
  const late = new Flow("game pattern=cafe");
  assertEquals([late.send(), late.send(), late.send({ payload: [0xca, 0xfe] }), late.send()], [
    CLASS_DEFAULT,
    CLASS_DEFAULT,
    CLASS_GAME,
    CLASS_GAME,
  ]);
});

Deno.test("class rules: others may be given at any time, and hold for flows that are there", () => {
  const flow = new Flow("bulk port=41234");
  for (let i = 0; i < 20; i++) assertEquals(flow.send(), CLASS_BULK);
  flow.rule("game address=203.0.113.7");
  assertEquals(flow.send(), CLASS_GAME);
  flow.rule();
  assertEquals(flow.send(), CLASS_DEFAULT);
});

Deno.test("class rules: a program is for connect alone, and means the ports that it has", () => {
  const rules = readRules(["game program=quake", "bulk port=1"]);
  assertEquals(programsOf(rules), [{ name: "quake", trafficClass: CLASS_GAME }]);
  assertThrows(
    () => parseConfig('[classes]\nrules = ["game program=quake"]\n', "a.toml", {}),
    ConfigError,
    "connect --rule",
  );
});

Deno.test("class rules: the config has them checked, in their order, and a reload takes them", () => {
  const text = '[classes]\nrules = ["game port=7000-7100", "bulk dscp=8"]\napplications_in_metrics = true\n';
  const { classes } = parseConfig(text, "a.toml", {});
  assertEquals(classes, { rules: ["game port=7000-7100", "bulk dscp=8"], applicationsInMetrics: true });
  assertEquals(DEFAULTS.classes, { rules: [], applicationsInMetrics: false });
  const error = assertThrows(
    () => parseConfig('[classes]\nrules = ["game prot=1"]\n', "a.toml", {}),
    ConfigError,
  );
  assertStringIncludes(error.message, "a.toml: classes.rules.0: ");
  assertStringIncludes(error.message, '"game prot=1"');
  assertEquals(RELOADABLE_KEYS.includes("classes"), true);
});
