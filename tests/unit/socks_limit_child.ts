/**
 * The SOCKS door in a process of its own, so that a test can limit its open files: prints its port, and serves until it is
 * ended.
 */
import { Names } from "../../src/connect/socks/names.ts";
import { serveSocks } from "../../src/connect/socks/mod.ts";
import { DirectTunnel, native } from "./direct_tunnel.ts";

if (typeof native === "string") throw new Error(native);
const tunnel = new DirectTunnel(native);
const names = new Names(() => Promise.reject(new Error("no names here")));
const doors = serveSocks(tunnel.dialler, names, "127.0.0.1", 0);
console.log(doors.port);
