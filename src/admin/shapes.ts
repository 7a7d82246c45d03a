/**
 * What /v1 takes and gives, as valibot schemas: the types of the answers, the checks of the requests, and the OpenAPI document are all
 * made of these. Invariant: a request that a schema passes can be carried out as it stands; no answer has a place for a secret but
 * NewPeerAnswer and NewLinkAnswer. Long texts for people belong to openapi.ts.
 */
import * as v from "valibot";
import {
  MONTHLY_BYTES_MAX,
  NOTES_CHARACTERS_MAX,
  PEER_RATE_MAX_BPS,
  PEER_RATE_MIN_BPS,
} from "../session/peer_record.ts";

/** Peers of one page, and pages. */
export const PER_PAGE_MAX = 200, PER_PAGE_DEFAULT = 50;

export const PeerName = v.pipe(
  v.string("a peer's name is text"),
  v.regex(/^[A-Za-z0-9._-]{1,63}$/, "a peer's name is 1 to 63 characters of A-Z a-z 0-9 . _ -"),
);

/** 32 bytes of base64: the last character before the padding carries four bits. */
const keyText = (what: string) =>
  v.pipe(
    v.string(`a ${what} is text`),
    v.regex(/^[A-Za-z0-9+/]{42}[AEIMQUYcgkosw048]=$/, `a ${what} is 44 characters of base64`),
  );

const TIME_WORDS = 'a time is in UTC, such as "2026-12-31T23:59:59Z"';
/** A time of RFC 3339 in UTC, brought into the form that `Date.toISOString` writes. */
const Time = v.pipe(
  v.string(TIME_WORDS),
  v.regex(/^\d{4}-\d\d-\d\dT\d\d:\d\d(:\d\d(\.\d{1,3})?)?Z$/, TIME_WORDS),
  v.check((text) => !Number.isNaN(Date.parse(text)), TIME_WORDS),
  v.transform((text) => new Date(text).toISOString()),
);

const VOLUME_WORDS = `a monthly volume is whole bytes from 1 to ${MONTHLY_BYTES_MAX}`;
const Volume = v.pipe(
  v.number(VOLUME_WORDS),
  v.integer(VOLUME_WORDS),
  v.minValue(1, VOLUME_WORDS),
  v.maxValue(MONTHLY_BYTES_MAX, VOLUME_WORDS),
);
const RATE_WORDS = `a rate is whole bits a second from ${PEER_RATE_MIN_BPS} to ${PEER_RATE_MAX_BPS}`;
const Rate = v.pipe(
  v.number(RATE_WORDS),
  v.integer(RATE_WORDS),
  v.minValue(PEER_RATE_MIN_BPS, RATE_WORDS),
  v.maxValue(PEER_RATE_MAX_BPS, RATE_WORDS),
);
const NOTES_WORDS = `notes are a text of at most ${NOTES_CHARACTERS_MAX} characters`;
const Notes = v.pipe(v.string(NOTES_WORDS), v.maxLength(NOTES_CHARACTERS_MAX, NOTES_WORDS));

const ENDPOINT_WORDS = 'an endpoint is "host:port", such as "relay.example.com:4433"';
/** The relay checks the rest. */
const EndpointText = v.pipe(v.string(ENDPOINT_WORDS), v.maxLength(300, ENDPOINT_WORDS));

/** The limits that a new peer and a link have alike. */
const NEW_LIMITS = {
  expires: v.optional(Time),
  monthlyBytes: v.optional(Volume),
  rateDownBps: v.optional(Rate),
  rateUpBps: v.optional(Rate),
  notes: v.optional(Notes),
};

// Of an unknown key valibot has the key in quotes; of another body its type.
const objectOf = (what: string) => ({ received }: { received: string }) =>
  `the body is a JSON object of ${what}; got ${received}`;

export const NewPeer = v.strictObject(
  {
    name: PeerName,
    publicKey: v.optional(keyText("public key")),
    presharedKey: v.optional(keyText("preshared key")),
    network: v.optional(v.string("a network is text")),
    endpoint: v.optional(EndpointText),
    ...NEW_LIMITS,
  },
  objectOf('"name" and, where wanted, "publicKey", "presharedKey", "endpoint" and limits'),
);

export const PeerChange = v.strictObject(
  {
    name: v.optional(PeerName),
    disabled: v.optional(v.boolean('"disabled" is true or false')),
    expires: v.optional(v.nullable(Time)),
    monthlyBytes: v.optional(v.nullable(Volume)),
    rateDownBps: v.optional(v.nullable(Rate)),
    rateUpBps: v.optional(v.nullable(Rate)),
    notes: v.optional(v.nullable(Notes)),
  },
  objectOf('new values: "name", "disabled", limits and "notes", null for none'),
);

export const NewForwards = v.strictObject({
  forwards: v.pipe(
    v.array(v.string("a forward is text"), "forwards is a list of texts"),
    v.minLength(1, "forwards is a list of at least one"),
    v.maxLength(256, "forwards is a list of 256 at most"),
  ),
}, 'the body is a JSON object with "forwards", a list such as ["udp:27015"]');

export const NewLink = v.strictObject(
  {
    name: PeerName,
    /** When the link stops working. */
    linkExpires: v.optional(Time),
    ...NEW_LIMITS,
  },
  objectOf('"name" and, where wanted, "linkExpires" and limits'),
);

const TOKEN_WORDS = "a token is text of 1 to 512 characters";
export const TokenBody = v.strictObject(
  { token: v.pipe(v.string(TOKEN_WORDS), v.minLength(1, TOKEN_WORDS), v.maxLength(512, TOKEN_WORDS)) },
  objectOf('"token"'),
);

export const LinkId = v.pipe(
  v.string(),
  v.regex(/^[0-9a-f]{12}$/, "a link's id is 12 hexadecimal digits"),
);

export const SORTS = [
  "name",
  "state",
  "endpoint",
  "lastHandshakeAgeS",
  "receivedBps",
  "sentBps",
  "received",
  "sent",
  "month",
  "rttMs",
  "lossRatio",
  "drops",
] as const;

const whole = (what: string, min: number, max: number) => {
  const words = `${what} is a whole number from ${min} to ${max}`;
  return v.pipe(
    v.string(),
    v.regex(/^\d{1,9}$/, words),
    v.transform(Number),
    v.minValue(min, words),
    v.maxValue(max, words),
  );
};

export const PeersQuery = v.object({
  search: v.optional(v.pipe(v.string(), v.maxLength(200, "a search has at most 200 characters"))),
  sort: v.optional(v.picklist(SORTS, `sort is one of ${SORTS.join(", ")}`)),
  order: v.optional(v.picklist(["asc", "desc"], "order is asc or desc")),
  page: v.optional(whole("page", 1, 999_999_999)),
  perPage: v.optional(whole("perPage", 1, PER_PAGE_MAX)),
});
export type PeersQuery = v.InferOutput<typeof PeersQuery>;

export const AfterQuery = v.object({ after: v.optional(whole("after", 0, 999_999_999)) });
export const SpanQuery = v.object({
  span: v.optional(v.picklist(["minutes", "day"], "span is minutes or day")),
});

const Count = v.pipe(v.number(), v.minValue(0));
const Ratio = v.pipe(v.number(), v.minValue(-1), v.maxValue(1));

const RepairFigures = v.object({
  lossRatio: v.number(),
  residualRatio: v.number(),
  repaired: Count,
  unrecovered: Count,
  repairs: Count,
  wasted: Count,
  extraRatio: Count,
  scheme: v.string(),
  isSilent: v.boolean(),
});

const Delays = v.object({ p50Ms: Count, p99Ms: Count });

/** The way to a peer, as LineSnapshot of session/peer_record.ts explains it. */
const Line = v.object({
  shapedBps: v.optional(Count),
  rateBy: v.optional(v.picklist(["peer", "found", "record", "config"])),
  path: v.optional(v.object({
    state: v.string(),
    bps: v.optional(Count),
    leastRttMs: v.optional(Count),
    queueMs: Count,
  })),
  waiting: Count,
  marked: Count,
  drops: v.record(v.string(), Count),
  waits: v.record(v.string(), Delays),
  serializationMs: v.optional(Count),
});

/** One of several paths to a peer, as PathSnapshot of session/peer_record.ts explains it. */
const Path = v.object({
  number: Count,
  endpoint: v.optional(v.string()),
  door: Count,
  uses: v.array(v.picklist(["games", "copies", "bulk"])),
  isSilent: v.boolean(),
  isMetered: v.boolean(),
  rttMs: v.optional(Count),
  lossRatio: v.optional(Count),
  queueMs: v.optional(Count),
  datagramBytes: Count,
  bytesSent: Count,
  share: Count,
  copiesSent: Count,
  copiesUseful: Count,
  failovers: Count,
});

export const PEER_STATES = ["connected", "offline", "disabled", "expired", "volume"] as const;

/** One peer: what is stored of it, its live state, and its traffic. */
export const PeerRow = v.object({
  name: v.string(),
  publicKey: v.string(),
  allowedIps: v.array(v.string()),
  created: v.string(),
  hasPresharedKey: v.boolean(),
  disabled: v.boolean(),
  expires: v.optional(v.string()),
  monthlyBytes: v.optional(Count),
  rateDownBps: v.optional(Count),
  rateUpBps: v.optional(Count),
  forwards: v.optional(v.array(v.string())),
  notes: v.optional(v.string()),
  state: v.picklist(PEER_STATES),
  connected: v.boolean(),
  endpoint: v.optional(v.string()),
  lastHandshakeAgeS: v.optional(v.number()),
  protocol: v.optional(v.picklist(["wireguard", "oxtunnel"])),
  aead: v.optional(v.string()),
  bytesReceived: Count,
  bytesSent: Count,
  drops: Count,
  lossRatio: v.optional(Ratio),
  rttMs: v.optional(Count),
  headers: v.optional(v.object({ method: v.picklist(["elided", "rohc"]), before: Count, after: Count })),
  sending: v.optional(RepairFigures),
  receiving: v.optional(RepairFigures),
  line: v.optional(Line),
  paths: v.optional(v.array(Path)),
  usage: v.object({ received: Count, sent: Count, monthReceived: Count, monthSent: Count }),
  receivedBps: Count,
  sentBps: Count,
});
export type PeerRow = v.InferOutput<typeof PeerRow>;

/** A code as rows of "1" (dark) and "0", without a border. */
const Qr = v.array(v.string());

/** What is stored of a peer, without its preshared key. */
export const PeerAnswer = v.object({
  name: v.string(),
  publicKey: v.string(),
  allowedIps: v.array(v.string()),
  created: v.string(),
  forwards: v.optional(v.array(v.string())),
});

export const NewPeerAnswer = v.object({
  name: v.string(),
  publicKey: v.string(),
  allowedIps: v.array(v.string()),
  created: v.string(),
  expires: v.optional(v.string()),
  monthlyBytes: v.optional(Count),
  rateDownBps: v.optional(Count),
  rateUpBps: v.optional(Count),
  notes: v.optional(v.string()),
  privateKey: v.optional(v.string()),
  config: v.optional(v.string()),
  configQr: v.optional(Qr),
  invitation: v.optional(v.string()),
  invitationQr: v.optional(Qr),
  note: v.optional(v.string()),
});
export type NewPeerAnswer = v.InferOutput<typeof NewPeerAnswer>;

export const Link = v.object({
  id: v.string(),
  name: v.string(),
  created: v.string(),
  expires: v.string(),
  state: v.picklist(["open", "used", "expired"]),
  used: v.optional(v.string()),
});
export type Link = v.InferOutput<typeof Link>;

export const NewLinkAnswer = v.object({ ...Link.entries, token: v.string() });

export const RelayEvent = v.object({
  id: v.number(),
  at: v.string(),
  kind: v.picklist([
    "connected",
    "disconnected",
    "roamed",
    "refused",
    "narrow",
    "stale",
    "added",
    "removed",
    "restored",
    "renamed",
    "changed",
    "disabled",
    "expired",
    "volume",
    "admitted",
    "link_made",
    "link_used",
    "link_revoked",
    "signed_in",
    "sign_in_failed",
  ]),
  peer: v.string(),
  detail: v.optional(v.string()),
});
export type RelayEvent = v.InferOutput<typeof RelayEvent>;

export const HistorySample = v.object({
  /** Seconds since 1970. */
  at: v.number(),
  receivedBps: Count,
  sentBps: Count,
  dropsPerS: Count,
  connections: Count,
});
export type HistorySample = v.InferOutput<typeof HistorySample>;

export const HistoryAnswer = v.object({ stepS: v.number(), samples: v.array(HistorySample) });

export const Overview = v.object({
  name: v.literal("oxrelay"),
  version: v.string(),
  uptimeS: Count,
  exit: v.string(),
  listen: v.string(),
  publicKey: v.string(),
  peers: Count,
  connections: Count,
  exitFlows: Count,
  receivedBytes: Count,
  sentBytes: Count,
  /** Only reasons that occurred, the most frequent first. */
  drops: v.array(v.object({ reason: v.string(), sentence: v.string(), packets: Count })),
  applications: v.record(v.string(), Count),
  healthy: v.boolean(),
  faults: v.array(v.string()),
});

export const ErrorAnswer = v.object({ error: v.object({ field: v.string(), message: v.string() }) });
export const ReloadAnswer = v.object({
  peers: v.object({ added: v.array(v.string()), removed: v.array(v.string()), total: Count }),
  config: v.object({ applied: v.array(v.string()), needsRestart: v.array(v.string()) }),
});
export const StatusAnswer = v.looseObject({
  name: v.literal("oxrelay"),
  version: v.string(),
  uptimeS: Count,
  exit: v.string(),
  listen: v.string(),
  counters: v.record(v.string(), v.number()),
  drops: v.record(v.string(), Count),
  /** Without those that are kept out. */
  peers: v.array(v.looseObject({ name: v.string(), publicKey: v.string(), connected: v.boolean() })),
  keptOut: v.array(v.object({ name: v.string(), reason: v.picklist(["disabled", "expired", "volume"]) })),
  applications: v.record(v.string(), Count),
  latency: v.object({
    queue: v.optional(Delays),
    queueByClass: v.optional(v.record(v.string(), Delays)),
    processing: v.optional(Delays),
  }),
});
export const SessionRow = v.object({
  peer: v.string(),
  epoch: v.picklist(["next", "current", "previous"]),
  receiverIndex: Count,
  protocol: v.picklist(["wireguard", "oxtunnel"]),
  ageS: v.number(),
  initiator: v.boolean(),
  packetsSent: Count,
  highestCounterReceived: v.number(),
  datagramBytes: v.optional(Count),
});
export const PingAnswer = v.object({ rttMs: v.nullable(Count) });
export const HelloAnswer = v.object({ proof: v.string() });
