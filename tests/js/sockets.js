/** Stands for the browser's WebSocket; the test says what the server does. What servers say is told by subclasses. */
export class FakeSocket {
  static opened = [];

  constructor(url, protocols) {
    this.url = url;
    this.protocols = protocols;
    this.readyState = 0;
    this.sent = [];
    FakeSocket.opened.push(this);
  }

  /** The line ends. */
  ends(code, reason = "") {
    this.readyState = 3;
    this.onclose({ code, reason });
  }

  send(data) {
    this.sent.push(data);
  }

  close() {
    this.readyState = 2;
  }
}

export const last = () => FakeSocket.opened.at(-1);
export const count = () => FakeSocket.opened.length;

/** Close codes after which every client is soon back. */
export const COMES_BACK = [
  [1001, "the server goes away"],
  [1006, "nobody has said anything"],
  [1011, "the server failed"],
  [1012, "the server restarts"],
  [1013, "the server has too much to do"],
  [4003, "the user has other rights now"],
  [4008, "too slow, or silent"],
];

/** Close codes after which no client comes back, with what it tells. */
export const ENDS = [
  [1008, "not allowed"],
  [4001, "signed out"],
];
