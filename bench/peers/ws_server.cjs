// ``ws``, WebSockets for Node. Arguments: port, port of Redis, topic. A socket of a user has their name as its path.

const { WebSocketServer } = require("ws");
const { createClient } = require("redis");

const [port, redisPort, topic] = process.argv.slice(2);
const listeners = new Set();
const users = new Map();

function accept(socket, request) {
    const user = request.url.slice(1);
    if (user) {
        users.set(user, socket);
        socket.on("close", () => users.delete(user));
    } else {
        listeners.add(socket);
        socket.on("close", () => listeners.delete(socket));
    }
    socket.on("error", () => socket.terminate());
}

async function serve() {
    const redis = createClient({ url: `redis://127.0.0.1:${redisPort}` });
    await redis.connect();
    await redis.subscribe(topic, (message) => {
        for (const socket of listeners) {
            socket.send(message);
        }
    });
    await redis.pSubscribe(`${topic}:*`, (message, channel) => {
        users.get(channel.slice(topic.length + 1))?.send(message);
    });
    const options = { port: Number(port), host: "127.0.0.1", perMessageDeflate: false, backlog: 1000 };
    new WebSocketServer(options).on("connection", accept);
}

serve();
