/**
 * What the two halves of the test command came to, from the results that they left: one drives sockets, devices and whole
 * relays and mostly waits, the other computes. They run side by side, and neither may be ended by the other's failure, for a system test that is killed leaves its namespaces behind. Exits with 1 when a
 * test failed or a half left no results. Runs no test.
 */
const RESULTS = ["tests/results/outside.xml", "tests/results/inside.xml"];

let passed = 0, failed = 0, isWhole = true;
for (const file of RESULTS) {
  // A test case is one element, and one that failed or was skipped holds one of these; text is escaped in XML.
  const text = await Deno.readTextFile(file).catch(() => undefined);
  if (text === undefined) {
    console.error(`${file} is missing: its half of the tests ended early`);
    isWhole = false;
    continue;
  }
  const count = (element: string) => text.split(element).length - 1;
  const bad = count("<failure") + count("<error");
  failed += bad;
  passed += count("<testcase ") - bad - count("<skipped");
}
console.log(`${passed} passed, ${failed} failed`);
Deno.exit(isWhole && failed === 0 && passed > 0 ? 0 : 1);
