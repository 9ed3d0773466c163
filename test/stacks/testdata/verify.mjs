// Calls each server (folder=host:port) over TLS with the root of its folder alone; names are
// not compared, since a leaf has none but its SPIFFE ID.
import { X509Certificate } from "node:crypto";
import { readFileSync } from "node:fs";
import { basename } from "node:path";
import { connect } from "node:tls";

for (const arg of process.argv.slice(2)) {
  const [folder, address] = arg.split("=");
  const [host, port] = address.split(":");
  for (const name of ["root.pem", "issuing.pem", "leaf.pem"]) {
    new X509Certificate(readFileSync(`${folder}/${name}`)).toLegacyObject();
  }
  const [what, why] = await new Promise((resolve) => {
    const socket = connect({ host, port: Number(port), ca: readFileSync(`${folder}/root.pem`), checkServerIdentity: () => undefined });
    socket.on("secureConnect", () => { resolve([socket.authorized ? "ok" : "refused", ""]); socket.destroy(); });
    socket.on("error", (e) => resolve(["refused", `${e.code} ${e.message}`.replaceAll("\n", " ")]));
  });
  console.log([basename(folder), what, why].join("\t"));
}
