// Clients of Socket.IO that come back. Arguments: first and last pause before that, in ms, and a port for each client.
//
// Standard output has a line for each event: "CLIENT open TIME"; "CLIENT again TIME", come back with its state not
// recovered; "CLIENT recovered TIME"; "CLIENT NUMBER TIME", a message. Times are in seconds, on the monotonic clock.

const { io } = require("socket.io-client");

const [first, last, ...ports] = process.argv.slice(2).map(Number);
const middle = (first + last) / 2;

ports.forEach((port, client) => {
    const tell = (event) => console.log(`${client} ${event} ${Number(process.hrtime.bigint()) / 1e9}`);
    const socket = io(`http://127.0.0.1:${port}`, {
        transports: ["websocket"],
        forceNew: true,
        reconnectionDelay: middle,
        randomizationFactor: (last - first) / 2 / middle,
    });
    let known = false;
    socket.on("connect", () => {
        tell(!known ? "open" : socket.recovered ? "recovered" : "again");
        known = true;
    });
    socket.on("message", tell);
});

process.stdin.on("close", () => process.exit()).resume();
