/**
 * The doors of a plane: a socket for each interface that the main thread names, and a path of the session through each. Invariant:
 * what stays as it was is not touched; an interface that cannot be opened is failing and costs the others nothing. Chooses no
 * interface (doors.ts).
 */
import type { Client } from "../../client.ts";
import { DOORS_MAX, type MultiPort } from "../../io/multi_port.ts";
import type { DoorPlan } from "./doors.ts";

export class PlaneDoors {
  readonly #port: Pick<MultiPort, "open" | "shut">;
  readonly #client: Pick<Client, "addDoor" | "dropDoor" | "moved" | "setMetered">;
  readonly #plan: (DoorPlan | undefined)[] = new Array(DOORS_MAX).fill(undefined);
  readonly #failing = new Set<number>();

  constructor(
    port: Pick<MultiPort, "open" | "shut">,
    client: Pick<Client, "addDoor" | "dropDoor" | "moved" | "setMetered">,
  ) {
    this.#port = port;
    this.#client = client;
  }

  /** Doors whose interfaces take nothing now. */
  get failing(): number[] {
    return [...this.#failing];
  }

  /** The door's interface takes nothing, or does again. */
  note(door: number, isFailing: boolean): void {
    if (isFailing) this.#failing.add(door);
    else this.#failing.delete(door);
  }

  /** Opens and closes what is needed for exactly these doors. */
  set(doors: readonly DoorPlan[], nowUs: number): void {
    const before = this.#plan[0];
    for (let door = 0; door < DOORS_MAX; door++) {
      const was = this.#plan[door], is = doors.find((one) => one.door === door);
      if (is === undefined && was !== undefined) this.#shut(door);
      // What could not be opened is tried again with the next change.
      this.#plan[door] = is !== undefined && this.#open(is, was, nowUs) ? is : undefined;
    }
    // The first path began without a door, and so without a price; it is told once there is another one.
    const first = this.#plan[0];
    if (first?.isMetered && before === undefined) this.#client.setMetered(0, true);
  }

  #open(is: DoorPlan, was: DoorPlan | undefined, nowUs: number): boolean {
    const { door, device, index, addresses, isMetered } = is;
    if (was?.index !== index || was.device !== device) {
      try {
        this.#port.open(door, device, addresses);
        this.#failing.delete(door);
      } catch {
        this.#failing.add(door);
        return false;
      }
    } else if (was.addresses.join() === addresses.join()) {
      if (was.isMetered !== isMetered) this.#client.setMetered(door, isMetered);
      return true;
    }
    // A first path is there already and goes on from here; another one is opened.
    if (door === 0) this.#client.moved();
    else this.#client.addDoor(door, isMetered, nowUs);
    return true;
  }

  #shut(door: number): void {
    this.#port.shut(door);
    this.#failing.delete(door);
    if (door === 0) this.#client.moved();
    else this.#client.dropDoor(door);
  }
}
