// The app of the end-to-end tests on the server of Node.js, with WebSockets by ws.
import { createHash } from "node:crypto";
import { createServer } from "node:http";
import { WebSocketServer } from "ws";

const asked = [];
const subject = (req) => req.headers["x-auth-subject"] ?? "";

const server = createServer((req, res) => {
  if (req.url === "/asked") {
    res.end(asked.join("\n"));
    return;
  }
  asked.push(`${req.url} ${subject(req)}`);
  if (req.url === "/stream") {
    res.writeHead(200, { "Content-Type": "text/event-stream" });
    res.write(`data: hello ${subject(req)}\n\n`);
    return;
  }
  const sum = createHash("sha256");
  req.on("data", (part) => sum.update(part));
  req.on("end", () => {
    const header = {};
    for (const [name, values] of Object.entries(req.headersDistinct)) {
      header[name.replace(/(^|-)[a-z]/g, (c) => c.toUpperCase())] = values;
    }
    res.setHeader("Content-Type", "application/json");
    res.end(JSON.stringify({ Path: req.url, Header: header, Sum: sum.digest("hex") }));
  });
});
new WebSocketServer({ server, path: "/socket" }).on("connection", (socket, req) => {
  socket.on("error", () => {});
  socket.on("message", (text) => socket.send(String(text)));
  socket.send(`hello ${subject(req)}`);
});
server.listen(Number(process.argv[2]), "127.0.0.1");
