/**
 * A child of permissions_test.ts: prints, as JSON, the state of every permission that its argument lists, asked by the main
 * thread and, with the second argument "worker", by a Worker. Uses none of them.
 */
import type { Question } from "./permissions_test.ts";

async function answers(questions: Question[]): Promise<string[]> {
  const states: string[] = [];
  for (const question of questions) {
    states.push((await Deno.permissions.query(question as unknown as Deno.PermissionDescriptor)).state);
  }
  return states;
}

if (Deno.mainModule === import.meta.url && !("DedicatedWorkerGlobalScope" in globalThis)) {
  const questions = JSON.parse(Deno.args[0]);
  const said = [await answers(questions)];
  if (Deno.args[1] === "worker") {
    const worker = new Worker(import.meta.url, { type: "module" });
    worker.postMessage(questions);
    said.push(await new Promise((resolve) => worker.onmessage = ({ data }) => resolve(data)));
    worker.terminate();
  }
  console.log(JSON.stringify(said));
} else {
  globalThis.addEventListener("message", async (event) => {
    self.postMessage(await answers((event as MessageEvent<Question[]>).data));
  });
}
