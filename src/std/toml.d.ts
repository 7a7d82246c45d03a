// Types for the TOML parser; the npm republication ships none.
export declare function parse(text: string): Record<string, unknown>;
export declare function stringify(value: Record<string, unknown>): string;
