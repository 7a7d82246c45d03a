// The assertions of Deno's standard library, from its npm republication: swap this line for jsr:@std/assert.
// @ts-types="./assert.d.ts"
export * from "deno-std/assert/mod.js";
