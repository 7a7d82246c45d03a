/**
 * Every row of the mutation table, by area. A feature adds the lines without which its tests should fail. Tries nothing.
 */
import { ACCESS_ROWS } from "./access_rows.ts";
import { ADMIN_ROWS } from "./admin_rows.ts";
import { CLASSIFY_ROWS } from "./classify_rows.ts";
import { CODEC_ROWS } from "./codec_rows.ts";
import { FALLBACK_ROWS } from "./fallback_rows.ts";
import { CONNECT_ROWS } from "./connect_rows.ts";
import { EXIT_ROWS } from "./exit_rows.ts";
import { TCP_ROWS } from "./tcp_rows.ts";
import { TUN_ROWS } from "./tun_rows.ts";
import { HELP_ROWS } from "./help_rows.ts";
import { IO_ROWS } from "./io_rows.ts";
import type { Mutation } from "./mutation.ts";
import { PACKAGING_ROWS } from "./packaging_rows.ts";
import { PATHS_ROWS } from "./paths_rows.ts";
import { QUEUE_ROWS } from "./queue_rows.ts";
import { REPAIR_ROWS } from "./repair_rows.ts";
import { ROUTE_ROWS } from "./route_rows.ts";
import { SESSION_PATH_ROWS } from "./session_path_rows.ts";
import { SESSION_ROWS } from "./session_rows.ts";
import { WIRE_ROWS } from "./wire_rows.ts";

export const ROWS: readonly Mutation[] = [
  ...WIRE_ROWS,
  ...SESSION_ROWS,
  ...SESSION_PATH_ROWS,
  ...ROUTE_ROWS,
  ...PATHS_ROWS,
  ...QUEUE_ROWS,
  ...REPAIR_ROWS,
  ...CODEC_ROWS,
  ...IO_ROWS,
  ...FALLBACK_ROWS,
  ...EXIT_ROWS,
  ...TCP_ROWS,
  ...TUN_ROWS,
  ...ADMIN_ROWS,
  ...ACCESS_ROWS,
  ...PACKAGING_ROWS,
  ...CONNECT_ROWS,
  ...CLASSIFY_ROWS,
  ...HELP_ROWS,
];
