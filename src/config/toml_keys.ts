/**
 * A configuration under the names of its file, for comparing and showing. Invariant: every field of a Config has its key here. Hides
 * no secret.
 */
import type { Config } from "./shape.ts";
import { formatEndpoint } from "./values.ts";

/** A config as the file would write it: TOML keys, endpoints as text. Secrets included. */
export function toTomlKeys(config: Config): Record<string, unknown> {
  const { listen, metricsListen, classes, destinations, fallback, ...rest } = config;
  return snakeCase({
    listen: formatEndpoint(listen),
    metricsListen: formatEndpoint(metricsListen),
    ...rest,
    classes: snakeCase(classes),
    destinations: snakeCase(destinations),
    ...(fallback && { fallback: snakeCase({ ...fallback, listen: formatEndpoint(fallback.listen) }) }),
  });
}

function snakeCase(object: object): Record<string, unknown> {
  return Object.fromEntries(
    Object.entries(object).map((
      [key, value],
    ) => [key.replace(/[A-Z]/g, (c) => `_${c.toLowerCase()}`), value]),
  );
}
