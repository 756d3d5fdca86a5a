// A WebSocket of a page, driven through window.conformance. Chromium in clients.py.

const socket = new WebSocket(arguments[0]);
socket.binaryType = "arraybuffer";
const opened = new Promise((resolve, reject) => {
    socket.onopen = resolve;
    socket.onerror = reject;
});
const arrived = [];
let wake = () => {};

function arrive(event) {
    arrived.push(event);
    wake();
}

function toBase64(buffer) {
    return btoa(Array.from(new Uint8Array(buffer), (byte) => String.fromCharCode(byte)).join(""));
}

socket.onmessage = ({ data }) => arrive(typeof data === "string" ? { text: data } : { binary: toBase64(data) });
socket.onclose = ({ code, reason }) => arrive({ code, reason });

window.conformance = {
    opened: () => opened.then(() => ({ extensions: socket.extensions })),
    send: async (text) => socket.send(text),
    sendBinary: async (base64) => socket.send(Uint8Array.from(atob(base64), (character) => character.charCodeAt(0))),
    close: async (code, reason) => socket.close(code, reason),
    receive: async () => {
        while (!arrived.length) {
            await new Promise((resolve) => (wake = resolve));
        }
        return arrived.shift();
    },
};
