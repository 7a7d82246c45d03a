/**
 * Takes the pictures of docs/page.md: a real relay with real clients in network namespaces, seen in a headless Chromium. For people who
 * have changed the page; needs root and the programs of tests/system/page_test.ts.
 */
import { Browser } from "../tests/kit/browser.ts";
import { ADMIN_TOKEN, Network, pause, RELAY, SERVER } from "../tests/kit/namespaces.ts";

const DOCS = new URL("../docs/", import.meta.url);
const CONFIG = `public_endpoint = "${RELAY}:4433"\n[destinations]\nallow = ["10.200.0.0/24"]\n`;
/** Traffic before the pictures, so that the charts have something to show. */
const TRAFFIC_MS = 40_000;

const net = await Network.open();
try {
  const names = ["phone", "anna-console", "desk"];
  const clients = [await net.client(2), await net.client(3), await net.client(4)];
  await net.relay(CONFIG);
  for (const [i, name] of names.entries()) {
    if (name === "desk") {
      const line = await net.addPeer(name, `${RELAY}:4433`, ["--oxtunnel"]);
      await net.connect(clients[i], [line.trim(), "--no-dns"]);
    } else await net.wireguard(clients[i], await net.addPeer(name));
  }
  for (const name of ["tablet", "guest", "old-laptop"]) await net.addPeer(name);
  const browser = await Browser.open(["ip", "netns", "exec", net.namespace("relay")]);
  try {
    await browser.look(1200, 560, "light");
    await browser.goto("http://127.0.0.1:9090/");
    await browser.write("textbox", "Admin token", ADMIN_TOKEN);
    await browser.press("Enter");
    await browser.reads("Add device");
    const patch = (name: string, change: object) =>
      browser.evaluate(
        `fetch("v1/peers/${name}", { method: "PATCH", headers: { "content-type": "application/json" }, body: ${
          JSON.stringify(JSON.stringify(change))
        } }).then((answer) => answer.status)`,
      );
    await patch("old-laptop", { disabled: true });
    await patch("guest", { expires: "2026-01-01T00:00:00Z", notes: "Anna's brother" });
    await patch("phone", { monthlyBytes: 50 * 2 ** 30, rateDownBps: 50_000_000 });
    const end = performance.now() + TRAFFIC_MS;
    await Promise.all(clients.map(async (client, i) => {
      for (let round = 0; performance.now() < end; round++) {
        const size = String(200 + 300 * ((round + i) % 4));
        await net.run(client, ["ping", "-q", "-c", "100", "-i", "0.01", "-s", size, SERVER]);
        await pause(300 * (round % 3));
      }
    }));
    const take = async (name: string) => await Deno.writeFile(new URL(name, DOCS), await browser.picture());
    const iperf = (client: string, port: number, ...words: string[]) =>
      void net.run(client, ["iperf3", "-c", SERVER, "-p", String(port), "-u", "-t", "30", ...words], {
        timeoutS: 40,
      });
    for (const port of [5201, 5202]) {
      await net.spawn("server", ["iperf3", "-s", "-p", String(port), "--forceflush"]).says("listening");
    }
    iperf(clients[0], 5201, "-R", "-b", "4M");
    iperf(clients[2], 5202, "-b", "1M");
    await pause(8000);
    await take("page_light.png");
    await browser.look(1200, 560, "dark");
    await browser.click("link", "Traffic");
    await pause(1500);
    await take("page_dark.png");
    await browser.look(400, 800, "dark", true);
    await browser.click("link", "Devices");
    await pause(1500);
    await take("page_phone_dark.png");
    await browser.look(900, 860, "light");
    await browser.click("button", "Add device");
    await browser.write("textbox", "Name", "new-phone");
    await browser.press("Enter");
    await browser.reads("new-phone is ready");
    // The key that is in the picture belongs to a relay that is gone with this program.
    await take("page_add.png");
  } finally {
    await browser.close();
  }
} finally {
  await net.close();
}
