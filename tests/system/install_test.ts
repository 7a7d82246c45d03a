/**
 * Every way to install, each from an empty root or home, to a relay that serves a device: npx with Node alone, the Debian package
 * in a fresh Debian, the single file by install.sh, the image by compose. Invariant: nothing is left behind, the machine's own
 * network is not changed, and a package that was tampered with is not installed. The packages are those of `deno task package`.
 */
import { assert, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import project from "../../deno.json" with { type: "json" };
import { requires } from "../kit/requires.ts";

const ROOT = new URL("../..", import.meta.url).pathname;
const { version } = project;
const DEBIAN = Deno.build.arch === "x86_64" ? "amd64" : "arm64";
const NODE = Deno.build.arch === "x86_64" ? "x64" : "arm64";
/** Of a user that owns nothing. */
const NOBODY = "65534";

const needs = requires({
  root: true,
  programs: [
    "curl",
    "dpkg-deb",
    "ip",
    "mmdebstrap",
    "npm",
    "podman",
    "podman-compose",
    "runc",
    "setpriv",
    "unshare",
  ],
});

let folder = "";

/** Runs a script that stops at its first failure; returns all that it said. Throws with that when it fails. */
async function sh(script: string, env: Record<string, string> = {}): Promise<string> {
  const { code, stdout, stderr } = await new Deno.Command("bash", {
    args: ["-euo", "pipefail", "-c", script],
    cwd: folder,
    env: {
      FOLDER: folder,
      ROOT,
      DENO: Deno.execPath(),
      PATH: `${Deno.env.get("PATH")}:/usr/sbin:/sbin`,
      ...env,
    },
    stdin: "null",
    stdout: "piped",
    stderr: "piped",
  }).output();
  const text = new TextDecoder();
  const said = text.decode(stdout) + text.decode(stderr);
  if (code !== 0) throw new Error(`exit code ${code}:\n${said}`);
  return said;
}

/**
 * A script's lines that start a relay by $OX, add two devices, and let one of them measure its tunnel through the relay.
 * What is said goes to stdout.
 */
const SERVE_A_DEVICE = `
  set -m # a process group of its own, to which Ctrl-C in a terminal goes
  $OX serve > log 2>&1 & relay=$!
  trap 'kill -KILL -- -$relay' EXIT
  for i in $(seq 150); do grep -q 'listening on' log && break; sleep 0.2; done
  grep -q 'listening on' log || { cat log; exit 1; }
  $OX peer add phone --endpoint 127.0.0.1:4433 --no-qr
  echo "a phone could connect after $SECONDS s"
  $OX peer add --oxtunnel laptop --endpoint 127.0.0.1:4433 --no-qr > laptop.conf
  $OX status --once
  $OX speedtest --seconds 1 < laptop.conf
  kill -INT -- -$relay
  for i in $(seq 150); do grep -q 'serve: stopped' log && break; sleep 0.2; done
  wait $relay || true
  trap - EXIT
  cat log
`;

/** Judges what SERVE_A_DEVICE said. */
function assertServed(said: string, exit: string): void {
  for (const [line] of said.matchAll(/^.* after \d+ s$/gm)) console.log(line);
  assertStringIncludes(said, "The running relay serves it.");
  assertMatch(said, /○ phone /);
  assertMatch(said, /round trip p50 /);
  assertMatch(said, new RegExp(`exit +${exit}`));
  assertMatch(said, /oxrelay\.serve: stopped/);
  // What a person is told to type is the installed command.
  assert(!said.includes("deno task"), said);
}

async function makePackages(): Promise<void> {
  await sh(`cd "$ROOT" && "$DENO" task -q package --fast --machine ${DEBIAN} --out $FOLDER/dist`);
  assertEquals((await sh("cd dist && sha256sum --check SHA256SUMS")).match(/: OK$/gm)?.length, 3);
}

/** A Debian with no more in it than what the packages and Node need, from the mirror that this machine itself uses. */
async function makeDebian(): Promise<void> {
  await sh(`
    sources=/etc/apt/sources.list.d/debian.sources
    [ -e $sources ] || sources=/etc/apt/sources.list
    mmdebstrap --quiet --variant=apt --include=adduser,iproute2,libatomic1,libstdc++6,nftables \
      "$(. /etc/os-release && echo $VERSION_CODENAME)" root.tar $sources
    mkdir root && tar -xf root.tar -C root`);
}

/** With Node in PATH and no Deno, as a user with an empty home. */
async function byNpx(): Promise<void> {
  const said = await sh(`
    mkdir home && cp dist/oxrelay-${version}.tgz home && chown -R ${NOBODY}:${NOBODY} home && cd home
    cat > try.sh <<'EOF'
      ! command -v deno
      OX="npx --offline -y ./oxrelay-${version}.tgz"
      ${SERVE_A_DEVICE}
      # npx alone is told to end, as a service manager does, and the shell between dies of that without a word.
      $OX serve > again 2>&1 & npx=$!
      for i in $(seq 150); do grep -q 'listening on' again && break; sleep 0.2; done
      kill -TERM $npx
      wait $npx || echo "npx ended with $?"
      for i in $(seq 150); do grep -q 'serve: stopped' again && break; sleep 0.2; done
      sed 's/^/again: /' again
EOF
    as="setpriv --reuid ${NOBODY} --regid ${NOBODY} --clear-groups env -i HOME=$PWD PATH=/usr/bin:/bin:/usr/sbin"
    certificates="NODE_EXTRA_CA_CERTS=/etc/ssl/certs/ca-certificates.crt npm_config_cafile=/etc/ssl/certs/ca-certificates.crt"
    begun=$SECONDS
    $as $certificates npx -y ./oxrelay-${version}.tgz --version
    echo "npx had all of it after $((SECONDS - begun)) s"
    # All that it needs has come: from here on without a network.
    unshare -n -m -p -f --kill-child bash -euc "mount -t proc proc /proc; ip link set lo up; $as bash -eu try.sh"
    stat -c '%a %U %n' .local/state/oxrelay .local/state/oxrelay/private.key`);
  assertMatch(said, new RegExp(`^${version.replaceAll(".", "\\.")}$`, "m"));
  assertServed(said, "userspace");
  assertMatch(said, /^npx ended with 143$/m, "as of one that SIGTERM has ended");
  assertMatch(said, /^again: .*oxrelay\.serve: stopped/m);
  assertMatch(said, /^700 nobody \.local\/state\/oxrelay$/m);
  assertMatch(said, /^600 nobody \.local\/state\/oxrelay\/private\.key$/m);
}

/** In a fresh Debian: dpkg, a relay with CAP_NET_ADMIN alone, as the unit gives it, and nothing left after a purge. */
async function byDebianPackage(): Promise<void> {
  const said = await sh(`
    mkdir root/dist && cp dist/install.sh dist/*.deb root/dist
    cat > root/try.sh <<'EOF'
      export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LC_ALL=C.UTF-8
      cd /
      sh /dist/install.sh
      stat -c '%a %U:%G %n' /var/lib/oxrelay /etc/oxrelay/oxrelay.toml
      zcat /usr/share/man/man1/oxrelay.1.gz | grep -c '^.TP' > /dev/null
      bash -c '. /usr/share/bash-completion/completions/oxrelay
        COMP_WORDS=(oxrelay pe) COMP_CWORD=1; _oxrelay; echo "completed \${COMPREPLY[*]}"
        COMP_WORDS=(oxrelay peer ad) COMP_CWORD=2; _oxrelay; echo "completed \${COMPREPLY[*]}"
        COMP_WORDS=(oxrelay peer set x --exp) COMP_CWORD=4; _oxrelay; echo "completed \${COMPREPLY[*]}"'
      cd /tmp
      as="setpriv --reuid oxrelay --regid oxrelay --init-groups --inh-caps=-all,+net_admin --ambient-caps=-all,+net_admin"
      as="$as --bounding-set=-all,+net_admin env OXRELAY_STATE_DIR=/var/lib/oxrelay"
      OX=ox
      ox() { if [ "$1" = serve ]; then exec $as oxrelay serve; else oxrelay "$@"; fi; }
      ${SERVE_A_DEVICE}
      stat -c '%a %U %n' /var/lib/oxrelay/peers.json
      dpkg --purge oxrelay
      ls -d /usr/lib/oxrelay /var/lib/oxrelay /etc/oxrelay 2>&1 | grep -v 'No such file' && exit 1
      ! getent passwd oxrelay
EOF
    mkdir -p root/dev/net
    unshare -n -m -p -f --kill-child bash -euc '
      ip link set lo up
      rm -f root/dev/null root/dev/urandom
      mknod -m 666 root/dev/null c 1 3; mknod -m 666 root/dev/urandom c 1 9; mknod -m 666 root/dev/net/tun c 10 200
      mount -t proc proc root/proc
      chroot root bash -eu /try.sh'`);
  assertStringIncludes(
    said,
    `Installed Oxrelay ${version} (oxrelay_${version}_${DEBIAN}.deb). Start the relay: oxrelay serve`,
  );
  assertMatch(said, /^700 oxrelay:oxrelay \/var\/lib\/oxrelay$/m);
  assertMatch(said, /^640 root:oxrelay \/etc\/oxrelay\/oxrelay\.toml$/m);
  assertMatch(said, /^completed peer$/m);
  assertMatch(said, /^completed add$/m);
  assertMatch(said, /^completed --expires$/m);
  assertServed(said, "tun device");
  assertMatch(said, /^600 oxrelay \/var\/lib\/oxrelay\/peers\.json$/m);
}

/** By install.sh from a web server, as a user; then a file that is not the one that install.sh was made with. */
async function bySingleFile(): Promise<void> {
  const name = `oxrelay-linux-${NODE}`;
  let tampered = 0;
  const server = Deno.serve({ hostname: "127.0.0.1", port: 0, onListen() {} }, async (request) => {
    if (new URL(request.url).pathname !== `/${name}`) return new Response("", { status: 404 });
    const file = await Deno.readFile(`${folder}/dist/${name}`);
    file[file.length - 1] ^= tampered;
    return new Response(file);
  });
  const install = `
    as="setpriv --reuid ${NOBODY} --regid ${NOBODY} --clear-groups env -i HOME=$PWD/single PATH=/usr/bin:/bin"
    from=http://127.0.0.1:${server.addr.port}
    $as OXRELAY_FROM=$from sh dist/install.sh`;
  try {
    const said = await sh(`
      mkdir single && chown ${NOBODY} single ${install}
      ox=single/.local/bin/oxrelay
      $as $ox keygen | wc -c
      first=$(stat -c %Z single/.cache/oxrelay/*)
      $as $ox --version
      [ "$first" = "$(stat -c %Z single/.cache/oxrelay/*)" ] && echo 'unpacked once'
      $as OXRELAY_CACHE_DIR=/usr/share $ox --version || echo refused`);
    assertStringIncludes(said, `Installed Oxrelay ${version} (${name})`);
    assertMatch(said, /^45$/m);
    assertMatch(said, /^unpacked once$/m);
    assertMatch(said, /\/usr\/share belongs to somebody else.*|refused/);
    tampered = 1;
    const refused = await sh(`${install} && exit 1; single/.local/bin/oxrelay --version`);
    assertMatch(refused, /is damaged or not from this release; nothing was installed/);
    assertStringIncludes(refused, version);
  } finally {
    await server.shutdown();
  }
}

/**
 * The Dockerfile, built by podman over bases made here (no hub can be reached in tests), then compose.yml's service in a network
 * namespace. Storage, configuration and network of the containers are the test's own.
 */
async function byCompose(): Promise<void> {
  const said = await sh(
    `
    mkdir base && cp /etc/ssl/certs/ca-certificates.crt "$(command -v node)" base && cp -r "$(npm root -g)/npm" base/npm
    cat > base/Dockerfile <<'EOF'
FROM localhost/debian
COPY node /usr/bin/node
COPY npm /usr/lib/node_modules/npm
COPY ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
ENV NODE_EXTRA_CA_CERTS=/etc/ssl/certs/ca-certificates.crt SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt
RUN ln -s ../lib/node_modules/npm/bin/npm-cli.js /usr/bin/npm
EOF
    # This machine's own limits are as high as a container's default, or lower.
    printf '[containers]\ndefault_ulimits = ["nofile=4096:4096", "nproc=4096:4096"]\n[engine]\nruntime = "runc"\n' > containers.conf
    printf '[storage]\ndriver = "overlay"\ngraphroot = "%s/storage"\nrunroot = "%s/run"\n' $FOLDER $FOLDER > storage.conf
    podman import -q root.tar localhost/debian
    podman build -q --network host -t localhost/node base
    podman build -q --network host -t localhost/oxrelay \
      --build-arg NODE_IMAGE=localhost/node --build-arg DEBIAN_IMAGE=localhost/debian $ROOT
    cat > compose.sh <<'EOF'
      ip link set lo up
      cp $ROOT/compose.yml .
      compose="podman-compose -p oxrelay-test -f compose.yml"
      $compose up -d --no-build
      trap "$compose down -v > /dev/null" EXIT
      for i in $(seq 100); do podman logs oxrelay-test_oxrelay_1 2>&1 | grep -q 'listening on' && break; sleep 0.2; done
      inside="podman exec oxrelay-test_oxrelay_1 oxrelay"
      $inside peer add phone --endpoint 127.0.0.1:4433 --no-qr
      echo "a phone could connect after $SECONDS s"
      $inside peer add --oxtunnel laptop --endpoint 127.0.0.1:4433 --no-qr > laptop.conf
      $inside status --once
      podman exec -i oxrelay-test_oxrelay_1 oxrelay speedtest --seconds 1 < laptop.conf
      podman stop oxrelay-test_oxrelay_1
      podman logs oxrelay-test_oxrelay_1
EOF
    unshare -n bash -eu compose.sh`,
    {
      CONTAINERS_CONF: `${folder}/containers.conf`,
      CONTAINERS_STORAGE_CONF: `${folder}/storage.conf`,
    },
  );
  assertServed(said, "tun device");
}

Deno.test({
  name:
    "install: npx, the Debian package, the single file and compose, each from nothing to a device that is served",
  ...needs,
  sanitizeResources: false,
  sanitizeOps: false,
  sanitizeExit: false,
  async fn(test) {
    folder = await Deno.makeTempDir({ prefix: "oxrelay-install-" });
    // In memory: gigabytes are written, of which nothing is kept.
    await sh('mount -t tmpfs -o mode=755,size=4g none "$FOLDER"');
    try {
      const packages = makePackages();
      const debian = Promise.all([packages, makeDebian()]);
      // Side by side: both mostly wait, for downloads and for relays that start.
      const ways = [
        packages.then(async () => {
          await test.step("npx with Node alone", byNpx);
          await test.step("the single file, by install.sh", bySingleFile);
        }),
        debian.then(async () => {
          await test.step("the Debian package in a fresh Debian", byDebianPackage);
          await test.step("the image, by compose", byCompose);
        }),
      ];
      await Promise.allSettled(ways);
      await Promise.all(ways);
    } finally {
      const own = folder;
      folder = "/";
      await sh(`umount -l "${own}"`);
      await Deno.remove(own);
    }
  },
});
