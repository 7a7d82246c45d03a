/**
 * A Worker that is given one forged message: the native AEAD refuses it, and its library keeps a note of the refusal with the
 * thread. Says "refused", and does nothing more until it is ended.
 */
import { loadNative } from "../../ffi/native.ts";
import { nativePrimitives } from "../../src/codec/native.ts";

const native = loadNative();
if (typeof native === "string") throw new Error(native);
const opened = nativePrimitives(native).open(new Uint8Array(32), 1, new Uint8Array(40), new Uint8Array(0));
if (opened !== undefined) throw new Error("a forged message was opened");
(self as unknown as { postMessage(message: unknown): void }).postMessage("refused");
