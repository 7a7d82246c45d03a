/**
 * The Debian package's scripts over installation, upgrade, removal and purge: a relay that was removed runs again after the next
 * installation, and one that the administrator disabled stays disabled until a purge. dpkg, deb-systemd-helper and adduser are
 * this machine's, over an overlay of its files, which the test drops; only systemd itself, which does not run here, is replaced
 * by a script that writes down what it was asked.
 */
import { assertEquals } from "@std/assert";
import { requires } from "../kit/requires.ts";

const ROOT = new URL("../..", import.meta.url).pathname;

/** In the overlay: enabling is done by the real systemctl, which needs no running systemd for that; the rest is written down. */
const SYSTEMCTL = `#!/bin/sh
case "$*" in
  *is-enabled*) [ -L /etc/systemd/system/multi-user.target.wants/oxrelay.service ] ;;
  --root=*) exec /usr/bin/systemctl "$@" ;;
  daemon-reload) ;;
  *) echo "asked: $*" >> /asked ;;
esac
`;

/** The package without the program. */
const BUILD = `
  mkdir -p deb/DEBIAN deb/etc/oxrelay deb/usr/lib/systemd/system
  cp "$ROOT"/packaging/debian/p* deb/DEBIAN && chmod 755 deb/DEBIAN/*
  sed 's/#VERSION#/1.0/; s/#KILOBYTES#/1/; s/#ARCHITECTURE#/all/' "$ROOT/packaging/debian/control" > deb/DEBIAN/control
  echo /etc/oxrelay/oxrelay.toml > deb/DEBIAN/conffiles
  touch deb/etc/oxrelay/oxrelay.toml
  cp "$ROOT/packaging/oxrelay.service" deb/usr/lib/systemd/system
  dpkg-deb --root-owner-group -Znone --build deb top/upper/1.deb > log 2>&1 || { cat log; exit 1; }
`;

const STEPS = `
  export PATH=/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin DEBIAN_FRONTEND=noninteractive LC_ALL=C.UTF-8
  step() {
    echo "$1:"
    shift
    : > /asked
    "$@" > /log 2>&1 || { cat /log; exit 1; }
    cat /asked
    if [ -L /etc/systemd/system/multi-user.target.wants/oxrelay.service ]; then echo enabled; else echo not enabled; fi
  }
  mkdir -p /run/systemd/system
  step installed dpkg -i /1.deb
  step upgraded dpkg -i /1.deb
  step removed dpkg -r oxrelay
  step "installed again" dpkg -i /1.deb
  step disabled rm /etc/systemd/system/multi-user.target.wants/oxrelay.service
  step upgraded dpkg -i /1.deb
  step removed dpkg -r oxrelay
  step "installed again" dpkg -i /1.deb
  step purged dpkg -P oxrelay
  step "installed afresh" dpkg -i /1.deb
  step purged dpkg -P oxrelay
  find /var/lib/systemd /var/lib/oxrelay /etc/oxrelay -name '*oxrelay*' 2> /log
`;

const EXPECTED = `
installed:
asked: restart oxrelay.service
enabled
upgraded:
asked: restart oxrelay.service
enabled
removed:
asked: stop oxrelay.service
enabled
installed again:
asked: restart oxrelay.service
enabled
disabled:
not enabled
upgraded:
asked: try-restart oxrelay.service
not enabled
removed:
asked: stop oxrelay.service
not enabled
installed again:
asked: try-restart oxrelay.service
not enabled
purged:
asked: stop oxrelay.service
not enabled
installed afresh:
asked: restart oxrelay.service
enabled
purged:
asked: stop oxrelay.service
not enabled
`;

Deno.test({
  name:
    "install: the Debian package starts the relay again after a removal, and leaves one disabled that the administrator disabled",
  ...requires({ root: true, programs: ["dpkg-deb", "unshare", "bash"] }),
  async fn() {
    const folder = await Deno.makeTempDir({ prefix: "oxrelay-debian-" });
    try {
      await Deno.writeTextFile(`${folder}/systemctl`, SYSTEMCTL, { mode: 0o755 });
      await Deno.writeTextFile(`${folder}/steps`, STEPS);
      const script = `
        mkdir top && mount -t tmpfs none top
        mkdir -p top/upper/usr/local/bin top/work top/root
        cp systemctl top/upper/usr/local/bin && cp steps top/upper
        ${BUILD}
        mount -t overlay none -o lowerdir=/,upperdir=top/upper,workdir=top/work top/root
        mount --rbind /dev top/root/dev && mount --rbind /proc top/root/proc
        exec chroot top/root bash -eu /steps`;
      const { stdout, stderr } = await new Deno.Command("unshare", {
        args: ["-m", "bash", "-euc", script],
        cwd: folder,
        env: { ROOT, PATH: `${Deno.env.get("PATH")}:/usr/sbin:/sbin` },
      }).output();
      const text = new TextDecoder();
      assertEquals(text.decode(stdout) + text.decode(stderr), EXPECTED.slice(1));
    } finally {
      await Deno.remove(folder, { recursive: true });
    }
  },
});
