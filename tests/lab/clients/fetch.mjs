// Fetch one URL: prints the status and the body, or the error and exits 1.
//
//     node fetch.mjs 4|6 URL
import http from "node:http";
import https from "node:https";

const [family, url] = process.argv.slice(2);
const get = url.startsWith("https:") ? https.get : http.get;
const request = get(url, { family: Number(family), timeout: 15000 }, (response) => {
  console.log(response.statusCode);
  response.pipe(process.stdout);
});
request.on("timeout", () => request.destroy(new Error("timeout")));
request.on("error", (error) => {
  console.error(`${error.code ?? ""} ${error.message}`);
  process.exitCode = 1;
});
