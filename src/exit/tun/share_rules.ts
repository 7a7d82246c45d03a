/**
 * The text of a gateway's nftables table: a LAN behind this host goes into the tunnel and nowhere else, and strangers reach its
 * hosts by mappings alone. Invariant: mapping and filtering are endpoint-independent (RFC 4787 REQ-1, REQ-8) towards the tunnel;
 * what arrives by any other interface for the LAN is dropped. Makes text; runs no program.
 */
import { CLIENT_DEVICE, NOT_INBOUND } from "./client_rules.ts";
import {
  chain,
  CLAMP,
  forwardMaps,
  learning,
  openedMaps,
  portControlElsewhere,
  sourcesOfForwards,
} from "./rules.ts";

/** The DSCP that a class of packets bears into the tunnel, as control/classifier.ts reads it (RFC 4594, RFC 8622). */
const DSCP: Record<string, number> = { game: 32, voice: 46, interactive: 18, bulk: 8, default: 0 };

/** A device of the LAN whose packets are of one class. */
export interface DeviceClass {
  /** An IPv4 or IPv6 address, or a MAC address "aa:bb:cc:dd:ee:ff". */
  device: string;
  /** A name of DEVICE_CLASSES. */
  trafficClass: string;
}

export const DEVICE_CLASSES = Object.keys(DSCP);
export const MAC = /^[0-9a-f]{2}(:[0-9a-f]{2}){5}$/;

export interface ShareRulesOptions {
  /** The LAN's interface. */
  device: string;
  /** This host's IPv4 address in the LAN with its prefix length. */
  ipv4: string;
  /** The TCP port there of UPnP's service, once that is open. */
  upnpPort?: number;
  classes: readonly DeviceClass[];
  /** Whether this host forwards for the LAN alone. */
  isRouterOfLan: boolean;
}

export const SHARE_TABLE = "oxconnect_share";

/** The whole table; `record` are lines of what is to be undone. Maps of forwards are empty. */
export function shareRules(o: ShareRulesOptions, record: readonly string[]): string {
  const lan = `iifname "${o.device}"`, tunnel = `iifname "${CLIENT_DEVICE}"`;
  const up = `${lan} oifname "${CLIENT_DEVICE}"`, down = `${tunnel} oifname "${o.device}"`;
  const ports = "meta l4proto { tcp, udp } fib daddr type local dnat";
  // A program of this host that listens at its tunnel address.
  const own = "meta l4proto { tcp, udp } socket transparent { 0, 1 } return";
  return `table inet ${SHARE_TABLE}
delete table inet ${SHARE_TABLE}
table inet ${SHARE_TABLE} {
${chain("record", record.map((line) => `continue comment "${line}"`))}${openedMaps()}${forwardMaps()}${
    // The client's rules mark answers to strangers, which go back outside the tunnel where this host is the server.
    chain("back", [
      "type filter hook prerouting priority mangle + 1; policy accept;",
      `${lan} fib daddr type != local meta mark set meta mark and ${NOT_INBOUND}`,
    ])}${
    chain("forwarded", [
      "type nat hook prerouting priority dstnat - 1; policy accept;",
      `iifname != "${CLIENT_DEVICE}" return`,
      // Also where a program of this host listens there: the relay has opened the port for a host of the LAN, not for that program.
      `${ports} ip to meta l4proto . th dport map @forward4`,
      `${ports} ip6 to meta l4proto . th dport map @forward6`,
    ])
  }${
    chain("opened", [
      "type nat hook prerouting priority dstnat; policy accept;",
      `iifname != "${CLIENT_DEVICE}" return`,
      own,
      "fib daddr type local dnat ip to udp dport map @opened4 : udp dport map @port4",
      "fib daddr type local dnat ip6 to udp dport map @opened6 : udp dport map @port6",
    ])
  }${learning(up)}${chain("input", inputRules(o))}${
    chain("forward", [
      "type filter hook forward priority filter; policy accept;",
      `${lan} oifname "${o.device}" accept`,
      // Also without a tunnel: nothing of the LAN goes out beside it.
      `${lan} oifname != "${CLIENT_DEVICE}" counter reject with icmpx admin-prohibited`,
      ...o.classes.flatMap((one) => marking(lan, one)),
      `${up} ${CLAMP}`,
      `${down} ${CLAMP}`,
      `${down} ct direction original ct status dnat meta l4proto tcp ct original proto-dst != @forwarded_tcp drop`,
      `${down} ct state established,related accept`,
      `${down} ct status dnat accept`,
      `oifname "${o.device}" drop`,
      ...(o.isRouterOfLan ? [`iifname != { "${o.device}", "${CLIENT_DEVICE}" } counter drop`] : []),
    ])
  }${
    chain("postrouting", [
      // Before the client's own, which would choose the port.
      "type nat hook postrouting priority srcnat - 1; policy accept;",
      ...sourcesOfForwards(up),
      `${up} masquerade`,
    ])
  }}
`;
}

/** Who asks for ports is known by the source address alone: nothing that came by another interface may bear one of the LAN. */
function inputRules({ device, ipv4, upnpPort }: ShareRulesOptions): string[] {
  const elsewhere = `iifname != { "lo", "${device}" }`, [own] = ipv4.split("/");
  return [
    "type filter hook input priority filter; policy accept;",
    ...portControlElsewhere(device, own),
    `${elsewhere} ip saddr ${ipv4} udp dport 1900 drop`,
    ...(upnpPort === undefined ? [] : [`${elsewhere} ip daddr ${own} tcp dport ${upnpPort} drop`]),
  ];
}

function marking(lan: string, { device, trafficClass }: DeviceClass): string[] {
  const from = MAC.test(device)
    ? `ether saddr ${device}`
    : `${device.includes(":") ? "ip6" : "ip"} saddr ${device}`;
  const families = MAC.test(device) ? ["ip", "ip6"] : [device.includes(":") ? "ip6" : "ip"];
  return families.map((family) => `${lan} ${from} ${family} dscp set ${DSCP[trafficClass]}`);
}
