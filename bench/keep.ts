/**
 * `deno task bench:keep NAME …`: runs the task bench:NAME, shows what it prints and keeps that in bench/results/NAME.txt, headed by
 * the program's version, the machine and how busy it was: the raw result of what bench/docs/ publishes. Measures nothing.
 */
const [name, ...rest] = Deno.args;
if (name === undefined || !/^[a-z]+$/.test(name)) {
  console.error("usage: deno task bench:keep NAME …, for the task bench:NAME");
  Deno.exit(2);
}
const text = new TextDecoder();
const commit = new Deno.Command("git", { args: ["describe", "--always", "--dirty"] }).outputSync();
const load = () => Deno.loadavg().map((value) => value.toFixed(1)).join(" ");
const head = [
  `deno task bench:${[name, ...rest].join(" ")}`,
  `program ${text.decode(commit.stdout).trim()}, Deno ${Deno.version.deno}, Linux ${Deno.osRelease()}, ` +
  `${navigator.hardwareConcurrency} processors of ${Deno.build.arch}`,
  `load before: ${load()}`,
];
const child = new Deno.Command(Deno.execPath(), {
  args: ["task", "-q", `bench:${name}`, ...rest],
  stdout: "piped",
}).spawn();
const printed: string[] = [];
for await (const part of child.stdout.pipeThrough(new TextDecoderStream())) {
  console.log(part.replace(/\n$/, ""));
  printed.push(part);
}
const { code } = await child.status;
if (code === 0) {
  await Deno.mkdir("bench/results", { recursive: true });
  const kept = [...head, `load after: ${load()}`, "", printed.join("").trim(), ""].join("\n");
  await Deno.writeTextFile(`bench/results/${name}.txt`, kept);
}
Deno.exit(code);
