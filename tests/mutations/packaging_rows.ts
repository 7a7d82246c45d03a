/**
 * Mutations of the packages, and of the scripts that install one or start what was installed: packaging.
 */
import type { Mutation } from "./mutation.ts";

const PACKAGE_PARTS = "tests/unit/package_parts_test.ts";
const DEBIAN_SCRIPTS = "tests/system/debian_scripts_test.ts";
const INSTALL_SCRIPT = "tests/unit/install_script_test.ts";

export const PACKAGING_ROWS: readonly Mutation[] = [
  {
    file: "packaging/install.sh",
    from: '[ "$status" = installed ] ||',
    to: "true ||",
    tests: [INSTALL_SCRIPT],
    note: "a package that apt-get removed again is said to be installed",
  },
  {
    file: "packaging/launcher.sh",
    from: '[ "$previous" != --config ]',
    to: "true",
    tests: [PACKAGE_PARTS],
    note: "backup may write beside the configuration, and not where its file goes",
  },
  {
    file: "packaging/debian/postinst",
    from: "systemctl restart oxrelay.service",
    to: "systemctl try-restart oxrelay.service",
    tests: [DEBIAN_SCRIPTS],
    note: "a relay that was removed stands still after the next installation",
  },
  {
    file: "packaging/debian/postinst",
    from: "if deb-systemd-helper --quiet was-enabled oxrelay.service; then",
    to: "if ln -sf /usr/lib/systemd/system/oxrelay.service /etc/systemd/system/multi-user.target.wants; then",
    tests: [DEBIAN_SCRIPTS],
    note: "an upgrade enables a service that the administrator disabled",
  },
  {
    file: "tests/kit/package_parts.ts",
    from: "writes: outsideOf(set.write)",
    to: "writes: outsideOf(set.read)",
    tests: [PACKAGE_PARTS],
    note: "a packaged subcommand may write what its task may read",
  },
  {
    file: "packaging/launcher.sh",
    from: "write=$write,$file\n      done",
    to: "write=$write,$folder\n      done",
    tests: ["tests/unit/package_parts_test.ts"],
    note: "--out lets a command write all of a folder",
  },
  {
    file: "src/process/parent.ts",
    from: "if (Deno.ppid === parent) return;",
    to: "return;",
    tests: ["tests/system/install_test.ts"],
    note: "a relay runs on when npx was told to end",
  },
  {
    file: "src/admin/device_metrics.ts",
    from: "scrape ??= fold().catch(",
    to: "scrape = fold().catch(",
    tests: ["tests/unit/device_metrics_test.ts"],
    note: "each metric of a scrape asks for all peers anew",
  },
];
