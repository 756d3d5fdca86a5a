/** The page of the echo: sends what is written over a WebSocket, and shows what comes back. */

const page = document.querySelector("[data-echo]");
const line = page.querySelector("[data-socket]");
const form = page.querySelector("form");
const list = page.querySelector("[data-feed]");
const socket = new WebSocket(line.dataset.socket);

// A browser may keep a page that is left, to show it again: not with a line that nobody listens to.
addEventListener("pagehide", () => socket.close());
addEventListener("pageshow", ({ persisted }) => persisted && location.reload());

socket.onopen = () => showState("connected");
socket.onclose = () => showState("offline");

socket.onmessage = ({ data }) => {
  const item = document.createElement("li");
  item.className = "message";
  item.textContent = data;
  list.prepend(item);
};

form.onsubmit = (event) => {
  event.preventDefault();
  if (socket.readyState !== WebSocket.OPEN) return; // what was written stays in its field
  socket.send(form.elements.message.value);
  form.reset();
};

function showState(name) {
  line.dataset.state = name;
  line.querySelector("[data-state-text]").textContent = name;
  page.querySelector("[data-offline]").hidden = name !== "offline";
}

showState("connecting");
page.querySelector("[data-needs-script]").hidden = false;
