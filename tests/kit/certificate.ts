/**
 * A certificate for a test's relay, made by openssl when the test runs: no private key lies in the tree. Signed by itself.
 */

/** Makes both files in `directory`; returns their paths. */
export async function makeCertificate(
  directory: string,
  name: string,
): Promise<{ certificate: string; privateKey: string }> {
  const stem = `${directory}/${name}-${crypto.randomUUID().slice(0, 8)}`;
  const [certificate, privateKey] = [`${stem}.crt`, `${stem}.key`];
  const words = `req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 3650 -subj /CN=${name} ` +
    `-addext subjectAltName=DNS:${name} -addext basicConstraints=critical,CA:FALSE`;
  const { success, stderr } = await new Deno.Command("openssl", {
    args: [...words.split(" "), "-keyout", privateKey, "-out", certificate],
  }).output();
  if (!success) throw new Error(`openssl: ${new TextDecoder().decode(stderr)}`);
  return { certificate, privateKey };
}
