/**
 * The sample captures of librohc's test suite (didier-barvaux/rohc, LGPL-2.1; ../shared/rohc), unpacked into a folder of
 * their own for one test. Every ROHC capture holds what two compressors made of the same packets, in turn: an even
 * packet belongs to the first channel, an odd one to the second. Judges nothing.
 */
import { readFrames } from "../../src/cli/capture.ts";

export const ARCHIVE = new URL("../../../shared/rohc/librohc-samples.tar.xz", import.meta.url).pathname;

const LINK_ETHERNET = 1, LINK_COOKED = 113, LINK_COOKED_2 = 276;

/** Unpacks the archive and gives its folder, which goes with `using`. */
export async function unpackSamples(): Promise<{ folder: string } & Disposable> {
  const folder = await Deno.makeTempDir({ prefix: "rohc-samples-" });
  const { success, stderr } = await new Deno.Command("tar", { args: ["-xJf", ARCHIVE, "-C", folder] })
    .output();
  if (!success) throw new Error(`tar could not unpack ${ARCHIVE}: ${new TextDecoder().decode(stderr)}`);
  return { folder, [Symbol.dispose]: () => Deno.removeSync(folder, { recursive: true }) };
}

/** All files below `folder`, in order of their names. */
export function filesBelow(folder: string): string[] {
  const files = [];
  for (const { name, isDirectory } of Deno.readDirSync(folder)) {
    const path = `${folder}/${name}`;
    if (isDirectory) files.push(...filesBelow(path));
    else files.push(path);
  }
  return files.sort();
}

/** What the frames of a capture hold behind their link's header. */
export function payloadsOf(path: string): Uint8Array[] {
  const file = Deno.readFileSync(path);
  return Array.from(readFrames(file), ({ at, bytes, link }) => {
    const head = link === LINK_ETHERNET ? 14 : link === LINK_COOKED ? 16 : link === LINK_COOKED_2 ? 20 : 0;
    return file.subarray(at + Math.min(head, bytes), at + bytes);
  });
}
