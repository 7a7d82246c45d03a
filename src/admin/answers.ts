/**
 * Requests read and refusals answered, for all routes. Invariant: every refusal is JSON that names the field at fault, and at most
 * BODY_BYTES_MAX bytes of a body are read. Knows no route.
 */
import type { Context } from "hono";
import * as v from "valibot";

/** Longest request body, in bytes. */
export const BODY_BYTES_MAX = 16 << 10;

export type RefusalStatus = 400 | 401 | 403 | 404 | 409 | 413 | 415 | 429 | 500;

/** A well-formed request that cannot be granted, or only in part: answered with 409 and this field and message. */
export class Refusal extends Error {
  override readonly name = "Refusal";
  readonly field: string;

  constructor(field: string, message: string) {
    super(message);
    this.field = field;
  }
}

export function refuse(c: Context, status: RefusalStatus, field: string, message: string): Response {
  return c.json({ error: { field, message } }, status);
}

function refuseIssue(c: Context, issue: v.BaseIssue<unknown>, whole: string): Response {
  return refuse(c, 400, v.getDotPath(issue) ?? whole, issue.message);
}

/** `value` as the schema has it, or the refusal with the first mistake; `whole` names what is at fault as a whole. */
export function checked<S extends v.GenericSchema>(
  c: Context,
  schema: S,
  value: unknown,
  whole: string,
): v.InferOutput<S> | Response {
  const result = v.safeParse(schema, value);
  return result.success ? result.output : refuseIssue(c, result.issues[0], whole);
}

/** The JSON body as the schema has it, or the refusal. */
export async function readJson<S extends v.GenericSchema>(
  c: Context,
  schema: S,
): Promise<v.InferOutput<S> | Response> {
  // A page of another site can send anything but JSON without a CORS preflight.
  if (!/^application\/json\b/i.test(c.req.header("Content-Type") ?? "")) {
    return refuse(c, 415, "Content-Type", "send the body as application/json");
  }
  const text = await readBody(c.req.raw);
  if (text === undefined) return refuse(c, 413, "body", `the body may be ${BODY_BYTES_MAX} bytes at most`);
  let body: unknown;
  try {
    body = JSON.parse(text);
  } catch (error) {
    if (!(error instanceof SyntaxError)) throw error;
    return refuse(c, 400, "body", "the body is not JSON");
  }
  return checked(c, schema, body, "body");
}

/** The body's text, or undefined when the body is longer than BODY_BYTES_MAX, whatever its announced length. */
async function readBody(request: Request): Promise<string | undefined> {
  const decoder = new TextDecoder();
  let text = "";
  let length = 0;
  for await (const chunk of request.body ?? []) {
    length += chunk.length;
    if (length > BODY_BYTES_MAX) return undefined;
    text += decoder.decode(chunk, { stream: true });
  }
  return text + decoder.decode();
}
