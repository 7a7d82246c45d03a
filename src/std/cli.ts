// The flag parser of Deno's standard library, from its npm republication: swap this line for jsr:@std/cli.
// @ts-types="./cli.d.ts"
export * from "deno-std/cli/parse_args.js";
