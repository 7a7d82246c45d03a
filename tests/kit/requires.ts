/**
 * What a test needs of the machine: root, or programs. Invariant: a test that cannot run says so on stderr with
 * the remedy, and with CI=true the missing thing is a failing test, so that nothing is skipped in silence.
 * Installs nothing.
 */

/** Debian packages of the programs that the tests run. */
const PACKAGES: Record<string, string> = {
  "chromium": "chromium",
  "dnsmasq": "dnsmasq-base",
  "dpkg-deb": "dpkg",
  "ethtool": "ethtool",
  "nginx": "nginx-light",
  "nsenter": "util-linux",
  "timeout": "coreutils",
  "git": "git",
  "ip": "iproute2",
  "iperf3": "iperf3",
  "nft": "nftables",
  "ping": "iputils-ping",
  "ps": "procps",
  "prlimit": "util-linux",
  "prometheus": "prometheus",
  "promtool": "prometheus",
  "script": "bsdutils",
  "setpriv": "util-linux",
  "strace": "strace",
  "sysctl": "procps",
  "tc": "iproute2",
  "tcpdump": "tcpdump",
  "tshark": "tshark",
  "qemu-aarch64-static": "qemu-user-static",
  "qemu-x86_64-static": "qemu-user-static",
  "wg": "wireguard-tools",
  "wg-quick": "wireguard-tools",
  "wireguard-go": "wireguard-go",
};

export interface Needs {
  /** The test makes network namespaces or devices. */
  root?: boolean;
  /** Programs that must be on PATH; the `test` task's --allow-run names each. */
  programs?: readonly string[];
  /** Files that no package has; the `test` task's --allow-read names their directory. */
  files?: readonly string[];
}

/** Whether an emulated processor runs this (tests/arm64.ts): some thirty times slower, so random tests take fewer rounds there; it starts no
 * program, and knows not every call of the system. */
export const isEmulated = Deno.env.get("EMULATED") === "1";

const told = new Set<string>();

/** What of the needs is missing here, each with its remedy: "wg; install with `apt-get install …`". */
export function missingNeeds({ root = false, programs = [], files = [] }: Needs): string[] {
  const missing: string[] = [];
  if (root && Deno.uid() !== 0) missing.push("root; run the tests as root, in a container or VM of your own");
  for (const program of programs) {
    if (isInstalled(program)) continue;
    missing.push(`${program}; ${remedyFor(program)}`);
  }
  for (const file of files) {
    if (!isThere(file)) missing.push(`${file}; it comes beside the source, in ../shared`);
  }
  return missing;
}

/** How a program is got that is not there. */
export function remedyFor(program: string): string {
  return `install with \`apt-get install ${PACKAGES[program] ?? program}\``;
}

function isThere(file: string): boolean {
  try {
    return Deno.statSync(file).isFile;
  } catch {
    return false;
  }
}

/**
 * Options for `Deno.test({ name, ...requires({ root: true, programs: ["wg"] }), fn })`. Where something is
 * missing the test is ignored and stderr says what and how to get it, once per reason and file; with CI=true a
 * failing test is registered besides.
 */
export function requires(needs: Needs): { ignore: boolean } {
  const missing = missingNeeds(needs);
  const file = Deno.mainModule.slice(Deno.mainModule.lastIndexOf("/tests/") + 1);
  for (const reason of missing) {
    if (told.has(reason)) continue;
    told.add(reason);
    console.error(`SKIPPED ${file}: needs ${reason}`);
    if (Deno.env.get("CI") !== "true") continue;
    Deno.test(`${file}: needs ${reason}`, () => {
      throw new Error("CI=true, so a test that cannot run is a failure");
    });
  }
  return { ignore: missing.length > 0 };
}

/** Starts the program for a moment: what is tried is what the test will do, PATH and permissions included. */
function isInstalled(program: string): boolean {
  try {
    new Deno.Command(program, { args: ["--version"], stdin: "null", stdout: "null", stderr: "null" })
      .outputSync();
    return true;
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return false;
    if (error instanceof Deno.errors.NotCapable) {
      throw new Error(
        `the tests may not run ${program}: add it to --allow-run of the test task in deno.json`,
      );
    }
    throw error;
  }
}
