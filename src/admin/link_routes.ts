/**
 * The routes of one-time links. Invariant: a link's token comes in a body and never in a path, so that no log of a proxy has it, and
 * no program that only looks at an address uses the link; a wrong token changes nothing and locks nobody out. Attempts are not counted,
 * because a token has 256 random bits. The links are AdminDeps'.
 */
import type { Hono } from "hono";
import { checked, readJson, refuse } from "./answers.ts";
import type { AdminDeps } from "./deps.ts";
import { judgeOrigin } from "./guard.ts";
import { described } from "./openapi.ts";
import { withCodes } from "./peer_routes.ts";
import { LinkId, NewLink, TokenBody } from "./shapes.ts";

/** For everybody who has a link; to be added before the guard. */
export function addRedeeming(app: Hono, deps: AdminDeps): void {
  app.post("/v1/links/redeem", described("POST /v1/links/redeem"), async (c) => {
    const foreign = judgeOrigin(c.req.raw);
    if (foreign !== undefined) return refuse(c, foreign.status, foreign.field, foreign.message);
    const body = await readJson(c, TokenBody);
    if (body instanceof Response) return body;
    const added = await deps.redeemLink(body.token);
    if (added !== undefined) return c.json(withCodes(added), 201);
    return refuse(c, 404, "token", "this link was used, has expired or was revoked; ask for another");
  });
}

export function addLinkRoutes(app: Hono, deps: AdminDeps): void {
  app.get("/v1/links", described("GET /v1/links"), (c) => c.json(deps.links()));
  app.post("/v1/links", described("POST /v1/links"), async (c) => {
    const link = await readJson(c, NewLink);
    return link instanceof Response ? link : c.json(await deps.makeLink(link), 201);
  });
  app.delete("/v1/links/:id", described("DELETE /v1/links/{id}"), async (c) => {
    const id = checked(c, LinkId, c.req.param("id"), "id");
    if (id instanceof Response) return id;
    if (await deps.revokeLink(id)) return c.body(null, 204);
    return refuse(c, 404, "id", `there is no link ${id}`);
  });
}
