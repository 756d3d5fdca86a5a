// Socket.IO with its adapter for Redis, by which others publish. Arguments: port, port of Redis, topic.
//
// A client that names a user in its query is in a room of that name.

const { Server } = require("socket.io");
const { createAdapter } = require("@socket.io/redis-adapter");
const { createClient } = require("redis");

const [port, redisPort, topic] = process.argv.slice(2);

async function serve() {
    const publisher = createClient({ url: `redis://127.0.0.1:${redisPort}` });
    const subscriber = publisher.duplicate();
    await Promise.all([publisher.connect(), subscriber.connect()]);
    // Its pings, every 25 s by default, would come between the bytes that are compared.
    const options = { transports: ["websocket"], pingInterval: 3_600_000, pingTimeout: 3_600_000 };
    const io = new Server({ ...options, adapter: createAdapter(publisher, subscriber, { key: topic }) });
    await subscriber.ping(); // behind the subscription of the adapter
    io.on("connection", (socket) => {
        if (socket.handshake.query.user) {
            socket.join(socket.handshake.query.user);
        }
    });
    io.listen(Number(port));
}

serve();
