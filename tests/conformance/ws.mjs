// Node's ws, driven by the lines of JSON on standard input; the answers go to standard output. NodeWs in clients.py.
// Arguments: the package's module, the URL, and whether to offer permessage-deflate.

import { createInterface } from "node:readline";
import { pathToFileURL } from "node:url";

const [module, url, perMessageDeflate] = process.argv.slice(2);
const { WebSocket } = await import(pathToFileURL(module));

const socket = new WebSocket(url, { perMessageDeflate: JSON.parse(perMessageDeflate) });
const opened = new Promise((resolve, reject) => socket.on("open", resolve).on("error", reject));
const arrived = [];
let wake = () => {};

function arrive(event) {
    arrived.push(event);
    wake();
}

socket.on("message", (data, binary) =>
    arrive(binary ? { binary: data.toString("base64") } : { text: data.toString() }));
socket.on("close", (code, reason) => arrive({ code, reason: reason.toString() }));

const orders = {
    opened: () => opened.then(() => ({ extensions: socket.extensions })),
    send: (text) => socket.send(text),
    sendBinary: (base64) => socket.send(Buffer.from(base64, "base64")),
    close: (code, reason) => socket.close(code, reason),
    receive: async () => {
        while (!arrived.length) {
            await new Promise((resolve) => (wake = resolve));
        }
        return arrived.shift();
    },
};

for await (const line of createInterface({ input: process.stdin })) {
    const [order, ...args] = JSON.parse(line);
    console.log(JSON.stringify((await orders[order](...args)) ?? {}));
}
socket.terminate();
