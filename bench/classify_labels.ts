/**
 * What the labelled captures of bench:classify are in truth: from the names in labels.tsv (which say protocols and programs) to
 * what a flow is for. Invariant: every place where a label names the transport and not the use, or a use that was not made, is
 * in CORRECTIONS with its reason. Reads nothing itself.
 */

export type Truth = "game" | "call" | "bulk" | "other";

/** A line of labels.tsv. */
export interface Label {
  file: string;
  protocol: string;
  ends: [string, string];
  application: string;
  category: string;
}

/** Columns: file, protocol, "address port" twice, application, category. */
export function readLabels(text: string): Label[] {
  return text.split("\n").filter((line) => line !== "").map((line) => {
    const [file, protocol, one, other, application, category] = line.split("\t");
    return { file, protocol, ends: [one, other], application, category };
  });
}

interface Correction {
  file?: RegExp;
  application: RegExp;
  truth: Truth;
  reason: string;
}

/** The first that fits counts. */
export const CORRECTIONS: readonly Correction[] = [
  {
    file: /^kcp/,
    application: /^KCP$/,
    truth: "other",
    reason: "a benchmark's segments: the transport alone",
  },
  { application: /^RakNet$/, truth: "game", reason: "Roblox and another game: the label is their transport" },
  {
    application: /^RTP$|^STUN\.RTP$|^RTCP$/,
    truth: "call",
    reason: "sound and pictures: the label is the transport",
  },
  {
    application: /Discord|Zoom|Webex|Teams/,
    truth: "call",
    reason: "voice and meetings under other categories",
  },
  { file: /zoom/, application: /^DTLS$/, truth: "call", reason: "the meeting's media handshake" },
  {
    file: /^nintendo/,
    application: /^AmazonAWS$/,
    truth: "other",
    reason: "the console's probes of its address translation",
  },
  { application: /^SD-RTN$/, truth: "call", reason: "Agora's media network" },
  {
    application: /^i3D$/,
    truth: "call",
    reason: "Discord's search for its address, then RTP: the label is the servers' owner",
  },
  { application: /^Telegram$/, truth: "call", reason: "its chats go over TCP, UDP is for calls" },
  { application: /^DTLS\.GeForceNow$/, truth: "game", reason: "a game's pictures over WebRTC" },
  { application: /^BFCP$/, truth: "other", reason: "who has the floor, and no media" },
  {
    file: /^teamspeak3/,
    application: /^TeamSpeak$/,
    truth: "call",
    reason: "one flow of two is a server's report to its licenser",
  },
];

/** What the flow is for. */
export function truthOf({ file, application, category }: Label): Truth {
  const correction = CORRECTIONS.find((one) =>
    (one.file?.test(file) ?? true) && one.application.test(application)
  );
  if (correction) return correction.truth;
  if (/^QUIC\.(YouTube|YouTubeUpload|WhatsAppFiles)$/.test(application)) return "bulk";
  if (/^QUIC/.test(application) && category !== "VoIP") return "other";
  switch (category) {
    case "Game":
      return /^(TLS|HTTP|DNS)\./.test(application) ? "other" : "game";
    case "VoIP":
      return /^TLS\./.test(application) ? "other" : "call";
    case "Download":
    case "DataTransfer":
    case "Streaming":
      return "bulk";
    default:
      return "other";
  }
}

/** Labels and files that mean what applications.ts has under another name; the others have the name in them. */
const NAMES: Readonly<Record<string, RegExp>> = {
  agora: /SD-RTN/,
  "battle.net": /Heroes_of_the_Storm|WorldOfWarcraft|Blizzard|^wow/,
  discord: /Discord|i3D/,
  meet: /Google/,
  raknet: /RakNet|Roblox|Minecraft/,
  "remote screen": /TeamViewer|AnyDesk|ToDesk|Sunlogin|UltraViewer/i,
  rpc: /NFS/,
  sip: /SIP|Megaco|MGCP/,
  "steam relay": /Steam/,
  teams: /Teams/,
  unreal: /EpicGames|Unreal/i,
  zoom: /zoom/i,
};

/** Whether a label, or the file it is of, says what `name` of applications.ts is. */
export function isNamed(name: string, application: string, file: string): boolean {
  const pattern = NAMES[name] ?? new RegExp(name.replaceAll(/[ .]/g, ".?"), "i");
  return pattern.test(application) || pattern.test(file);
}
