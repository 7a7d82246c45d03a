/** Accept loops and timers that outlive what they fail with, a real shortage of descriptors included. */
import { assert, assertEquals } from "@std/assert";
import { acceptAll } from "../../src/io/accept.ts";
import { every } from "../../src/io/every.ts";
import { requires } from "../kit/requires.ts";

/** Runs a few lines of TypeScript under a limit of descriptors; what they print, as JSON. */
// deno-lint-ignore no-explicit-any
async function under(descriptors: number, source: string): Promise<any> {
  const directory = await Deno.makeTempDir({ prefix: "oxrelay-accept-" });
  try {
    await Deno.writeTextFile(`${directory}/child.ts`, source);
    const { code, stdout, stderr } = await new Deno.Command("prlimit", {
      args: [
        `--nofile=${descriptors}`,
        ...["timeout", "-k", "2", "60", Deno.execPath(), "run", "--no-lock", "--allow-net=127.0.0.1"],
        `${directory}/child.ts`,
      ],
      env: { DENO_NO_UPDATE_CHECK: "1" },
    }).output();
    assertEquals(code, 0, new TextDecoder().decode(stderr));
    return JSON.parse(new TextDecoder().decode(stdout));
  } finally {
    await Deno.remove(directory, { recursive: true });
  }
}

const ACCEPT = new URL("../../src/io/accept.ts", import.meta.url);

Deno.test({
  name: "accept: a loop without descriptors goes on once some are free, and ends with its listener",
  ...requires({ programs: ["prlimit", "timeout"] }),
  async fn() {
    const said = await under(
      64,
      `
import { acceptAll } from "${ACCEPT}";
const listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
const { port } = listener.addr;
const taken = [], faults = new Set(), mine = [];
let isFaulty = Promise.withResolvers(), more = Promise.withResolvers();
const ended = acceptAll(listener, (connection) => {
  taken.push(connection);
  if (taken.length === 1) connection.write(Uint8Array.of(7)).finally(() => more.resolve());
}, (error) => {
  faults.add(error.code);
  isFaulty.resolve();
});
try {
  for (;;) mine.push(await Deno.connect({ hostname: "127.0.0.1", port }));
} catch { /* no descriptor for another */ }
await isFaulty.promise;
const before = taken.length;
for (const connection of mine.splice(10)) connection.close();
for (const connection of taken.splice(0)) connection.close();
const last = await Deno.connect({ hostname: "127.0.0.1", port });
// Those that waited come first, and are given up already.
await more.promise;
listener.close();
await ended;
console.log(JSON.stringify({ before, faults: [...faults] }));
for (const connection of [...mine, ...taken, last]) connection.close();
`,
    );
    assertEquals(said.faults, ["EMFILE"]);
    assert(said.before > 5, "connections were taken before");
  },
});

Deno.test("accept: whatever a connection's taking throws, the next is taken", async () => {
  const outcomes: (number | Error)[] = [
    1,
    new Error("ENOBUFS"),
    2,
    new Deno.errors.ConnectionReset("gone"),
    3,
  ];
  const taken: number[] = [], faults: string[] = [];
  await acceptAll(
    {
      accept: () => {
        const next = outcomes.shift();
        if (typeof next === "number") return Promise.resolve(next);
        return Promise.reject(next ?? new Deno.errors.BadResource("closed"));
      },
    },
    (connection) => {
      taken.push(connection);
      if (connection === 2) throw new Error("no service");
    },
    ({ message }) => faults.push(message),
  );
  assertEquals(taken, [1, 2, 3]);
  assertEquals(faults, ["ENOBUFS", "no service", "gone"]);
});

Deno.test("every: a turn that fails is told and the next comes; none overlap", async () => {
  const done = Promise.withResolvers<void>();
  const faults: string[] = [];
  let turns = 0, acting = 0, overlaps = 0;
  const stop = every(1, async () => {
    if (acting++ > 0) overlaps++;
    const turn = ++turns;
    if (turn >= 4) done.resolve();
    await new Promise((resolve) => setTimeout(resolve, 5));
    acting--;
    if (turn === 1) throw new Error("first");
    if (turn === 2) throw new Error("second");
  }, ({ message }) => faults.push(message));
  await done.promise;
  stop();
  await new Promise((resolve) => setTimeout(resolve, 20));
  assertEquals([faults, overlaps], [["first", "second"], 0]);
  const after = turns;
  await new Promise((resolve) => setTimeout(resolve, 20));
  assertEquals(turns, after, "it is stopped");
});
