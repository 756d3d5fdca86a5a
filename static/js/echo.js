/** The echo page: sends texts over a WebSocket and shows the answers. */

const page = /** @type {HTMLElement} */ (document.querySelector("[data-echo]"));
const line = find("[data-socket]");
const form = /** @type {HTMLFormElement} */ (find("form"));
const message = /** @type {HTMLInputElement} */ (find("[name=message]"));
const list = find("[data-feed]");
const socket = new WebSocket(String(line.dataset.socket));

// The browser may keep the page in its back/forward cache: close the socket before, and reload the page afterwards.
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
  if (socket.readyState !== WebSocket.OPEN) return; // the text stays in its field
  socket.send(message.value);
  form.reset();
};

/** @param {"connecting" | "connected" | "offline"} name */
function showState(name) {
  line.dataset.state = name;
  find("[data-state-text]").textContent = name;
  find("[data-offline]").hidden = name !== "offline";
}

/** @param {string} selector @returns {HTMLElement} */
function find(selector) {
  return /** @type {HTMLElement} */ (page.querySelector(selector));
}

showState("connecting");
find("[data-needs-script]").hidden = false;
