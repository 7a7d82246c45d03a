/**
 * Which interface each door of a client has (io/multi_port.ts): the one that the system would take is door 0, the path that every
 * session begins with, and each of the others has a number of its own while it is there. Invariant: a door keeps its interface as
 * long as that is the same one, so that no path is opened twice; what stands in the way of a path is said once. Opens
 * nothing: the plane does.
 */
import { HandoffWatch } from "../../control/paths/handoff.ts";
import {
  addressesOf,
  describeInterface,
  interfacesTo,
  type LinkInterface,
  obstacleOf,
  signalLevels,
} from "./interfaces.ts";

/** What the person said of paths. */
export interface PathWishes {
  /** Interfaces by name, in order of preference; undefined for all that lead to the relay. */
  names?: readonly string[];
  /** Named as metered, beside those that are by their kind. */
  metered: readonly string[];
  /** Classes (bit c for CLASS_* c) whose packets go on a second path too. */
  copied: number;
}

/** A door as the plane opens it. */
export interface DoorPlan {
  /** 0 for the first path. */
  door: number;
  device: string;
  index: number;
  addresses: string[];
  isWifi: boolean;
  isMetered: boolean;
}

/** Paths at a time (PROTOCOL §17), and the highest number of a door. */
const LIVE_MAX = 4, DOOR_MAX = 7;
/** Numbers that a session has for paths beside its first (PROTOCOL R109); each is used once. */
const NUMBERS = 7;

/** The doors for these interfaces, which are in order of preference, after those that were there before. */
export function planDoors(
  before: readonly DoorPlan[],
  found: readonly LinkInterface[],
  { names, metered }: PathWishes,
  addresses: (name: string) => string[] = addressesOf,
): DoorPlan[] {
  const planOf = (door: number, { name, index, isWifi, isMetered }: LinkInterface): DoorPlan => ({
    door,
    device: name,
    index,
    addresses: addresses(name),
    isWifi,
    isMetered: isMetered || metered.includes(name),
  });
  const wanted = names === undefined
    ? found.filter(({ isTunnel }) => !isTunnel)
    : names.flatMap((name) => found.find((one) => one.name === name) ?? []);
  const isHere = (plan: DoorPlan) =>
    wanted.some(({ name, index }) => name === plan.device && index === plan.index);
  // The first path stays where it is: it is silent while its interface is away, and goes on when that is back.
  const first = before.find(({ door }) => door === 0);
  const again = wanted.find(({ name }) => name === first?.device);
  const stays = first !== undefined && (again !== undefined || wanted.length > 0 && before.length > 1);
  const doors = stays ? [again === undefined ? first : planOf(0, again)] : [];
  doors.push(
    ...before.filter((plan) => plan.door > 0 && isHere(plan)).map((plan) => ({
      ...plan,
      addresses: addresses(plan.device),
    })),
  );
  for (const one of wanted) {
    if (doors.length >= LIVE_MAX || doors.some(({ device }) => device === one.name)) continue;
    const taken = new Set(doors.map(({ door }) => door));
    const door = Array.from({ length: DOOR_MAX + 1 }, (_, i) => i).find((number) => !taken.has(number));
    if (door === undefined) break;
    doors.push(planOf(door, one));
  }
  return doors.sort((a, b) => a.door - b.door);
}

/** Where it looks; others in tests. */
export interface Sources {
  interfacesTo: (relay: string, ownDevice: string) => LinkInterface[];
  signalLevels: () => Map<string, number>;
}

/** Looks at the interfaces again and again, and says what became of them. */
export class Doors {
  readonly #wishes: PathWishes;
  readonly #ownDevice: string;
  readonly #say: (message: string) => void;
  #plan: DoorPlan[] = [];
  #text = "";
  /** Paths that this session has had beside its first. */
  #opened = 0;
  readonly #told = new Set<string>();
  readonly #sources: Sources;
  /** Of radios, by name. */
  readonly #signals = new Map<string, HandoffWatch>();

  constructor(
    wishes: PathWishes,
    ownDevice: string,
    say: (message: string) => void,
    sources: Sources = { interfacesTo, signalLevels },
  ) {
    this.#sources = sources;
    this.#wishes = wishes;
    this.#ownDevice = ownDevice;
    this.#say = say;
  }

  /** Whether the session has no number left for another path, so that only a new one can have it. */
  get isUsedUp(): boolean {
    return this.#opened > NUMBERS;
  }

  get plan(): readonly DoorPlan[] {
    return this.#plan;
  }

  /**
   * The doors towards `relay`, an address, where they are others than before; undefined where nothing changed. While a radio's signal
   * says that it may soon change cells, what costs money counts as free: copies go there before they are missed.
   */
  look(relay: string, nowUs: number): readonly DoorPlan[] | undefined {
    const found = this.#sources.interfacesTo(relay, this.#ownDevice);
    this.#explain(found);
    const plan = planDoors(this.#plan, found, this.#wishes);
    const isAhead = this.#isHandoffAhead(plan, nowUs);
    const doors = plan.map((one) => isAhead ? { ...one, isMetered: false } : one);
    const text = JSON.stringify(doors);
    if (text === this.#text) return undefined;
    this.#tell(found, plan);
    const isThere = (one: DoorPlan) =>
      this.#plan.some(({ door, index }) => door === one.door && index === one.index);
    // Doors that are alone are not opened.
    if (plan.length > 1) this.#opened += plan.filter((one) => one.door > 0 && !isThere(one)).length;
    this.#text = text;
    this.#plan = plan;
    return doors;
  }

  #isHandoffAhead(plan: readonly DoorPlan[], nowUs: number): boolean {
    // Without a price nothing is spared.
    if (!plan.some(({ isMetered }) => isMetered)) return false;
    const levels = this.#sources.signalLevels();
    let isAhead = false;
    for (const [name, dbm] of levels) {
      if (!plan.some(({ device, isMetered }) => device === name && !isMetered)) continue;
      let watch = this.#signals.get(name);
      if (watch === undefined) this.#signals.set(name, watch = new HandoffWatch());
      watch.level(dbm, nowUs);
      if (watch.isAhead(nowUs)) isAhead = true;
    }
    return isAhead;
  }

  /** Begins anew, with a session that knows nothing of the paths of the last one: the first path is the system's choice then. */
  forget(): void {
    this.#plan = [];
    this.#text = "";
    this.#opened = 0;
  }

  #tell(found: readonly LinkInterface[], plan: readonly DoorPlan[]): void {
    const shown = ({ device, isMetered, isWifi }: DoorPlan) =>
      describeInterface({ name: device, isMetered, isWifi, index: 0, metric: 0, isTunnel: false });
    const came = plan.filter(({ device }) => !this.#plan.some((one) => one.device === device));
    const left = this.#plan.filter(({ device }) => !plan.some((one) => one.device === device));
    if (came.length > 0 && plan.length > 1) {
      this.#say(`A path leads through ${came.map(shown).join(" and through ")}.`);
    }
    if (left.length > 0) {
      this.#say(`No path leads through ${left.map(({ device }) => device).join(" and ")} now.`);
    }
    if (plan.length === 1 && this.#plan.length === 0 && found.length === 1) {
      this.#once(
        `One interface leads to the relay, ${shown(plan[0])}; another one is used as soon as it is there.`,
      );
    }
  }

  #explain(found: readonly LinkInterface[]): void {
    const names = this.#wishes.names ?? found.map(({ name }) => name);
    if (this.#wishes.names === undefined && found.length < 2) return;
    for (const name of names) {
      const obstacle = obstacleOf(name, found.some((one) => one.name === name));
      if (obstacle !== undefined) this.#once(obstacle);
    }
  }

  #once(message: string): void {
    if (this.#told.has(message)) return;
    this.#told.add(message);
    this.#say(message);
  }
}
