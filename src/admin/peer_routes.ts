/**
 * The routes of /v1/peers: list, add, change, remove, restore. Invariant: a request is checked whole before anything is done, and an
 * answer has a private key only where the request made it. The relay behind them is AdminDeps.
 */
import type { Context, Hono } from "hono";
import { encode } from "uqr";
import { checked, readJson, refuse } from "./answers.ts";
import type { AdminDeps, NewPeerAnswer } from "./deps.ts";
import { described } from "./openapi.ts";
import { selectPeers } from "./peers_list.ts";
import { NewForwards, NewPeer, PeerChange, PeerName, PeersQuery } from "./shapes.ts";

/** How old the peers of one page may be, milliseconds: a page asks again and again, and all of them share the answers. */
const PAGE_AGE_MS = 900;

export function addPeerRoutes(app: Hono, deps: AdminDeps): void {
  app.get("/v1/peers", described("GET /v1/peers"), async (c) => {
    const query = checked(c, PeersQuery, c.req.query(), "query");
    if (query instanceof Response) return query;
    const isPage = query.page !== undefined || query.perPage !== undefined;
    const { rows, found } = selectPeers(await deps.peers(isPage ? PAGE_AGE_MS : 0), query);
    c.header("X-Total-Count", String(found));
    return c.json(rows);
  });
  app.post("/v1/peers", described("POST /v1/peers"), async (c) => {
    const peer = await readJson(c, NewPeer);
    if (peer instanceof Response) return peer;
    const { network, ...wanted } = peer;
    // 400, not 409: the caller's configuration is of another relay, so the caller stores the peer by itself.
    if (network !== undefined && network !== deps.network()) {
      return refuse(c, 400, "network", "this relay has another key or other tunnel networks");
    }
    return c.json(withCodes(await deps.addPeer(wanted)), 201);
  });
  addRoutesOfOne(app, deps);
  addForwardRoutes(app, deps);
}

/** The routes of one peer, by its name. */
function addRoutesOfOne(app: Hono, deps: AdminDeps): void {
  /** Answers what `act` does to the peer that the path names: 404 where it finds none. */
  const onPeer = async (c: Context, act: (name: string) => Promise<Response | boolean>) => {
    const name = checked(c, PeerName, c.req.param("name"), "name");
    if (name instanceof Response) return name;
    const result = await act(name);
    if (result instanceof Response) return result;
    return result ? c.body(null, 204) : refuse(c, 404, "name", `there is no peer ${name}`);
  };
  app.get("/v1/peers/:name", described("GET /v1/peers/{name}"), (c) =>
    onPeer(c, async (name) => {
      const row = (await deps.peers(PAGE_AGE_MS)).find((peer) => peer.name === name);
      return row !== undefined && c.json(row);
    }));
  app.patch("/v1/peers/:name", described("PATCH /v1/peers/{name}"), (c) =>
    onPeer(c, async (name) => {
      const change = await readJson(c, PeerChange);
      return change instanceof Response ? change : await deps.changePeer(name, change);
    }));
  app.delete(
    "/v1/peers/:name",
    described("DELETE /v1/peers/{name}"),
    (c) => onPeer(c, (name) => deps.removePeer(name)),
  );
  app.post("/v1/peers/:name/ping", described("POST /v1/peers/{name}/ping"), (c) =>
    onPeer(c, async (name) => {
      const rttMs = await deps.ping(name);
      return rttMs !== false && c.json({ rttMs });
    }));
  app.post(
    "/v1/peers/:name/restore",
    described("POST /v1/peers/{name}/restore"),
    (c) =>
      onPeer(c, async (name) =>
        await deps.restorePeer(name) ||
        refuse(c, 404, "name", `no peer ${name} was removed in the last seconds`)),
  );
}

function addForwardRoutes(app: Hono, deps: AdminDeps): void {
  app.post("/v1/peers/:name/forwards", described("POST /v1/peers/{name}/forwards"), async (c) => {
    const body = await readJson(c, NewForwards);
    if (body instanceof Response) return body;
    const name = checked(c, PeerName, c.req.param("name"), "name");
    if (name instanceof Response) return name;
    const record = await deps.addForwards(name, body.forwards);
    return record ? c.json(record, 201) : refuse(c, 404, "name", `there is no peer ${name}`);
  });
  app.delete(
    "/v1/peers/:name/forwards/:forward",
    described("DELETE /v1/peers/{name}/forwards/{forward}"),
    async (c) => {
      const name = checked(c, PeerName, c.req.param("name"), "name");
      if (name instanceof Response) return name;
      if (await deps.removeForward(name, c.req.param("forward"))) return c.body(null, 204);
      return refuse(c, 404, "forward", `peer ${name} has no such forward`);
    },
  );
}

/** The answer with a code for each text that a device scans. */
export function withCodes(answer: NewPeerAnswer) {
  const { config, invitation, privateKey } = answer;
  return {
    ...answer,
    // Without its private key a configuration is of no use to a phone.
    ...(config === undefined || privateKey === undefined ? {} : { configQr: qrOf(config) }),
    ...(invitation === undefined ? {} : { invitationQr: qrOf(invitation) }),
  };
}

function qrOf(text: string): string[] {
  return encode(text, { ecc: "L", border: 0 }).data.map((row) => row.map(Number).join(""));
}
