// Types for the part of the flag parser that the subcommands use; the npm republication ships none.
export interface ParseOptions {
  boolean?: string[];
  string?: string[];
  collect?: string[];
  alias?: Record<string, string | string[]>;
  default?: Record<string, unknown>;
  stopEarly?: boolean;
  "--"?: boolean;
  unknown?: (arg: string, key?: string, value?: unknown) => unknown;
}
export type Args = { _: (string | number)[]; "--"?: string[] } & Record<string, unknown>;
export declare function parseArgs(args: string[], options?: ParseOptions): Args;
