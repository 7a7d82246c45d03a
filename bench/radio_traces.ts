/**
 * Paths whose capacity is what somebody measured on a radio while driving: traces in the format of Mahimahi (Netravali et al.
 * 2015), each line the millisecond at which one packet of 1500 bytes could leave, as its Debian package mahimahi-traces
 * installs them. Nothing of them is kept here, and without them there are no such paths.
 */
import type { PathModel } from "../tests/kit/channels.ts";
import type { Random } from "../tests/kit/random.ts";

const OPPORTUNITY_BYTES = 1500;

export interface RadioTrace {
  name: string;
  /** When a packet could leave, microseconds from the start, in order. */
  opportunitiesUs: Float64Array;
}

/** All traces in the directory; none where there is no such directory. Files that are no traces are passed over. */
export function readTraces(directory: string): RadioTrace[] {
  const traces: RadioTrace[] = [];
  try {
    for (const { name, isFile } of Deno.readDirSync(directory)) {
      if (!isFile || !/\.(up|down)$/.test(name)) continue;
      const times = Deno.readTextFileSync(`${directory}/${name}`).split("\n").filter(Boolean).map(Number);
      if (times.every((ms) => ms >= 0) && times.some((ms) => ms > 0)) {
        traces.push({ name, opportunitiesUs: Float64Array.from(times, (ms) => 1000 * ms).sort() });
      }
    }
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) throw error;
  }
  return traces.sort((a, b) => a.name < b.name ? -1 : 1);
}

/**
 * Behind a queue of `bufferBytes` that drains at the trace's opportunities, from a place in it that chance chooses, and
 * that other traffic of the same user fills at `load` of the trace's mean rate, as a fluid.
 */
export class RadioPath implements PathModel {
  readonly #times: Float64Array;
  readonly #periodUs: number;
  readonly #otherBytesPerUs: number;
  readonly #startUs: number;
  /** The next opportunity to be used: its index, and how often the trace has come round. */
  #next: number;
  #rounds = 0;
  #queueBytes = 0;
  #atUs = 0;

  constructor(
    trace: RadioTrace,
    random: Random,
    readonly oneWayUs: number,
    readonly bufferBytes: number,
    load: number,
  ) {
    this.#times = trace.opportunitiesUs;
    this.#periodUs = this.#times[this.#times.length - 1];
    this.#otherBytesPerUs = load * OPPORTUNITY_BYTES * this.#times.length / this.#periodUs;
    this.#next = random.u32() % this.#times.length;
    this.#startUs = this.#times[this.#next];
  }

  arrivalUs(nowUs: number, bytes: number): number {
    for (; this.#opportunityUs(0) <= nowUs; this.#advance()) {
      const atUs = this.#opportunityUs(0);
      this.#queueBytes += this.#otherBytesPerUs * (atUs - this.#atUs);
      this.#queueBytes = Math.max(0, Math.min(this.bufferBytes, this.#queueBytes) - OPPORTUNITY_BYTES);
      this.#atUs = atUs;
    }
    this.#queueBytes = Math.min(
      this.bufferBytes,
      this.#queueBytes + this.#otherBytesPerUs * (nowUs - this.#atUs),
    );
    this.#atUs = nowUs;
    if (this.#queueBytes + bytes > this.bufferBytes) return Infinity;
    this.#queueBytes += bytes;
    return this.#opportunityUs(Math.ceil(this.#queueBytes / OPPORTUNITY_BYTES) - 1) + this.oneWayUs;
  }

  /** When the opportunity `ahead` after the next one comes. */
  #opportunityUs(ahead: number): number {
    const count = this.#times.length, index = this.#next + ahead;
    return (this.#rounds + Math.floor(index / count)) * this.#periodUs + this.#times[index % count] -
      this.#startUs;
  }

  #advance(): void {
    this.#next++;
    if (this.#next < this.#times.length) return;
    this.#next = 0;
    this.#rounds++;
  }
}
