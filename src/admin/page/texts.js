/**
 * Every English text of the page, in one place. Invariant: no other file of the page has a sentence or a label. Whatever varies is an
 * argument.
 */

export const TEXTS = {
  product: "Oxrelay",
  connecting: "Connecting …",
  noAnswer: "The relay does not answer. This page tries again.",
  skip: "Skip to content",
  navigation: "Parts of this page",
  tabs: { devices: "Devices", links: "One-time links", traffic: "Traffic", events: "Events" },
  /** @param {string} version @param {string} exit @param {string} uptime */
  about: (version, exit, uptime) => `Version ${version} · ${exit} exit · up ${uptime}`,
  /** @param {number} connected @param {number} all */
  connected: (connected, all) => `${connected} of ${all} connected`,
  faulty: "The relay reports a fault:",
  close: "Close",
  cancel: "Cancel",
  save: "Save",
  none: "–",

  signIn: {
    title: "Sign in",
    token: "Admin token",
    hint:
      "The token is in the file state/admin.token on the relay, unless its configuration or environment sets one.",
    button: "Sign in",
    signOut: "Sign out",
  },

  devices: {
    add: "Add device",
    search: "Search devices",
    searchHint: "Name, address, note …",
    caption: "Devices, their state and their traffic",
    empty: "No device yet. Add the first one.",
    notFound: "No device has these words.",
    /** @param {number} page @param {number} pages @param {number} found */
    place: (page, pages, found) =>
      `Page ${page} of ${pages} · ${found} ${found === 1 ? "device" : "devices"}`,
    back: "Previous page",
    forth: "Next page",
    /** @param {string} name */
    open: (name) => `Details of ${name}`,
    columns: {
      name: "Device",
      state: "State",
      sentBps: "Down",
      receivedBps: "Up",
      rttMs: "Round trip",
      lossRatio: "Loss",
      repair: "Repaired",
      queue: "Queue, p99",
      month: "This month",
      lastHandshakeAgeS: "Handshake",
      endpoint: "From",
    },
    sortNote: "sort",
    states: {
      connected: "connected",
      offline: "offline",
      disabled: "disabled",
      expired: "expired",
      volume: "volume used up",
    },
    /** @param {string} time */
    ago: (time) => `${time} ago`,
    never: "never",
    /** @param {string} used @param {string} limit */
    ofLimit: (used, limit) => `${used} of ${limit}`,
    disable: "Disable",
    enable: "Enable",
    remove: "Remove",
    undo: "Undo",
    /** @param {string} name */
    disableNamed: (name) => `Disable ${name}`,
    /** @param {string} name */
    enableNamed: (name) => `Enable ${name}`,
    /** @param {string} name */
    removeNamed: (name) => `Remove ${name}`,
    /** @param {string} name */
    removed: (name) => `${name} is removed and cut off.`,
    /** @param {string} name */
    restored: (name) => `${name} is back, with the same keys and addresses.`,
    /** @param {string} name */
    disabled: (name) => `${name} is disabled and cut off.`,
    /** @param {string} name */
    enabled: (name) => `${name} may connect again.`,
    /** @param {string} name */
    saved: (name) => `${name} is saved.`,
  },

  form: {
    addTitle: "Add a device",
    name: "Name",
    nameHint: "1 to 63 of A–Z a–z 0–9 . _ -",
    kind: "How it connects",
    wireguard: "WireGuard app (phone, tablet, Windows, macOS, router)",
    oxtunnel: "Oxrelay's own client (Linux): repairs lost packets",
    more: "Limits and notes",
    expires: "Expires on",
    expiresHint: "From then on it is kept out. Empty for never.",
    monthly: "Volume a month, GiB",
    monthlyHint: "Both directions together, by calendar month in UTC. Empty for no limit.",
    rateDown: "Most down, Mbit/s",
    rateUp: "Most up, Mbit/s",
    rateHint: "Empty for no limit.",
    forwards: "Port forwards",
    forwardsHint: "Ports of the relay that lead to this device, such as udp:27015, tcp:8000-8010:9000.",
    notes: "Notes",
    endpoint: "Relay's address for the device",
    endpointHint: "host:port, as the device reaches this relay. Empty for the configured one.",
    disabled: "Disabled: kept out until you enable it",
    create: "Create",
  },

  config: {
    /** @param {string} name */
    title: (name) => `${name} is ready`,
    once: "This is shown once: the relay does not keep the device's private key.",
    scan: "In the WireGuard app choose “Add a tunnel”, then “Create from QR code”.",
    scanLine: "On the device run “connect” and paste this line, or what a camera makes of the code.",
    wireguard: "WireGuard",
    oxtunnel: "Oxrelay client",
    /** @param {string} name */
    qr: (name) => `QR code of the configuration of ${name}`,
    text: "Configuration",
    download: "Download",
    copy: "Copy",
    copied: "Copied.",
    notCopied: "The browser did not copy. The text is selected: press Ctrl-C.",
    done: "Done",
  },

  detail: {
    address: "Addresses",
    key: "Public key",
    from: "Connects from",
    protocol: "Speaks",
    unencrypted: "OxTunnel, not encrypted",
    handshake: "Last handshake",
    total: "Total up / down",
    repairDown: "Repair, down",
    repairUp: "Repair, up",
    /** @param {string} name @param {string} median @param {string} p99 */
    wait: (name, median, p99) => `${name} ${median}, p99 ${p99}`,
    queue: "Wait in the queue",
    rateNow: "Rate of its line",
    path: "Path, as found",
    /** @param {string} state @param {string} rate @param {string} least @param {string} queue */
    pathIs: (state, rate, least, queue) => `${state}: ${rate}, round trip ${least} and a queue of ${queue}`,
    queueLosses: "Marked and dropped in the queue",
    /** @param {string} marked @param {string} dropped */
    markedAndDropped: (marked, dropped) => `${marked} marked, ${dropped} dropped`,
    drops: "Dropped packets",
    added: "Added",
    forwards: "Port forwards",
    /** @param {string} lost @param {string} residual @param {string} scheme */
    repair: (lost, residual, scheme) => `${lost} lost, ${residual} after repair (${scheme})`,
    live: "Live, since you opened this",
    rate: "Rate",
    roundTrip: "Round trip",
    lost: "Loss",
    edit: "Settings",
  },

  links: {
    make: "New link",
    title: "A link for a friend",
    explain:
      "Whoever opens the link first gets a device of this name. The keys are made at that moment; the relay stores no configuration.",
    lasts: "Works for",
    hours: { "1": "1 hour", "24": "1 day", "168": "7 days", "720": "30 days" },
    create: "Make link",
    ready: "The link is ready",
    once: "This is shown once. It works one time; you can revoke it until then.",
    link: "Link",
    loopback:
      "This address works on this machine only. Open this page by an address that your friend reaches, over TLS, and make the link there.",
    caption: "One-time links",
    empty: "No links. Make one to let a friend add a device.",
    columns: { name: "Device", state: "State", created: "Made", expires: "Until" },
    states: { open: "not used yet", used: "used", expired: "expired" },
    revoke: "Revoke",
    forget: "Delete",
    /** @param {string} name */
    revokeNamed: (name) => `Revoke the link for ${name}`,
    /** @param {string} name */
    revoked: (name) => `The link for ${name} does not work any more.`,
  },

  friend: {
    title: "A device for you",
    explain:
      "With this link you can add one device to a relay. It works once, so open it where you can scan the code or keep the file.",
    button: "Make my configuration",
    broken: "This link is not whole. Copy it again, up to its end.",
  },

  traffic: {
    title: "Traffic",
    minutes: "10 minutes",
    day: "24 hours",
    span: "Time shown",
    down: "to devices",
    up: "from devices",
    rates: "Bits a second",
    connections: "Connected devices",
    dropsChart: "Dropped packets a second",
    /** @param {string} what @param {string} now @param {string} highest */
    summary: (what, now, highest) => `${what === "" ? "" : `${what}: `}now ${now}, at most ${highest}`,
    empty: "The chart begins with the second sample.",
    drops: "Why packets were dropped",
    dropColumns: { packets: "Packets", sentence: "Reason" },
    noDrops: "None since the relay started.",
    flows: "Recognised flows",
    flowColumns: { application: "Application", flows: "Flows" },
    noFlows: "None in the last ten seconds.",
    exitFlows: "Flows open in the exit",
  },

  events: {
    caption: "What happened, the latest first",
    empty: "Nothing yet.",
    columns: { at: "Time", what: "Event" },
    /** @type {Record<string, (peer: string, detail: string | undefined) => string>} */
    kinds: {
      connected: (peer, from) => `${peer} connected from ${from}`,
      disconnected: (peer) => `${peer} is gone: its session ended`,
      roamed: (peer, to) => `${peer} moved to ${to}`,
      refused: (peer) => `${peer} was refused: max_connections is reached`,
      narrow: (peer) => `The way to ${peer} loses datagrams of 1200 bytes: a link on it has too small an MTU`,
      stale: (peer) => `A handshake of ${peer} was refused: that device's clock went back`,
      added: (peer) => `${peer} was added`,
      removed: (peer) => `${peer} was removed`,
      restored: (peer) => `${peer} was restored`,
      renamed: (peer, before) => `${before} is called ${peer} now`,
      changed: (peer) => `The settings of ${peer} were changed`,
      disabled: (peer) => `${peer} was disabled`,
      expired: (peer) => `${peer} has expired`,
      volume: (peer) => `${peer} has used up its volume of this month`,
      admitted: (peer) => `${peer} may connect again`,
      link_made: (peer) => `A one-time link for ${peer} was made`,
      link_used: (peer) => `The one-time link for ${peer} was used`,
      link_revoked: (peer) => `The one-time link for ${peer} was revoked`,
      signed_in: (_, from) => `Somebody signed in on this page from ${from}`,
      sign_in_failed: (_, from) => `A sign-in from ${from} failed`,
    },
  },
};
