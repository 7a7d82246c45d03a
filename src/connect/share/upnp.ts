/**
 * The gateway as consoles look for it: UPnP's Internet Gateway Device 1 (SSDP answers, two descriptions, WANIPConnection:1 by SOAP) over
 * leases. Invariant: only hosts of the LAN are answered, each maps to itself alone, and of a request at most BODY_BYTES_MAX are read, for BODY_MS at most;
 * the few values of a body are found by bounded patterns, and no XML is built from what was sent without escaping. Sends no notices of
 * its own: consoles search.
 */
import type { LeaseOwner, Leases } from "../../exit/mapping/leases.ts";
import { type MapRequest, PCP } from "../../wire/port_control.ts";

const SSDP_GROUP = "239.255.255.250", SSDP_PORT = 1900, SSDP_BYTES_MAX = 2048;
const BODY_BYTES_MAX = 8192;
/** Within which a request's body must have come, and for which the end waits for answers under way. */
const BODY_MS = 2000, GRACE_MS = 500;
/** A lease of 0 is for good: kept for a day after it was last asked for. */
const KEPT_S = 86_400, LEASE_S = 3600, RETRY_S = 30;
const KEPT_MAX = 256;
/** Who changes a mapping by UPnP must be its host, which its address says; the nonce is for PCP's askers. */
const NONCE = new TextEncoder().encode("UPnP-IGD-own");
const WAN_IP = "urn:schemas-upnp-org:service:WANIPConnection:1";
const DEVICES = ["InternetGatewayDevice", "WANDevice", "WANConnectionDevice"]
  .map((name) => `urn:schemas-upnp-org:device:${name}:1`);

export interface UpnpOptions {
  /** This host's address in the LAN. */
  address: string;
  isOfLan(address: string): boolean;
  leases: Leases;
  /** Names this gateway, the same in every run; "uuid:…". */
  uuid: string;
  outside(): string | undefined;
  nowS(): number;
}

interface Kept {
  owner: LeaseOwner;
  request: MapRequest;
  endsS: number;
  renewS: number;
}

export class Upnp {
  readonly #o: UpnpOptions;
  readonly #ssdp: Deno.DatagramConn;
  readonly #http: Deno.HttpServer<Deno.NetAddr>;
  readonly #end = new AbortController();
  readonly #answering = new Set<Promise<Response>>();
  readonly #kept = new Map<string, Kept>();

  /** Throws when the ports cannot be had, as when another gateway runs here. */
  constructor(options: UpnpOptions) {
    this.#o = options;
    this.#ssdp = Deno.listenDatagram({
      transport: "udp",
      hostname: "0.0.0.0",
      port: SSDP_PORT,
      reuseAddress: true,
    });
    this.#http = Deno.serve(
      {
        hostname: options.address,
        port: 0,
        signal: this.#end.signal,
        onListen: () => {},
        onError: () => new Response(null, { status: 500 }),
      },
      (request, { remoteAddr }) => {
        const answer = this.#answer(request, (remoteAddr as Deno.NetAddr).hostname);
        this.#answering.add(answer);
        return answer.finally(() => this.#answering.delete(answer));
      },
    );
    this.#listen();
  }

  /** Renews mappings that are for good; call about once a second. */
  tend(): void {
    const nowS = this.#o.nowS();
    for (const [key, kept] of this.#kept) {
      if (nowS >= kept.endsS) this.#kept.delete(key);
      else if (nowS >= kept.renewS) {
        kept.renewS = nowS + LEASE_S / 2;
        this.#o.leases.map(kept.owner, kept.request).then(({ result }) => {
          if (result !== PCP.success) kept.renewS = nowS + RETRY_S;
        });
      }
    }
  }

  /** The port of the descriptions and the service, at the LAN's address. */
  get port(): number {
    return this.#http.addr.port;
  }

  /** Ends all connections, after GRACE_MS those whose request is not answered yet. */
  async close(): Promise<void> {
    this.#ssdp.close();
    let timer: ReturnType<typeof setTimeout> | undefined;
    const late = new Promise<void>((resolve) => timer = setTimeout(resolve, GRACE_MS));
    await Promise.race([Promise.allSettled(this.#answering), late]);
    clearTimeout(timer);
    this.#end.abort();
    await this.#http.finished;
  }

  async #listen(): Promise<void> {
    await (this.#ssdp as Deno.DatagramConn).joinMulticastV4(SSDP_GROUP, this.#o.address);
    for await (const [bytes, from] of this.#ssdp) {
      const { hostname } = from as Deno.NetAddr;
      if (bytes.length > SSDP_BYTES_MAX || !this.#o.isOfLan(hostname)) continue;
      for (const answer of this.#found(new TextDecoder("latin1").decode(bytes))) {
        await this.#ssdp.send(new TextEncoder().encode(answer), from).catch(() => {});
      }
    }
  }

  /** Answers to a search (UPnP Device Architecture 1.1 §1.3.3). */
  #found(search: string): string[] {
    if (!search.startsWith("M-SEARCH * HTTP/1.1\r\n") || !/^man: *"ssdp:discover" *\r$/im.test(search)) {
      return [];
    }
    const target = /^st: *([\w:.-]{1,100}) *\r$/im.exec(search)?.[1];
    const all = ["upnp:rootdevice", this.#o.uuid, ...DEVICES, WAN_IP];
    return all.filter((one) => target === "ssdp:all" || one === target).map((one) =>
      `HTTP/1.1 200 OK\r\nCACHE-CONTROL: max-age=1800\r\nEXT:\r\nLOCATION: ${this.#url}/rootDesc.xml\r\n` +
      `SERVER: Linux UPnP/1.1 Oxrelay/1\r\nST: ${one}\r\n` +
      `USN: ${one === this.#o.uuid ? one : `${this.#o.uuid}::${one}`}\r\nContent-Length: 0\r\n\r\n`
    );
  }

  get #url(): string {
    return `http://${this.#o.address}:${this.port}`;
  }

  async #answer(request: Request, from: string): Promise<Response> {
    if (!this.#o.isOfLan(from)) return new Response(null, { status: 403 });
    const { pathname } = new URL(request.url);
    if (request.method === "GET" && pathname === "/rootDesc.xml") return xml(this.#description());
    if (request.method === "GET" && pathname === "/WANIPCn.xml") return xml(SERVICE);
    if (request.method !== "POST" || pathname !== "/ctl/IPConn") return new Response(null, { status: 404 });
    const body = await readBody(request);
    if (typeof body === "number") return new Response(null, { status: body });
    const action = /^"?urn:schemas-upnp-org:service:WANIPConnection:1#(\w{1,40})"?$/.exec(
      request.headers.get("soapaction") ?? "",
    )?.[1];
    return action === undefined ? fault(401, "Invalid Action") : await this.#act(action, body, from);
  }

  async #act(action: string, body: string, from: string): Promise<Response> {
    const value = (name: string) =>
      new RegExp(`<New${name}(?: [^>]{0,200})?>([^<]{0,200})</New${name}>`).exec(body)?.[1].trim();
    const protocol = value("Protocol")?.toLowerCase(), outer = Number(value("ExternalPort") || NaN);
    const isKnown = (protocol === "tcp" || protocol === "udp") && outer >= 1 && outer <= 65535;
    switch (action) {
      case "GetExternalIPAddress":
        return done(action, { ExternalIPAddress: this.#o.outside() ?? "0.0.0.0" });
      case "GetStatusInfo":
        return done(action, {
          ConnectionStatus: "Connected",
          LastConnectionError: "ERROR_NONE",
          Uptime: `${Math.floor(this.#o.nowS())}`,
        });
      case "GetConnectionTypeInfo":
        return done(action, { ConnectionType: "IP_Routed", PossibleConnectionTypes: "IP_Routed" });
      case "GetNATRSIPStatus":
        return done(action, { RSIPAvailable: "0", NATEnabled: "1" });
      case "AddPortMapping": {
        const port = Number(value("InternalPort") || NaN), lifetimeS = Number(value("LeaseDuration") || 0);
        if (!isKnown || !(port >= 1 && port <= 65535) || !(lifetimeS >= 0)) return fault(402, "Invalid Args");
        // A host opens ports to itself, not to its neighbours.
        if (value("InternalClient") !== from) return fault(606, "Action not authorized");
        return await this.#add(from, protocol, port, outer, lifetimeS);
      }
      case "DeletePortMapping":
        return isKnown ? await this.#remove(from, protocol, outer) : fault(402, "Invalid Args");
      case "GetSpecificPortMappingEntry":
      case "GetGenericPortMappingEntry":
        return this.#entry(
          action,
          from,
          isKnown ? { protocol, outer } : undefined,
          Number(value("PortMappingIndex") || NaN),
        );
      default:
        return fault(401, "Invalid Action");
    }
  }

  async #add(
    from: string,
    protocol: "udp" | "tcp",
    port: number,
    wanted: number,
    lifetimeS: number,
  ): Promise<Response> {
    const owner = { id: from, address: from };
    const request: MapRequest = {
      kind: "map",
      version: 2,
      protocol,
      port,
      wanted,
      lifetimeS: lifetimeS || LEASE_S,
      nonce: NONCE,
      isStrict: true,
    };
    const { result } = await this.#o.leases.map(owner, request);
    const key = `${protocol} ${from} ${port}`;
    this.#kept.delete(key);
    if (result === PCP.cannotProvide) return fault(718, "ConflictInMappingEntry");
    if (result !== PCP.success) return fault(501, "Action Failed");
    if (lifetimeS === 0 && this.#kept.size < KEPT_MAX) {
      const nowS = this.#o.nowS();
      this.#kept.set(key, { owner, request, endsS: nowS + KEPT_S, renewS: nowS + LEASE_S / 2 });
    }
    return done("AddPortMapping", {});
  }

  async #remove(from: string, protocol: "udp" | "tcp", outer: number): Promise<Response> {
    const lease = this.#own(from).find((one) => one.protocol === protocol && one.told === outer);
    if (lease === undefined) return fault(714, "NoSuchEntryInArray");
    this.#kept.delete(`${protocol} ${from} ${lease.port}`);
    const { port, nonce } = lease;
    await this.#o.leases.map({ id: from, address: from }, {
      kind: "map",
      version: 2,
      protocol,
      port,
      wanted: outer,
      lifetimeS: 0,
      nonce,
      isStrict: false,
    });
    return done("DeletePortMapping", {});
  }

  #own(from: string) {
    return this.#o.leases.all.filter(({ owner }) => owner === from);
  }

  #entry(
    action: string,
    from: string,
    which: { protocol: string; outer: number } | undefined,
    index: number,
  ): Response {
    const isGeneric = action === "GetGenericPortMappingEntry";
    const lease = isGeneric
      ? this.#own(from)[index]
      : this.#own(from).find((one) => one.protocol === which?.protocol && one.told === which.outer);
    if (lease === undefined) {
      return isGeneric ? fault(713, "SpecifiedArrayIndexInvalid") : fault(714, "NoSuchEntryInArray");
    }
    return done(action, {
      ...(isGeneric
        ? { RemoteHost: "", ExternalPort: `${lease.told}`, Protocol: lease.protocol.toUpperCase() }
        : {}),
      InternalPort: `${lease.port}`,
      InternalClient: lease.address,
      Enabled: "1",
      PortMappingDescription: "",
      LeaseDuration: `${Math.max(0, Math.ceil(lease.endsS - this.#o.nowS()))}`,
    });
  }

  #description(): string {
    const device = (name: string, inner: string, uuid: string) =>
      `<device><deviceType>urn:schemas-upnp-org:device:${name}:1</deviceType><friendlyName>Oxrelay</friendlyName>` +
      `<manufacturer>Oxrelay</manufacturer><modelName>Oxrelay gateway</modelName><UDN>${uuid}</UDN>${inner}</device>`;
    const service = `<serviceList><service><serviceType>${WAN_IP}</serviceType>` +
      "<serviceId>urn:upnp-org:serviceId:WANIPConn1</serviceId><controlURL>/ctl/IPConn</controlURL>" +
      "<eventSubURL></eventSubURL><SCPDURL>/WANIPCn.xml</SCPDURL></service></serviceList>";
    const { uuid } = this.#o;
    const connection = device("WANConnectionDevice", service, `${uuid.slice(0, -1)}2`);
    const wan = device("WANDevice", `<deviceList>${connection}</deviceList>`, `${uuid.slice(0, -1)}1`);
    return '<root xmlns="urn:schemas-upnp-org:device-1-0"><specVersion><major>1</major><minor>0</minor></specVersion>' +
      `${device("InternetGatewayDevice", `<deviceList>${wan}</deviceList>`, uuid)}</root>`;
  }
}

/** The service's actions with their arguments, in and out (UPnP WANIPConnection:1 §2.4). */
const ACTIONS: Record<string, [in_: string, out: string]> = {
  AddPortMapping: [
    "RemoteHost ExternalPort Protocol InternalPort InternalClient PortMappingEnabled PortMappingDescription " +
    "PortMappingLeaseDuration",
    "",
  ],
  DeletePortMapping: ["RemoteHost ExternalPort Protocol", ""],
  GetExternalIPAddress: ["", "ExternalIPAddress"],
  GetStatusInfo: ["", "ConnectionStatus LastConnectionError Uptime"],
};
const SERVICE =
  '<scpd xmlns="urn:schemas-upnp-org:service-1-0"><specVersion><major>1</major><minor>0</minor></specVersion>' +
  `<actionList>${
    Object.entries(ACTIONS).map(([name, [in_, out]]) =>
      `<action><name>${name}</name><argumentList>${args(in_, "in")}${
        args(out, "out")
      }</argumentList></action>`
    ).join("")
  }</actionList><serviceStateTable>${
    [...new Set(Object.values(ACTIONS).flatMap((both) => both.flatMap((names) => names.split(" "))))].filter((
      name,
    ) => name !== "").map((name) =>
      `<stateVariable sendEvents="no"><name>${name}</name><dataType>${
        /Port$/.test(name)
          ? "ui2"
          : /Duration|Uptime/.test(name)
          ? "ui4"
          : /Enabled/.test(name)
          ? "boolean"
          : "string"
      }</dataType></stateVariable>`
    ).join("")
  }</serviceStateTable></scpd>`;

function args(names: string, direction: string): string {
  return names.split(" ").filter((name) => name !== "").map((name) =>
    `<argument><name>New${
      name.replace(/^PortMapping(?=Enabled|Lease)/, "")
    }</name><direction>${direction}</direction>` +
    `<relatedStateVariable>${name}</relatedStateVariable></argument>`
  ).join("");
}

/** The body as text, or the status to refuse the request with. */
async function readBody({ body }: Request): Promise<string | number> {
  const reader = body?.getReader();
  if (reader === undefined) return "";
  let text = "", length = 0, isLate = false;
  const decoder = new TextDecoder();
  const timer = setTimeout(() => {
    isLate = true;
    reader.cancel().catch(() => {});
  }, BODY_MS);
  try {
    for (let part = await reader.read(); !part.done; part = await reader.read()) {
      length += part.value.length;
      if (length > BODY_BYTES_MAX) return 413;
      text += decoder.decode(part.value, { stream: true });
    }
  } catch {
    return 400;
  } finally {
    clearTimeout(timer);
  }
  return isLate ? 408 : text;
}

function xml(text: string, status = 200): Response {
  return new Response(`<?xml version="1.0"?>\n${text}`, {
    status,
    headers: { "content-type": 'text/xml; charset="utf-8"', connection: "close" },
  });
}

const escaped = (text: string) => text.replace(/[<>&"]/g, (one) => `&#${one.charCodeAt(0)};`);

function envelope(body: string): string {
  return '<s:Envelope xmlns:s="http://schemas.xmlsoap.org/soap/envelope/" ' +
    `s:encodingStyle="http://schemas.xmlsoap.org/soap/encoding/"><s:Body>${body}</s:Body></s:Envelope>`;
}

function done(action: string, values: Record<string, string>): Response {
  const all = Object.entries(values).map(([name, value]) => `<New${name}>${escaped(value)}</New${name}>`)
    .join("");
  return xml(envelope(`<u:${action}Response xmlns:u="${WAN_IP}">${all}</u:${action}Response>`));
}

function fault(code: number, description: string): Response {
  return xml(
    envelope(
      "<s:Fault><faultcode>s:Client</faultcode><faultstring>UPnPError</faultstring><detail>" +
        `<UPnPError xmlns="urn:schemas-upnp-org:control-1-0"><errorCode>${code}</errorCode>` +
        `<errorDescription>${description}</errorDescription></UPnPError></detail></s:Fault>`,
    ),
    500,
  );
}
