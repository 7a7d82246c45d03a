/**
 * The page as a person uses it, in a headless Chromium beside a real relay: a device is added there, its configuration runs in Debian's
 * wireguard-go, and what is clicked is what happens to its packets. Elements are found by role and accessible name, as a screen reader
 * finds them.
 */
import { assert, assertEquals, assertGreater, assertMatch } from "@std/assert";
import * as v from "valibot";
import {
  HistoryAnswer,
  Overview,
  PeerRow,
  RelayEvent,
  SessionRow,
  StatusAnswer,
} from "../../src/admin/shapes.ts";
import { Browser } from "../kit/browser.ts";
import { ADMIN_TOKEN, type Network, networkTest, RELAY, SERVER, until } from "../kit/namespaces.ts";
import { requires } from "../kit/requires.ts";

const needs = requires({
  root: true,
  programs: ["ip", "nft", "wg", "wg-quick", "wireguard-go", "ping", "chromium"],
});

const CONFIG = `workers = 2\npublic_endpoint = "${RELAY}:4433"\n[destinations]\nallow = ["10.200.0.0/24"]\n`;
const PAGE = "http://127.0.0.1:9090/";

/** Runs `body` with a browser on the relay's host that has signed in. */
async function withPage(net: Network, body: (page: Browser) => Promise<void>): Promise<void> {
  const page = await Browser.open(["ip", "netns", "exec", net.namespace("relay")]);
  try {
    await page.look(1100, 800, "light");
    await page.goto(PAGE);
    await signIn(page);
    await body(page);
    const complaints = page.complaints.filter((text) => !/status of 40[14]|Password forms/.test(text));
    assertEquals(complaints, [], "neither errors of scripts nor anything that the policy stopped");
  } finally {
    await page.close();
  }
}

async function signIn(page: Browser): Promise<void> {
  await page.write("textbox", "Admin token", ADMIN_TOKEN);
  await page.press("Enter");
  await page.reads("Add device");
}

async function addDevice(page: Browser, name: string): Promise<string> {
  await page.click("button", "Add device");
  await page.write("textbox", "Name", name);
  await page.press("Enter");
  await page.reads(`${name} is ready`);
  const configuration = await page.value("textbox", "Configuration");
  assert(await page.has("image", `QR code of the configuration of ${name}`));
  await page.press("Escape");
  return configuration;
}

/** Whether the server answers, through the tunnel. */
async function pings(net: Network, client: string): Promise<boolean> {
  return (await net.run(client, ["ping", "-c", "1", "-W", "1", SERVER])).success;
}

/** Has wireguard-go begin a handshake at once, where it would wait for seconds. */
async function handshake(net: Network, client: string, configuration: string): Promise<void> {
  const device = net.device(client);
  const key = /^PublicKey = (.*)$/m.exec(configuration)![1];
  await net.must(client, ["wg", "set", device, "peer", key, "remove"]);
  const stripped = await net.must(client, ["wg-quick", "strip", `${net.directory}/${client}.conf`]);
  await net.must(client, ["wg", "addconf", device, "/dev/stdin"], {
    input: stripped.slice(stripped.indexOf("[Peer]")),
  });
}

async function comesBack(net: Network, client: string, configuration: string): Promise<void> {
  await handshake(net, client, configuration);
  await until(() => pings(net, client), "the device's packets pass again");
}

const stops = (net: Network, client: string) =>
  until(async () => !await pings(net, client), "the device's packets pass no more");

/** What a real relay answers has every field that the document promises, and no other. */
async function fitsItsShape(net: Network): Promise<void> {
  const read = async (path: string) => JSON.parse((await net.ask(path)).text);
  const [peer] = await read("/v1/peers");
  assertEquals(v.safeParse(v.strictObject(PeerRow.entries), peer).issues, undefined);
  assertEquals(v.safeParse(v.strictObject(Overview.entries), await read("/v1/overview")).issues, undefined);
  assertEquals(v.safeParse(StatusAnswer, await read("/v1/status")).issues, undefined);
  assertEquals(v.safeParse(v.array(SessionRow), await read("/v1/sessions")).issues, undefined);
  assertEquals(v.safeParse(HistoryAnswer, await read("/v1/history")).issues, undefined);
  assertEquals(v.safeParse(v.array(RelayEvent), await read("/v1/events")).issues, undefined);
}

/** Opens a device's dialog and presses one of its buttons. */
async function press(page: Browser, name: string, button: string): Promise<void> {
  await page.click("button", `Details of ${name}`);
  await page.click("button", button);
}

/** Opens a device's settings, writes into its fields and saves. */
async function change(page: Browser, name: string, fields: [role: string, label: string, text: string][]) {
  await page.click("button", `Details of ${name}`);
  await page.click("DisclosureTriangle", "Settings");
  for (const [role, label, text] of fields) await page.write(role, label, text);
  await page.click("button", "Save");
  await page.reads("is saved.");
}

const VOLUME = "Volume a month, GiB";

/** A phone that was added on the page, in wireguard-go; returns its configuration. */
async function connectPhone(net: Network, page: Browser, client: string): Promise<string> {
  const configuration = await addDevice(page, "phone");
  await net.wireguard(client, configuration);
  await until(() => pings(net, client), "the device's packets pass");
  await page.reads(/phone\s+connected/);
  return configuration;
}

/** Whether the link gave a configuration, or a refusal. */
async function friendHas(page: Browser): Promise<boolean> {
  await page.reads(/friend is ready|was used, has expired/);
  return /friend is ready/.test(await page.text());
}

/** Disables, enables and renames the phone. */
async function disableAndEnable(net: Network, page: Browser, client: string, configuration: string) {
  await press(page, "phone", "Disable phone");
  await page.reads("phone is disabled and cut off.");
  await stops(net, client);
  await page.reads(/phone\s+disabled/);
  await handshake(net, client, configuration);
  assertEquals(await pings(net, client), false);
  assertGreater((await net.status()).drops.barred_peer, 0);

  await press(page, "phone", "Enable phone");
  await page.reads("phone may connect again.");
  await comesBack(net, client, configuration);
  await change(page, "phone", [
    ["textbox", "Name", "console"],
    ["textbox", "Notes", "Anna's"],
    ["textbox", "Port forwards", "udp:27015"],
  ]);
  assert(await pings(net, client), "a new name leaves the session");
  assertEquals(JSON.parse((await net.ask("/v1/peers")).text)[0].forwards, ["udp:27015"]);
  await page.write("searchbox", "Search devices", "anna");
  await page.reads("Page 1 of 1 · 1 device");
  await page.reads("console");
}

/** Somebody else sets a limit while the console's settings are open; saving another one there leaves that limit, to its last digit. */
async function leavesWhatOthersSet(net: Network, page: Browser) {
  const rateDownBps = 987_654_321;
  await page.click("button", "Details of console");
  await page.click("DisclosureTriangle", "Settings");
  await net.script(
    "relay",
    `const headers = { authorization: "Bearer ${ADMIN_TOKEN}", "content-type": "application/json" };
const body = JSON.stringify({ rateDownBps: ${rateDownBps} });
await fetch("http://127.0.0.1:9090/v1/peers/console", { method: "PATCH", headers, body });`,
  );
  await page.write("textbox", "Notes", "Anna's own");
  await page.click("button", "Save");
  const console = async () => JSON.parse((await net.ask("/v1/peers")).text)[0];
  await until(async () => (await console()).notes === "Anna's own", "the notes are saved");
  assertEquals((await console()).rateDownBps, rateDownBps);
}

/** Has the console use up its volume, and removes and restores it. */
async function useUpAndRemove(net: Network, page: Browser, client: string, configuration: string) {
  await change(page, "console", [["spinbutton", VOLUME, "0.001"]]);
  await net.run(client, ["ping", "-q", "-f", "-c", "600", "-s", "1300", "-W", "1", SERVER]);
  await stops(net, client);
  await page.reads(/console\s+volume used up/);
  await change(page, "console", [["spinbutton", VOLUME, ""]]);
  await comesBack(net, client, configuration);

  await press(page, "console", "Remove console");
  await page.reads("console is removed and cut off.");
  await stops(net, client);
  await page.click("button", "Undo");
  await page.reads("console is back, with the same keys and addresses.");
  await comesBack(net, client, configuration);
}

networkTest("page: what is clicked is what happens to a device's packets", needs, async (net) => {
  const client = await net.client(2);
  await net.relay(CONFIG);
  await withPage(net, async (page) => {
    const configuration = await connectPhone(net, page, client);
    await fitsItsShape(net);
    await disableAndEnable(net, page, client, configuration);
    await leavesWhatOthersSet(net, page);
    await useUpAndRemove(net, page, client, configuration);
    await page.click("link", "Traffic");
    await page.reads("The handshake was valid, but its peer is disabled");
    await page.click("link", "Events");
    const events = [
      "was disabled",
      "is called console now",
      "has used up its volume",
      "was removed",
      "was restored",
    ];
    for (const event of events) await page.reads(event);
  });
});

networkTest(
  "page: a one-time link makes one device, once, and what was counted survives kill -9",
  needs,
  async (net) => {
    const friend = await net.client(3);
    const relay = await net.relay(CONFIG);
    let address = "";
    await withPage(net, async (page) => {
      await page.click("link", "One-time links");
      await page.click("button", "New link");
      await page.write("textbox", "Name", "friend");
      await page.click("button", "Make link");
      await page.reads("The link is ready");
      address = await page.value("textbox", "Link");
      assertMatch(address, /^http:\/\/127\.0\.0\.1:9090\/link#[\w-]{43}$/);
      await page.forgetCookies(); // from here on somebody else, who has signed in nowhere
      for (const isFirst of [true, false, false]) {
        await page.goto("about:blank");
        await page.goto(address);
        await page.reads("It works once");
        const shown = await page.evaluate("location.href");
        assertEquals(shown, "http://127.0.0.1:9090/link", "nothing for shoulders to read");
        if (isFirst) continue; // opening the link does not use it
        await page.click("button", "Make my configuration");
        if (await friendHas(page)) await net.wireguard(friend, await page.value("textbox", "Configuration"));
        else await page.reads("this link was used, has expired or was revoked");
      }
      await until(() => pings(net, friend), "the friend's packets pass");
    });
    assertEquals((await net.status()).peers.map(({ name }) => name), ["friend"]);
    const [, token] = address.split("#");
    assert(!relay.said.includes(token));
    const traffic = `${net.directory}/state/traffic.json`;
    const usage = async () => JSON.parse((await net.ask("/v1/peers")).text)[0].usage;
    await until(() => Deno.stat(traffic).then(() => true, () => false), "the counts are stored");
    await relay.stop("SIGKILL");
    const stored = await Deno.readTextFile(traffic);
    await net.relay(CONFIG);
    const [[received]] = Object.values(JSON.parse(stored).peers) as number[][];
    assertGreater(received, 0);
    assertGreater((await usage()).received, received - 1);
  },
);
