/**
 * The page's files, as they are in page/: plain modules, which browsers run as they are written. Invariant: the policy lets only these
 * files run, nothing inline, nothing from elsewhere, and no text becomes markup. Knows nothing of what they do.
 */
import type { Hono } from "hono";
import appJs from "./page/app.js" with { type: "text" };
import chartJs from "./page/chart.js" with { type: "text" };
import configViewJs from "./page/config_view.js" with { type: "text" };
import deviceDetailJs from "./page/device_detail.js" with { type: "text" };
import deviceFormJs from "./page/device_form.js" with { type: "text" };
import devicesJs from "./page/devices.js" with { type: "text" };
import domJs from "./page/dom.js" with { type: "text" };
import indexHtml from "./page/index.html" with { type: "text" };
import linkJs from "./page/link.js" with { type: "text" };
import linkHtml from "./page/link.html" with { type: "text" };
import linksJs from "./page/links.js" with { type: "text" };
import styleCss from "./page/style.css" with { type: "text" };
import textsJs from "./page/texts.js" with { type: "text" };
import watchJs from "./page/watch.js" with { type: "text" };
import formatJs from "./page/format.js" with { type: "text" };

const SCRIPT = "text/javascript; charset=utf-8", PAGE = "text/html; charset=utf-8";

/** Path, type and text of each. */
const FILES: readonly [path: string, type: string, text: string][] = [
  ["/", PAGE, indexHtml],
  ["/link", PAGE, linkHtml],
  ["/page/style.css", "text/css; charset=utf-8", styleCss],
  ["/page/app.js", SCRIPT, appJs],
  ["/page/chart.js", SCRIPT, chartJs],
  ["/page/config_view.js", SCRIPT, configViewJs],
  ["/page/device_detail.js", SCRIPT, deviceDetailJs],
  ["/page/device_form.js", SCRIPT, deviceFormJs],
  ["/page/devices.js", SCRIPT, devicesJs],
  ["/page/dom.js", SCRIPT, domJs],
  ["/page/link.js", SCRIPT, linkJs],
  ["/page/links.js", SCRIPT, linksJs],
  ["/page/texts.js", SCRIPT, textsJs],
  ["/page/watch.js", SCRIPT, watchJs],
  ["/page/format.js", SCRIPT, formatJs],
];

const POLICY = [
  "default-src 'none'",
  "connect-src 'self'",
  "script-src 'self'",
  "style-src 'self'",
  "base-uri 'none'",
  "form-action 'none'",
  "frame-ancestors 'none'",
  "require-trusted-types-for 'script'",
  "trusted-types 'none'",
].join("; ");

export function addPage(app: Hono): void {
  for (const [path, type, text] of FILES) {
    app.get(path, (c) => {
      c.header("Content-Security-Policy", POLICY);
      c.header("Content-Type", type);
      return c.body(text);
    });
  }
}
