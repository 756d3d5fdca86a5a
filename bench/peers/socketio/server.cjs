// Socket.IO: each line on standard input is a message to everybody. Arguments: port, recovery, port of Redis.
//
// Recovery is "none", as by default; "memory", connection state recovery in one process; or "streams", connection state
// recovery over the adapter for Redis streams, in two processes of which either may get a client that comes back.

const cluster = require("node:cluster");
const { createInterface } = require("node:readline");
const { Server } = require("socket.io");

const [port, recovery, redisPort] = process.argv.slice(2);

async function serve() {
    const options = { transports: ["websocket"] };
    if (recovery !== "none") {
        options.connectionStateRecovery = { maxDisconnectionDuration: 2 * 60 * 1000 };
    }
    if (recovery === "streams") {
        const { createClient } = require("redis");
        const { createAdapter } = require("@socket.io/redis-streams-adapter");
        const redis = createClient({ url: `redis://127.0.0.1:${redisPort}` });
        await redis.connect();
        options.adapter = createAdapter(redis);
    }
    const io = new Server(Number(port), options);
    return (line) => io.emit("message", Number(line));
}

function read(publish) {
    createInterface({ input: process.stdin }).on("line", publish).on("close", () => process.exit());
}

if (recovery !== "streams") {
    serve().then(read);
} else if (cluster.isPrimary) {
    // WebSockets alone, without polling, need no sticky sessions.
    const workers = [cluster.fork(), cluster.fork()];
    read((line) => workers[0].send(line));
} else {
    process.on("disconnect", () => process.exit());
    serve().then((publish) => process.on("message", publish));
}
