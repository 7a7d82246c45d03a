/**
 * The kernels of one implementation, chosen in one place: native where the library is loaded, else the portable twins. Invariant:
 * both suites compute the same, so that the choice shows in speed alone; a suite that was made changes nothing by itself, and
 * the caller says which of its process-wide parts to use. Loads no library and reads no configuration.
 */
import { PortableAead } from "./aead_portable.ts";
import { PortableDatagramAead } from "./datagram_portable.ts";
import { PortableShardKernel } from "./gf256.ts";
import { type Blake2s, nobleBlake2s } from "./hash.ts";
import type { Aead, DatagramAead, Lz4, Primitives, ShardKernel } from "./kernels.ts";
import { PortableLz4 } from "./lz4.ts";
import {
  ALGORITHM,
  implementationOf,
  type Native,
  nativeAdviser,
  NativeAead,
  nativeBlake2s,
  NativeDatagramAead,
  NativeLz4,
  nativePrimitives,
  preferredAeads,
} from "./native.ts";
import { NativeShardKernel } from "./native_shards.ts";
import { nodeCrypto } from "./node_crypto.ts";

/** What a tunnel's two protocols are encrypted with; to be spread into `TunnelOptions`. */
export interface CryptoKernels {
  readonly primitives: Primitives;
  /** The transport kernel of WireGuard for `rows` rows of the session table. */
  readonly makeAead: (rows: number) => Aead;
  /** The transport kernel of OxTunnel for `rows` rows, protection of headers included. */
  readonly makeDatagramAead: (rows: number) => DatagramAead;
  /** AEAD_* that this processor has fast instructions for, best first; absent where that is not known. */
  readonly aeads?: readonly number[];
}

export interface Suite {
  readonly kind: "native" | "portable";
  /** Who computes ChaCha20-Poly1305: "libipsec-mb", "AWS-LC" or "node:crypto". */
  readonly by: string;
  readonly crypto: CryptoKernels;
  /** For `useBlake2s`, which holds in the whole thread. */
  readonly blake2s: Blake2s;
  /** For `adviseTables`, which holds in the whole thread: asks for large pages where the library can. */
  readonly adviser: (memory: Uint32Array<ArrayBuffer>) => void;
  readonly makeLz4: () => Lz4;
  /** Erasure coding over GF(256). */
  readonly makeShards: () => ShardKernel;
}

export interface SuiteOptions {
  /** The code of a row whose authentication fails, DROP.forged. */
  readonly forged: number;
  /** Called for each transport kernel whose keys the system did not lock in memory, so that they may reach swap. */
  readonly onSwappable?: () => void;
}

/** The native suite where `native` is the library, and the portable one where it is the reason why there is none. */
export function suiteOf(native: Native | string, options: SuiteOptions): Suite {
  return typeof native === "string" ? portableSuite(options) : nativeSuite(native, options);
}

/** The twins in TypeScript and node:crypto, which run everywhere. */
export function portableSuite({ forged }: SuiteOptions): Suite {
  return {
    kind: "portable",
    by: nodeCrypto.name,
    crypto: {
      primitives: nodeCrypto,
      makeAead: (rows) => new PortableAead(nodeCrypto, rows, forged),
      makeDatagramAead: (rows) => new PortableDatagramAead(rows, forged),
    },
    blake2s: nobleBlake2s,
    adviser: () => {},
    makeLz4: () => new PortableLz4(),
    makeShards: () => new PortableShardKernel(),
  };
}

/** The kernels of the native library, each the fastest that this processor runs. */
export function nativeSuite(native: Native, { forged, onSwappable }: SuiteOptions): Suite {
  return {
    kind: "native",
    by: implementationOf(native, ALGORITHM.chacha20Poly1305) ?? "nobody",
    crypto: {
      primitives: nativePrimitives(native),
      makeAead(rows) {
        const aead = new NativeAead(native, rows, forged);
        if (!aead.isLocked) onSwappable?.();
        return aead;
      },
      makeDatagramAead: (rows) => new NativeDatagramAead(native, rows, forged),
      aeads: preferredAeads(native),
    },
    blake2s: nativeBlake2s(native),
    adviser: nativeAdviser(native),
    makeLz4: () => new NativeLz4(native),
    makeShards: () => new NativeShardKernel(native),
  };
}
