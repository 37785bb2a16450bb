// Node's two HTTP clients against a gateway: node node_client.mjs GATEWAY_URL APP_URL. Prints one JSON object.
import http from "node:http";
import { createHash } from "node:crypto";
import { Readable } from "node:stream";

const [gateway, app] = process.argv.slice(2);
const pieces = Array.from({ length: 200 }, (_, number) => `${number},`.repeat(1000));
const digest = createHash("sha256").update(pieces.join("")).digest("hex");

function ask(agent, path, options = {}, body = []) {
  return new Promise((resolve, reject) => {
    const request = http.request(gateway + path, { agent, ...options }, (answer) => {
      const parts = [];
      answer.on("data", (part) => parts.push(part));
      answer.on("error", reject);
      answer.on("end", () =>
        resolve({ status: answer.statusCode, body: Buffer.concat(parts), port: answer.socket?.localPort ?? port }));
    });
    let port = 0;
    request.on("socket", (socket) => socket.once("connect", () => (port = socket.localPort)));
    request.on("error", reject);
    if (options.headers?.Expect) {
      request.on("continue", () => Readable.from(body).pipe(request));
      request.flushHeaders();
    } else {
      Readable.from(body).pipe(request);
    }
  });
}

async function agent() {
  const kept = new http.Agent({ keepAlive: true, maxSockets: 4 });
  const sockets = new Set();
  const results = [];
  kept.on("free", (socket) => sockets.add(socket.localPort));
  for (let round = 0; round < 5; round++) {
    const answers = await Promise.all(Array.from({ length: 8 }, (_, number) =>
      ask(kept, `/node/${round}/${number}`)));
    results.push(...answers.map((answer) => JSON.parse(answer.body).target));
  }
  const chunked = JSON.parse((await ask(kept, "/up", { method: "PUT" }, pieces)).body);
  const expected = JSON.parse(
    (await ask(kept, "/up", { method: "POST", headers: { Expect: "100-continue" } }, pieces)).body);
  const head = await ask(kept, "/static/text.txt", { method: "HEAD" });
  const missing = await ask(kept, "/static/missing");
  kept.destroy();
  return {
    targets: results, sockets: sockets.size, head: head.status, head_bytes: head.body.length,
    missing: missing.body.toString(), chunked: chunked.sha256 === digest, expected: expected.sha256 === digest,
    framing: chunked.fields["transfer-encoding"],
  };
}

async function fetched() {
  const answers = await Promise.all(Array.from({ length: 40 }, async (_, number) =>
    (await (await fetch(`${gateway}/fetch/${number}?q=${number}`)).json()).target));
  const text = await (await fetch(`${gateway}/static/text.txt`)).text(); // gzip on the way
  const upload = await (await fetch(`${gateway}/up`, {
    method: "POST", duplex: "half",
    body: Readable.toWeb(Readable.from(pieces.map((piece) => Buffer.from(piece)))),
  })).json();
  const range = await fetch(`${gateway}/static/small.txt`, { headers: { Range: "bytes=6-11" } });
  const moved = await fetch(`${gateway}/static/moved`);
  const aborted = new AbortController();
  const events = await fetch(`${gateway}/events/node-abort/2`, { signal: aborted.signal });
  const reader = events.body.getReader();
  await reader.read();
  aborted.abort();
  const after = await reader.read().then(() => "read", (error) => error.name);
  return {
    targets: answers, text: createHash("sha256").update(text).digest("hex"), upload: upload.sha256 === digest,
    range: [range.status, await range.text()], moved: [moved.redirected, await moved.text()], after,
  };
}

async function events(count) {
  const answer = await fetch(`${gateway}/events/node/${count}`);
  const found = [];
  for await (const part of answer.body) {
    const event = Buffer.from(part).toString();
    found.push(event.match(/data: (.*)\n\n$/)[1]);
    await (await fetch(`${app}/confirm/node`, { method: "POST" })).arrayBuffer();
  }
  return found;
}

console.log(JSON.stringify({
  agent: await agent(), fetch: await fetched(), events: await events(30), digest, version: process.version,
}));
