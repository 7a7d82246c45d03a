/**
 * The applications and protocols that flows are recognised as, what kind of traffic each is, and the byte patterns that they
 * are known by: data, and nothing else. Invariant: no pattern looks beyond the first 64 bytes of a UDP payload. Sources
 * are public specifications where one is named, else the project's own reading of captures. signatures.ts reads the patterns.
 */

/** What an application's packets are for; classifier.ts says what class follows. */
export const KIND_UNKNOWN = 0;
/** Voice and video calls, and their signalling. */
export const KIND_CALL = 1;
export const KIND_GAME = 2;
/** Requests whose sender waits for the answer. */
export const KIND_REQUEST = 3;
/** Transfers: no single packet is waited for. */
export const KIND_TRANSFER = 4;
/** QUIC: pages, transfers and media alike. */
export const KIND_WEB = 5;
/** Another tunnel, with any traffic in it. */
export const KIND_TUNNEL = 6;

export interface LengthField {
  readonly at: number;
  readonly plus: number;
  readonly mask?: number;
  readonly isLittle?: boolean;
}

/** A pattern as text; the first one that matches a packet counts. */
export interface Signature {
  /** A name of APPLICATIONS. */
  readonly app: string;
  /** Points for each packet that matches, 1 to 4; a flow is recognised at 4. */
  readonly points: number;
  /** Hex digits from `at` on, "." for any digit, "[02-5]" for one of some, spaces for the eye. */
  readonly bytes: string;
  readonly at?: number;
  /** Bytes of the payload. */
  readonly min?: number;
  readonly max?: number;
  /** One of the two ports lies in this range. */
  readonly ports?: readonly [from: number, to: number];
  /** A 16-bit field, of which `mask` counts, that says the payload's length but for `plus` bytes. */
  readonly length?: LengthField;
}

/**
 * Names, kinds, and ranks: when several match one flow, the higher rank stays, so that "webrtc" gives way to the program that
 * uses it and never the other way round.
 */
export const APPLICATIONS: readonly (readonly [name: string, kind: number, rank: number])[] = [
  ["", KIND_UNKNOWN, 0],
  // Calls.
  ["rtp", KIND_CALL, 0],
  ["stun", KIND_CALL, 1],
  ["turn", KIND_CALL, 2],
  ["webrtc", KIND_CALL, 3],
  ["whatsapp", KIND_CALL, 4],
  ["teams", KIND_CALL, 4],
  ["zoom", KIND_CALL, 4],
  ["meet", KIND_CALL, 4],
  ["discord", KIND_CALL, 4],
  ["telegram", KIND_CALL, 4],
  ["facetime", KIND_CALL, 4],
  ["viber", KIND_CALL, 4],
  ["line", KIND_CALL, 4],
  ["imo", KIND_CALL, 4],
  ["webex", KIND_CALL, 4],
  ["agora", KIND_CALL, 4],
  ["teamspeak", KIND_CALL, 4],
  ["mumble", KIND_CALL, 4],
  ["iax", KIND_CALL, 4],
  ["sip", KIND_CALL, 4],
  // Games.
  ["raknet", KIND_GAME, 4],
  ["source", KIND_GAME, 4],
  ["enet", KIND_GAME, 4],
  ["kcp", KIND_GAME, 4],
  ["photon", KIND_GAME, 4],
  ["unreal", KIND_GAME, 4],
  ["steam relay", KIND_GAME, 4],
  ["steam", KIND_GAME, 4],
  ["cryengine", KIND_GAME, 4],
  ["call of duty", KIND_GAME, 4],
  ["nintendo", KIND_GAME, 4],
  ["netcode", KIND_GAME, 4],
  ["battle.net", KIND_GAME, 4],
  ["teredo", KIND_GAME, 4],
  // Somebody waits for an answer.
  ["dns", KIND_REQUEST, 4],
  ["ntp", KIND_REQUEST, 4],
  ["ssdp", KIND_REQUEST, 4],
  ["dhcp", KIND_REQUEST, 4],
  ["netbios", KIND_REQUEST, 4],
  ["snmp", KIND_REQUEST, 4],
  ["coap", KIND_REQUEST, 4],
  ["text", KIND_REQUEST, 3],
  ["rpc", KIND_REQUEST, 4],
  ["natpmp", KIND_REQUEST, 4],
  ["rdp", KIND_REQUEST, 4],
  ["remote screen", KIND_REQUEST, 4],
  ["spotify", KIND_REQUEST, 4],
  ["dropbox", KIND_REQUEST, 4],
  ["syncthing", KIND_REQUEST, 4],
  ["ipmi", KIND_REQUEST, 4],
  // Transfers.
  ["bittorrent", KIND_TRANSFER, 4],
  ["tftp", KIND_TRANSFER, 4],
  ["afs", KIND_TRANSFER, 4],
  ["uftp", KIND_TRANSFER, 4],
  ["syslog", KIND_TRANSFER, 4],
  ["flow records", KIND_TRANSFER, 4],
  ["statistics", KIND_TRANSFER, 4],
  ["edonkey", KIND_TRANSFER, 4],
  ["gnutella", KIND_TRANSFER, 4],
  // Others.
  ["quic", KIND_WEB, 4],
  ["dtls", KIND_TUNNEL, 2],
  ["wireguard", KIND_TUNNEL, 4],
  ["openvpn", KIND_TUNNEL, 4],
  ["ipsec", KIND_TUNNEL, 4],
  ["tailscale", KIND_TUNNEL, 4],
  ["gtp", KIND_TUNNEL, 4],
  ["vxlan", KIND_TUNNEL, 4],
  ["capwap", KIND_TUNNEL, 4],
  ["softether", KIND_TUNNEL, 4],
  ["l2tp", KIND_TUNNEL, 4],
];

/** Pairs of protocols that one flow shows, and the application that both together mean. */
export const COMBINED: readonly (readonly [one: string, other: string, both: string])[] = [
  ["stun", "dtls", "webrtc"],
  ["turn", "dtls", "webrtc"],
];

/** RakNet's offline messages (RakNet's public source, "OFFLINE_MESSAGE_DATA_ID"). */
const RAKNET = "00ffff00fefefefefdfdfdfd12345678";
/** STUN's cookie behind type and length, and the length field (RFC 8489 §5). */
const STUN = ".... 2112a442", STUN_LENGTH = { at: 2, plus: 20 };
const ANY8 = "................", ANY12 = "........................";

export const SIGNATURES: readonly Signature[] = [
  // STUN and TURN (RFC 8489, RFC 8656); attributes of one program first. 0x8070 and 0x8008 are Microsoft's ([MS-ICE2], [MS-TURN]).
  { app: "whatsapp", points: 4, bytes: `.... ${STUN} ${ANY12} 400.`, length: STUN_LENGTH },
  { app: "whatsapp", points: 4, bytes: `080. ${STUN}`, length: STUN_LENGTH },
  { app: "teams", points: 4, bytes: `.... .... ........ ${ANY12} 000f0004 72c64bc6`, length: STUN_LENGTH },
  { app: "teams", points: 4, bytes: `0101 ${STUN} ${ANY12} 80700004`, length: STUN_LENGTH },
  { app: "teams", points: 4, bytes: `0101 ${STUN} ${ANY12} 00200008 ${ANY8} 80700004`, length: STUN_LENGTH },
  { app: "telegram", points: 4, bytes: `0... ${STUN}`, length: STUN_LENGTH, ports: [1400, 1400] },
  // A relay of Telegram's own: a tag, then its requests (libtgvoip's public source).
  { app: "telegram", points: 4, bytes: "ffffffff ffffffff ffffffff f", at: 16 },
  { app: "meet", points: 4, bytes: `0... ${STUN}`, length: STUN_LENGTH, ports: [19305, 19309] },
  { app: "facetime", points: 4, bytes: `0... ${STUN}`, length: STUN_LENGTH, ports: [16393, 16472] },
  { app: "zoom", points: 4, bytes: `0... ${STUN}`, length: STUN_LENGTH, ports: [8801, 8810] },
  { app: "turn", points: 4, bytes: `0[01][01][346789] ${STUN}`, length: STUN_LENGTH },
  { app: "stun", points: 4, bytes: `0... ${STUN}`, length: STUN_LENGTH },
  // RFC 3489's, which has no cookie.
  {
    app: "stun",
    points: 4,
    bytes: "0[01]01 ....",
    min: 20,
    max: 548,
    length: STUN_LENGTH,
    ports: [3478, 3497],
  },
  { app: "stun", points: 2, bytes: "0[01]0[12] ....", min: 20, max: 548, length: STUN_LENGTH },
  // TURN's channels carry padding over UDP or none.
  { app: "turn", points: 2, bytes: "4[0-f].. ....", min: 8, length: { at: 2, plus: 4 } },

  // Calls.
  { app: "discord", points: 4, bytes: "000[12]0046 ........", min: 74, max: 74 },
  { app: "discord", points: 4, bytes: "1337cafe", min: 8, max: 8 },
  { app: "zoom", points: 4, bytes: "0[1-7] [01].", ports: [8801, 8810] },
  { app: "zoom", points: 4, bytes: "1f02010. 0.0001000.00", min: 40 },
  { app: "teams", points: 3, bytes: "ff10 ....", length: { at: 2, plus: 4 }, min: 16 },
  { app: "whatsapp", points: 4, bytes: "80c7000[15] 0000....", min: 100 },
  { app: "viber", points: 4, bytes: ".... 0[0-f]00", min: 12, max: 600, ports: [7985, 7987] },
  { app: "viber", points: 4, bytes: ".... 0[0-f]00", min: 12, max: 600, ports: [9785, 9785] },
  { app: "viber", points: 2, bytes: `.... 0[19]00 ${ANY8} ........`, min: 20, max: 20 },
  { app: "viber", points: 3, bytes: ".... 0c000[0-f]00", min: 76, max: 76 },
  { app: "line", points: 3, bytes: "d...", min: 32, length: { at: 0, plus: 4, mask: 0x7ff } },
  { app: "imo", points: 2, bytes: "090[23] ........ 00000000", min: 10, max: 10 },
  { app: "imo", points: 4, bytes: "89461a00 00000000 00010000" },
  { app: "webex", points: 4, bytes: "0[126]000000", ports: [9000, 9000], min: 8, max: 64 },
  { app: "agora", points: 4, bytes: "00...... 0000.... 00000000 0[0-f]534e49" },
  { app: "agora", points: 4, bytes: "00...... 0000.... ........ 0[0-f]504549" },
  { app: "teamspeak", points: 4, bytes: "545333494e495431" },
  { app: "teamspeak", points: 4, bytes: "", ports: [9987, 9987] },
  { app: "teamspeak", points: 4, bytes: "01", min: 4, max: 16, ports: [2010, 2010] },
  // Mumble's ping and its answer (Mumble protocol documentation, "UDP ping packet").
  { app: "mumble", points: 3, bytes: "00000000 ................", min: 12, max: 12 },
  { app: "mumble", points: 4, bytes: "00010[2-9].. ................", min: 24, max: 24 },
  { app: "mumble", points: 4, bytes: "", ports: [64738, 64738] },
  // IAX2 (RFC 5456 §8.1): a full frame of type 1 to 10.
  { app: "iax", points: 4, bytes: "[8-f]... .... ........ .... 0[1-a]", min: 12, ports: [4569, 4569] },
  // SIP (RFC 3261), MGCP (RFC 3435), Megaco (RFC 3525).
  { app: "sip", points: 4, bytes: "5349502f322e30" },
  { app: "sip", points: 4, bytes: "494e564954452073" },
  { app: "sip", points: 4, bytes: "5245474953544552" },
  { app: "sip", points: 4, bytes: "4f5054494f4e5320 736970" },
  { app: "sip", points: 4, bytes: "[2-7].[2-7].[2-7].[2-7].", ports: [5060, 5061] },
  { app: "sip", points: 4, bytes: "212f31", ports: [2944, 2944] },
  { app: "sip", points: 4, bytes: "[3-5].[3-5].[3-5].[2-5]", ports: [2427, 2427] },
  { app: "sip", points: 4, bytes: "[3-5].[3-5].[3-5].[2-5]", ports: [2727, 2727] },

  // Games.
  { app: "raknet", points: 4, bytes: RAKNET, at: 1 },
  { app: "raknet", points: 4, bytes: RAKNET, at: 9 },
  { app: "raknet", points: 4, bytes: RAKNET, at: 17 },
  { app: "raknet", points: 4, bytes: RAKNET, at: 32 },
  { app: "raknet", points: 4, bytes: "0100001f 0111" },
  { app: "raknet", points: 2, bytes: "[ac]0 000[12]0[01] ....00", min: 7 },
  { app: "raknet", points: 2, bytes: "8[4-f] ....00 [046]0 ....", min: 12 },
  // Datagrams of Remote Desktop's begin like the next ones ([MS-RDPEUDP]).
  { app: "rdp", points: 4, bytes: "", ports: [3389, 3389] },
  { app: "steam", points: 4, bytes: "ffffffff 214c5fa0" },
  { app: "source", points: 4, bytes: "ffffffff [4-7]." },
  { app: "source", points: 3, bytes: "fffffff[ef] ...." },
  // Steam's datagram relay: a message of the SDK's framing (GameNetworkingSockets' public source), and its ping.
  { app: "steam relay", points: 4, bytes: "01817364 70696e67" },
  { app: "steam relay", points: 4, bytes: "2[0-5]", min: 512, max: 512, ports: [27015, 27200] },
  // ENet's connect and its answer (ENet's public source, protocol.h).
  { app: "enet", points: 4, bytes: "[8b]fff .... 82ff0001", min: 40 },
  { app: "enet", points: 4, bytes: "[8-b]... .... 83ff0001", min: 40 },
  { app: "enet", points: 4, bytes: "[0-b]... .... 82ff0001", min: 40 },
  // KCP: one segment, whose length it says (skywind3000/kcp, protocol.txt); with an identity of 8 bytes too.
  {
    app: "kcp",
    points: 4,
    bytes: "5[1-4] ...... ........ ........ ........ ....0000",
    at: 4,
    length: { at: 20, plus: 24, isLittle: true },
  },
  {
    app: "kcp",
    points: 4,
    bytes: "5[1-4] ...... ........ ........ ........ ....0000",
    at: 8,
    length: { at: 24, plus: 28, isLittle: true },
  },
  { app: "kcp", points: 4, bytes: "000000ff ........ ........ 499602d2 ffffffff" },
  { app: "kcp", points: 4, bytes: "00000145 ........ ........ 499602d2 14514545" },
  // Photon's connect, and commands behind it (Exit Games' documentation of ports).
  { app: "photon", points: 4, bytes: "ffff 0. 01 ........ ........ 02ff01" },
  { app: "photon", points: 4, bytes: ".... 0. 0. ........ ........ 0[1-f]", ports: [5055, 5058] },
  { app: "photon", points: 3, bytes: ".... 00 0[1-9] ........ ........ 0[1-f] .. 0[01] 0[04] 000000" },
  { app: "unreal", points: 4, bytes: ".[7b]1a20 [0-3][08]", min: 40, max: 80 },
  { app: "steam relay", points: 2, bytes: "", ports: [27015, 27200] },
  { app: "cryengine", points: 4, bytes: "3c0000.. ..000000 00000000 00000000 01000000" },
  {
    app: "cryengine",
    points: 4,
    bytes: "[8b]7000000 00000000 00000000 00000000 00000000 00000000 00000000 00000000",
    min: 100,
  },
  { app: "call of duty", points: 4, bytes: "0[cd]0200", min: 29, max: 29 },
  { app: "nintendo", points: 4, bytes: "32ab9864" },
  { app: "nintendo", points: 4, bytes: "0000006[5-7] 0000.... ........ ........", min: 16, max: 16 },
  // netcode (mas-bandwidth/netcode, STANDARD.md).
  { app: "netcode", points: 4, bytes: "004e4554434f4445" },
  { app: "battle.net", points: 4, bytes: "00000000 00000000 00000000 000040", min: 20 },
  {
    app: "battle.net",
    points: 2,
    bytes: "........ ........ ........ ....40[01]0 ....",
    min: 20,
    ports: [3724, 3724],
  },
  {
    app: "battle.net",
    points: 2,
    bytes: "........ ........ ........ ....40[01]0 ....",
    min: 20,
    ports: [1119, 1120],
  },
  // Teredo carries a console's games and little else by now (RFC 4380).
  { app: "teredo", points: 4, bytes: "[06].", ports: [3544, 3544] },

  // Somebody waits for an answer. DNS (RFC 1035): an operation of 0, and few questions.
  { app: "dns", points: 4, bytes: "........ 00..", min: 12, ports: [53, 53] },
  { app: "dns", points: 4, bytes: "........", ports: [5353, 5355] },
  { app: "ntp", points: 4, bytes: "[0-3ed].", min: 44, ports: [123, 123] },
  { app: "ssdp", points: 4, bytes: "4d2d534541524348" },
  { app: "ssdp", points: 4, bytes: "4e4f54494659202a" },
  { app: "ssdp", points: 4, bytes: "", ports: [1900, 1900] },
  { app: "dhcp", points: 4, bytes: "0[12]010600", ports: [67, 68] },
  { app: "dhcp", points: 4, bytes: "[0-1].", ports: [546, 547] },
  { app: "netbios", points: 4, bytes: "", ports: [137, 138] },
  { app: "snmp", points: 4, bytes: "30", ports: [161, 162] },
  { app: "coap", points: 4, bytes: "[4-7].", ports: [5683, 5683] },
  { app: "natpmp", points: 4, bytes: "0", ports: [5350, 5351] },
  { app: "spotify", points: 4, bytes: "53706f7455647030" },
  { app: "dropbox", points: 4, bytes: "", ports: [17500, 17500] },
  { app: "syncthing", points: 4, bytes: "2ea7d90b" },
  { app: "ipmi", points: 4, bytes: "0600ff0[67]", ports: [623, 623] },
  // ONC RPC (RFC 5531): a call of version 2, and an accepted answer.
  { app: "rpc", points: 4, bytes: "........ 00000000 00000002 000[1-9]" },
  { app: "rpc", points: 2, bytes: "........ 00000001 00000000 0000000[01]" },
  { app: "remote screen", points: 4, bytes: "0317 24", at: 10 },
  { app: "remote screen", points: 2, bytes: "0[123]00010. ..00", min: 10, max: 10, ports: [4000, 4099] },
  { app: "text", points: 4, bytes: "485454502f" },
  { app: "text", points: 3, bytes: "7b22" },
  { app: "text", points: 4, bytes: "3c3f786d6c" },

  // Tunnels. WireGuard (whitepaper §5.4): message types and their lengths, a counter below 2^32.
  { app: "wireguard", points: 4, bytes: "01000000", min: 148, max: 148 },
  { app: "wireguard", points: 4, bytes: "02000000", min: 92, max: 92 },
  { app: "wireguard", points: 4, bytes: "03000000", min: 64, max: 64 },
  { app: "wireguard", points: 4, bytes: "04000000 ........ ........ 00000000", min: 32 },
  // OpenVPN (its public protocol documentation): a reset of the client's and of the server's, then anything on its port.
  { app: "openvpn", points: 4, bytes: "38 ................ 00 00000000", min: 14, max: 14 },
  { app: "openvpn", points: 4, bytes: "40 ................ 01 00000000", min: 26, max: 26 },
  { app: "openvpn", points: 2, bytes: "28 ................ 01 0000", min: 22, max: 22 },
  { app: "openvpn", points: 2, bytes: "38", min: 42, max: 90 },
  { app: "openvpn", points: 2, bytes: "40", min: 50, max: 110 },
  { app: "openvpn", points: 4, bytes: "[1-5][08]", ports: [1194, 1194] },
  { app: "ipsec", points: 4, bytes: "", ports: [500, 500] },
  { app: "ipsec", points: 4, bytes: "", ports: [4500, 4500] },
  { app: "tailscale", points: 4, bytes: "5453f09f92ac" },
  { app: "gtp", points: 4, bytes: "3[0-7]", ports: [2152, 2152] },
  { app: "gtp", points: 4, bytes: "[34].", ports: [2123, 2123] },
  { app: "vxlan", points: 4, bytes: "08000000", ports: [4789, 4789] },
  { app: "capwap", points: 4, bytes: "[01].", ports: [5246, 5247] },
  { app: "softether", points: 4, bytes: "", ports: [5004, 5004], max: 1 },
  { app: "softether", points: 4, bytes: "0000000. 000000..", min: 60, ports: [5004, 5004] },
  { app: "l2tp", points: 4, bytes: "", ports: [1701, 1701] },
  // DTLS (RFC 6347 §4.1, RFC 9147 for the first byte).
  { app: "dtls", points: 4, bytes: "1[4-9] fe[fe][fd]", min: 13 },
  { app: "dtls", points: 4, bytes: "1[4-9] 0100 0000", min: 13 },

  // QUIC (RFC 9000 §17.2, RFC 9369, and the versions before it); short headers show nothing but their port.
  { app: "quic", points: 4, bytes: "[c-f]. 00000001", min: 20 },
  { app: "quic", points: 4, bytes: "[c-f]. 6b3343cf", min: 20 },
  { app: "quic", points: 4, bytes: "[c-f]. ff0000", min: 20 },
  { app: "quic", points: 4, bytes: "[c-f]. faceb0", min: 20 },
  { app: "quic", points: 4, bytes: "[c-f]. 5[14]303[0-9]3[0-9]", min: 20 },
  { app: "quic", points: 4, bytes: "[c-f]. .a.a.a.a", min: 20, ports: [443, 443] },
  { app: "quic", points: 4, bytes: "[8-f]. 00000000", min: 20, ports: [443, 443] },
  { app: "quic", points: 4, bytes: `0[9d] ${ANY8} 5130`, min: 20 },
  { app: "quic", points: 1, bytes: "[0-7].", min: 20, ports: [443, 443] },

  // Transfers. BitTorrent's DHT (BEP 5), trackers (BEP 15), uTP (BEP 29).
  { app: "bittorrent", points: 4, bytes: "64313a[67][0-f]" },
  { app: "bittorrent", points: 4, bytes: "00000417 27101980 00000000" },
  {
    app: "bittorrent",
    points: 3,
    bytes: "410[0-2].... ........ 00000000 ........ ....0000",
    min: 20,
    max: 30,
  },
  { app: "bittorrent", points: 2, bytes: "210[0-2].... ........ ........ ........ ....", min: 20, max: 34 },
  { app: "bittorrent", points: 1, bytes: "010[0-2].... ........ ........ 00[0-f].....", min: 20 },
  {
    app: "bittorrent",
    points: 1,
    bytes: "[13]10[0-2].... ........ ........ ........ ....",
    min: 20,
    max: 34,
  },
  { app: "tftp", points: 4, bytes: "000[1-6]", ports: [69, 69] },
  { app: "tftp", points: 3, bytes: "0003 000[1-9]", min: 516, max: 516 },
  { app: "tftp", points: 2, bytes: "0004 000[0-9]", min: 4, max: 4 },
  {
    app: "afs",
    points: 4,
    bytes: "........ ........ ........ ........ ........ 0[1-d]",
    min: 28,
    ports: [7000, 7009],
  },
  { app: "uftp", points: 4, bytes: "[3-5].", min: 16, ports: [1044, 1044] },
  { app: "syslog", points: 4, bytes: "3c3[0-9]", ports: [514, 514] },
  { app: "flow records", points: 4, bytes: "000[159a]", ports: [2055, 2055] },
  { app: "flow records", points: 4, bytes: "000[159a]", ports: [9995, 9996] },
  { app: "flow records", points: 4, bytes: "000000", ports: [6343, 6343] },
  { app: "statistics", points: 4, bytes: "0", ports: [25826, 25826] },
  { app: "edonkey", points: 2, bytes: "[ce][345]", ports: [4660, 4673] },
  { app: "gnutella", points: 4, bytes: "474e4402" },
];
