// The TOML parser of Deno's standard library, from its npm republication: swap this line for jsr:@std/toml.
// @ts-types="./toml.d.ts"
export * from "deno-std/toml/mod.js";
