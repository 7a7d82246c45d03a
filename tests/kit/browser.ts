/**
 * A headless Chromium, driven over its DevTools protocol as a person would: by roles and accessible names, mouse and keyboard. Invariant:
 * its profile is its own and gone after `close`; every wait has a deadline and names what was waited for; what the page's console or
 * policy complains of is kept in `complaints`. Speaks the protocol over the browser's pipes, so that no port is open.
 */

const WAIT_MS = 20_000, LOOK_MS = 50;

type Values = Record<string, unknown>;

interface Message {
  id?: number;
  method?: string;
  params?: Values;
  result?: Values;
  error?: { message: string };
}

/** An element as a screen reader has it. */
interface Accessible {
  backendDOMNodeId?: number;
  ignored: boolean;
}

const FLAGS = [
  "--headless",
  "--no-sandbox", // of no use to root
  "--disable-gpu",
  "--disable-dev-shm-usage",
  "--no-first-run",
  "--disable-background-networking",
  "--disable-component-update",
  "--hide-scrollbars",
  "--remote-debugging-pipe",
];

export class Browser {
  /** Errors of the page's scripts, refusals of its policy, and files that could not be loaded. */
  readonly complaints: string[] = [];
  readonly #child: Deno.ChildProcess;
  readonly #profile: string;
  readonly #input: WritableStreamDefaultWriter<Uint8Array>;
  readonly #waiting = new Map<number, (message: Message) => void>();
  #lastId = 0;
  #session: string | undefined;

  private constructor(child: Deno.ChildProcess, profile: string) {
    this.#child = child;
    this.#profile = profile;
    this.#input = child.stdin.getWriter();
    void this.#read();
  }

  /** @param before words before the browser's command, such as `ip netns exec NAME`. */
  static async open(before: readonly string[] = []): Promise<Browser> {
    const profile = await Deno.makeTempDir({ prefix: `oxrelay-test-${Deno.pid}-browser-` });
    // Its pipes are 3 and 4 (chrome/browser/devtools, "remote-debugging-pipe").
    const script = 'exec chromium "$@" 3<&0 4>&1 0</dev/null 1>/dev/null 2>/dev/null';
    const [program, ...args] = [...before, "sh", "-c", script, "sh", ...FLAGS];
    const child = new Deno.Command(program, {
      args: [...args, `--user-data-dir=${profile}`, "about:blank"],
      stdin: "piped",
      stdout: "piped",
      stderr: "null",
    }).spawn();
    const browser = new Browser(child, profile);
    const { targetInfos } = await browser.#ask("Target.getTargets") as { targetInfos: Values[] };
    const { targetId } = targetInfos.find(({ type }) => type === "page")!;
    const { sessionId } = await browser.#ask("Target.attachToTarget", { targetId, flatten: true });
    browser.#session = sessionId as string;
    for (const domain of ["Page", "Runtime", "Log", "DOM", "Accessibility"]) {
      await browser.#ask(`${domain}.enable`);
    }
    return browser;
  }

  async goto(url: string): Promise<void> {
    const { errorText } = await this.#ask("Page.navigate", { url });
    if (errorText !== undefined) throw new Error(`${url}: ${errorText}`);
  }

  /** The size of the window in CSS pixels, and how it is drawn. */
  async look(width: number, height: number, scheme: "light" | "dark", isPhone = false): Promise<void> {
    const metrics = { width, height, deviceScaleFactor: isPhone ? 2 : 1, mobile: isPhone };
    await this.#ask("Emulation.setDeviceMetricsOverride", metrics);
    const features = [{ name: "prefers-color-scheme", value: scheme }];
    await this.#ask("Emulation.setEmulatedMedia", { features });
  }

  /** What a person reads on the page. */
  async text(): Promise<string> {
    return await this.evaluate("document.body?.innerText ?? ''") as string;
  }

  async evaluate(expression: string): Promise<unknown> {
    const answer = await this.#ask("Runtime.evaluate", {
      expression,
      returnByValue: true,
      awaitPromise: true,
    });
    const { result, exceptionDetails } = answer as { result: { value: unknown }; exceptionDetails?: Values };
    if (exceptionDetails) throw new Error(`${expression}: ${JSON.stringify(exceptionDetails)}`);
    return result.value;
  }

  /** Waits until the page's text has this. */
  async reads(words: string | RegExp): Promise<void> {
    const has = (text: string) => typeof words === "string" ? text.includes(words) : words.test(text);
    await this.#until(async () => has(await this.text()) || undefined, `the page reads ${words}`);
  }

  /** Waits for an element of this role and accessible name, and clicks it. */
  async click(role: string, name: string): Promise<void> {
    const backendNodeId = await this.#find(role, name);
    await this.#ask("DOM.scrollIntoViewIfNeeded", { backendNodeId });
    const { model } = await this.#ask("DOM.getBoxModel", { backendNodeId }) as {
      model: { content: number[] };
    };
    const [left, top, , , right, bottom] = model.content;
    const at = { x: (left + right) / 2, y: (top + bottom) / 2, button: "left", clickCount: 1 };
    await this.#ask("Input.dispatchMouseEvent", { type: "mousePressed", ...at });
    await this.#ask("Input.dispatchMouseEvent", { type: "mouseReleased", ...at });
  }

  /** Writes into a field in place of what is in it. */
  async write(role: string, name: string, text: string): Promise<void> {
    const backendNodeId = await this.#find(role, name);
    await this.#ask("DOM.focus", { backendNodeId });
    await this.#ask("Input.dispatchKeyEvent", { type: "keyDown", commands: ["selectAll"] });
    await this.#ask("Input.insertText", { text });
  }

  /** Presses a key where the focus is. */
  async press(key: "Enter" | "Tab" | "Escape"): Promise<void> {
    const code = { Enter: 13, Tab: 9, Escape: 27 }[key];
    const both = { key, code: key, windowsVirtualKeyCode: code, text: key === "Enter" ? "\r" : undefined };
    await this.#ask("Input.dispatchKeyEvent", { type: "keyDown", ...both });
    await this.#ask("Input.dispatchKeyEvent", { type: "keyUp", ...both });
  }

  /** A field's value. */
  async value(role: string, name: string): Promise<string> {
    const { object } = await this.#ask("DOM.resolveNode", { backendNodeId: await this.#find(role, name) });
    const { result } = await this.#ask("Runtime.callFunctionOn", {
      objectId: (object as Values).objectId,
      functionDeclaration: "function () { return this.value; }",
      returnByValue: true,
    });
    return (result as { value: string }).value;
  }

  /** Whether there is an element of this role and name at this moment. */
  async has(role: string, name: string): Promise<boolean> {
    return await this.#look(role, name) !== undefined;
  }

  /** Forgets all cookies, as a browser that was never here. */
  async forgetCookies(): Promise<void> {
    await this.#ask("Network.clearBrowserCookies");
  }

  /** A picture of the window as PNG. */
  async picture(): Promise<Uint8Array> {
    const { data } = await this.#ask("Page.captureScreenshot", { format: "png" });
    return Uint8Array.fromBase64(data as string);
  }

  async close(): Promise<void> {
    await this.#ask("Browser.close", {}, false).catch(() => {});
    await this.#input.close().catch(() => {});
    await this.#child.status;
    await Deno.remove(this.#profile, { recursive: true }).catch(() => {});
  }

  async #find(role: string, name: string): Promise<number> {
    return await this.#until(() => this.#look(role, name), `there is a ${role} "${name}"`);
  }

  async #look(role: string, accessibleName: string): Promise<number | undefined> {
    try {
      const { root } = await this.#ask("DOM.getDocument", { depth: 0 }) as { root: Values };
      const found = await this.#ask("Accessibility.queryAXTree", {
        backendNodeId: root.backendNodeId,
        role,
        accessibleName,
      }) as { nodes: Accessible[] };
      return found.nodes.find(({ ignored }) => !ignored)?.backendDOMNodeId;
    } catch {
      return undefined; // the document has changed meanwhile
    }
  }

  async #until<T>(look: () => Promise<T | undefined>, what: string): Promise<T> {
    const lastMs = performance.now() + WAIT_MS;
    for (;;) {
      const found = await look();
      if (found !== undefined) return found;
      if (performance.now() > lastMs) {
        throw new Error(
          `not within ${WAIT_MS / 1000} s: ${what}; complaints: ${
            this.complaints.join(" | ")
          }; the page reads:\n${await this.text()}`,
        );
      }
      await new Promise((resolve) => setTimeout(resolve, LOOK_MS));
    }
  }

  async #ask(method: string, params: Values = {}, isPage = true): Promise<Values> {
    const id = ++this.#lastId;
    const sessionId = isPage ? this.#session : undefined;
    const { promise, resolve } = Promise.withResolvers<Message>();
    this.#waiting.set(id, resolve);
    const text = `${JSON.stringify({ id, method, params, ...(sessionId && { sessionId }) })}\0`;
    await this.#input.write(new TextEncoder().encode(text));
    const { result, error } = await promise;
    if (error) throw new Error(`${method}: ${error.message}`);
    return result ?? {};
  }

  async #read(): Promise<void> {
    let rest = "";
    const decoder = new TextDecoder();
    for await (const bytes of this.#child.stdout) {
      const messages = (rest + decoder.decode(bytes, { stream: true })).split("\0");
      rest = messages.pop()!;
      for (const message of messages) this.#hear(JSON.parse(message));
    }
    for (const resolve of this.#waiting.values()) resolve({ error: { message: "the browser has ended" } });
  }

  #hear(message: Message): void {
    const { id, method, params } = message;
    if (id !== undefined) {
      this.#waiting.get(id)?.(message);
      this.#waiting.delete(id);
    } else if (method === "Log.entryAdded") {
      const { text, url } = params!.entry as { text: string; url?: string };
      this.complaints.push(`${text} ${url ?? ""}`);
    } else if (method === "Runtime.exceptionThrown") {
      const { exceptionDetails } = params as { exceptionDetails: { text: string; exception?: Values } };
      this.complaints.push(`${exceptionDetails.text} ${exceptionDetails.exception?.description ?? ""}`);
    }
  }
}
