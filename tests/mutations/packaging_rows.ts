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
];
