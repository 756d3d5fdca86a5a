/**
 * Server-Sent Events and POST in place of a WebSocket, for networks that block those. `wsloop.js` loads this module
 * when two attempts with a WebSocket have failed, and uses its class as it uses WebSocket.
 *
 * How it works. A source brings frames to this client: a stream, or a WebSocket on trial. The first stream asks for
 * the subscriptions that the client has asked for so far. When the client subscribes to more, or to less, a second
 * stream asks for all that is wanted then, from the positions that were reached. When its subscriptions have begun,
 * both are read for a moment: what the second one brings of subscriptions that were open before is held. Then the
 * older one ends, and what it has not brought is delivered. So nothing is lost, comes twice, or in another order. A
 * WebSocket that opens while a stream works takes over in the same way. Whatever else happens ends all sources, and
 * the client connects anew.
 *
 * It must not import another module: storages that put a hash of the content into the names of files cannot resolve
 * two modules that import each other.
 */

/**
 * @typedef {object} Entry a subscription
 * @property {any} [frame] the client's, which asks for it; that of the only subscription of a URL has none
 * @property {boolean} isOpen whether the server has sent its welcome
 * @property {string} token of the welcome, or that to start with
 * @property {Map<string, string>} positions since then, by channel
 *
 * @typedef {object} Source
 * @property {Map<string | undefined, Entry>} entries what it has asked for, by facility
 * @property {Set<Entry>} waiting those that the server has not answered
 * @property {Set<Entry>} resumed those that were open before
 * @property {{text: string, at: number}[]} held frames that wait for the end of the older source
 * @property {boolean} isReady whether all were answered
 * @property {WebSocket} [socket] without it, it is a stream
 * @property {any} goodbye the server's, or undefined
 * @property {() => void} close
 * @property {ReturnType<typeof setTimeout>} [timer] until it has failed
 *
 * @typedef {{code: number, reason?: string, goodbye?: any}} Close
 *
 * @typedef {object} Settings
 * @property {boolean} isSingle whether the URL has the facility of the only subscription
 * @property {typeof WebSocket} [WebSocket]
 * @property {() => number} [random]
 */

const OPEN = 1; // as WebSocket.OPEN
const CLOSED = 3;
const ABNORMAL = 1006; // close codes
const REFUSED = 4030;
// Milliseconds for which two sources are read, and within which the second one brings what the older one has brought.
const OVERLAP = 1_000;
const PATIENCE = 12_000; // milliseconds without a frame after which a second source has failed, until it is ready
const TRIAL = 300_000; // milliseconds within which a WebSocket is tried again
const POST_TIMEOUT = 10_000; // milliseconds, as the client's; so that those behind it are not late as well
const CALL_TIMEOUT = 60_000;
const MOST_TOGETHER = 30; // frames in one list on a WebSocket
const EVENTS = "text/event-stream";
const JSON_TYPE = "application/json";
/** @type {Record<number, string>} codes of errors, by HTTP status */
const ERRORS = { 400: "frame", 403: "refused", 413: "frame", 429: "unavailable", 500: "internal", 503: "unavailable" };

/** Has the interface of WebSocket, as far as the client uses that. */
export class EventStream {
  binaryType = "";
  /** @type {(() => void) | null} */
  onopen = null;
  /** @type {((event: {data: any}) => void) | null} */
  onmessage = null;
  /** @type {((event: {code: number, reason: string}) => void) | null} */
  onclose = null;
  /** @type {(() => void) | null} */
  onerror = null;

  #url;
  #protocols;
  #settings;
  #random;
  #back;
  #state = 0;
  /** @type {WebSocket | undefined} that has taken over */
  #socket;
  /** @type {Map<string | undefined, Entry>} what the client has asked for */
  #entries = new Map();
  /** @type {Source[]} the older one first */
  #sources = [];
  #isWelcome = false; // the client has had its first welcome
  /**
   * What an older source has brought beside a second one, which brings it as well.
   *
   * @type {Map<string, {source: Source, at: number}[]>} by the text of the frame
   */
  #early = new Map();
  /** @type {ReturnType<typeof setTimeout> | undefined} until the older source ends */
  #overlap;
  /** @type {ReturnType<typeof setTimeout> | undefined} until the next trial of a WebSocket */
  #trial;
  #posting = Promise.resolve();
  #posts = 0; // that were not answered yet
  #ending = new AbortController();

  /**
   * @param {string} url as of the WebSocket
   * @param {string[]} protocols likewise
   * @param {Settings} settings
   * @param {() => void} back called when a WebSocket has taken over
   */
  constructor(url, protocols, settings, back) {
    this.#url = url;
    this.#protocols = protocols;
    this.#settings = settings;
    this.#random = settings.random ?? Math.random;
    this.#back = back;
    if (settings.isSingle) {
      const token = new URL(url).searchParams.get("resume") ?? "";
      this.#entries.set(undefined, { isOpen: false, token, positions: new Map() });
    }
    // Not at once: the client sets its callbacks first.
    Promise.resolve().then(() => {
      if (this.#state === CLOSED) return;
      if (!settings.isSingle) this.#open(); // so that the client sends what it subscribes to
      this.#addStream();
    });
    globalThis.addEventListener?.("online", () => this.#try(), { signal: this.#ending.signal });
  }

  get readyState() {
    return this.#socket?.readyState ?? this.#state;
  }

  /** @param {string} data */
  send(data) {
    if (this.#socket) {
      this.#socket.send(data);
      return;
    }
    for (const frame of [JSON.parse(data)].flat()) {
      const { type, id, facility } = frame;
      if (type === "subscribe") {
        this.#entries.set(facility, { frame, isOpen: false, token: frame.resume ?? "", positions: new Map() });
        this.#renew();
      } else if (type === "unsubscribe") {
        this.#entries.delete(facility);
        Promise.resolve().then(() => this.#pass({ type: "unsubscribed", facility, id }));
        this.#renew();
      } else {
        this.#posts += 1;
        this.#posting = this.#posting
          .then(() => this.#post(frame))
          .then((answer) => {
            this.#posts -= 1;
            this.#pass(answer);
          });
      }
    }
  }

  close() {
    this.#state = CLOSED;
    this.#ending.abort();
    clearTimeout(this.#overlap);
    clearTimeout(this.#trial);
    for (const source of this.#sources.splice(0)) release(source);
  }

  #open() {
    this.#state = OPEN;
    this.onopen?.();
  }

  /** @param {any} frame */
  #pass(frame) {
    if (this.#state === CLOSED) return;
    try {
      this.onmessage?.({ data: JSON.stringify(frame) });
    } catch (error) {
      // As with a WebSocket: an error of the page is reported, and ends nothing.
      setTimeout(() => {
        throw error;
      }, 0);
    }
  }

  // Sources.

  /** @returns {Source} */
  #add(close = () => {}) {
    const entries = new Map(this.#entries);
    const all = [...entries.values()];
    /** @type {Source} */
    const source = {
      entries,
      waiting: new Set(all),
      resumed: new Set(all.filter(({ isOpen }) => isOpen)),
      held: [],
      isReady: false,
      goodbye: undefined,
      close,
    };
    this.#sources.push(source);
    if (this.#sources.length > 1) this.#expect(source);
    const now = performance.now();
    for (const [text, early] of this.#early) if (!early.some(({ at }) => now - at < OVERLAP)) this.#early.delete(text);
    return source;
  }

  /** @param {Source} source */
  #expect(source) {
    clearTimeout(source.timer);
    source.timer = setTimeout(() => this.#lost(source, { code: ABNORMAL }), PATIENCE);
  }

  #addStream() {
    const controller = new AbortController();
    const source = this.#add(() => controller.abort());
    const frames = requests(source.entries);
    // Without a subscription there is nothing to post.
    const isPosted = frames.length > 0;
    const url = this.#address(isPosted ? "" : "protocol=wsloop.v1");
    /** @type {RequestInit} */
    const init = {
      headers: { Accept: EVENTS, ...this.#authorization },
      cache: "no-store",
      credentials: "include",
      signal: controller.signal,
    };
    if (isPosted) {
      Object.assign(init, { method: "POST", body: JSON.stringify(frames) });
      Object.assign(/** @type {object} */ (init.headers), { "Content-Type": JSON_TYPE });
    }
    this.#read(source, url, init).then(
      (close) => this.#lost(source, close),
      () => this.#lost(source, { code: ABNORMAL }),
    );
  }

  /**
   * Reads a stream to its end.
   *
   * @param {Source} source
   * @param {URL} url
   * @param {RequestInit} init
   * @returns {Promise<Close>}
   */
  async #read(source, url, init) {
    const response = await fetch(url, init);
    if (!response.ok || !response.headers.get("Content-Type")?.startsWith(EVENTS)) return this.#refusal(response);
    if (this.#settings.isSingle && this.#state !== CLOSED && this.#sources[0] === source) this.#open();
    const reader = /** @type {ReadableStream<Uint8Array>} */ (response.body).getReader();
    const decoder = new TextDecoder();
    let rest = "";
    for (;;) {
      const { done, value } = await reader.read();
      if (done) break;
      const lines = (rest + decoder.decode(value, { stream: true })).split("\n");
      rest = /** @type {string} */ (lines.pop());
      // A frame is one line, and each event has one; lines that are empty, or no data, say nothing.
      for (const line of lines) if (line.startsWith("data: ")) this.#receive(source, line.slice(6));
    }
    const { goodbye } = source;
    return { code: goodbye?.code ?? ABNORMAL, goodbye };
  }

  /** @param {Response} response @returns {Promise<Close>} */
  async #refusal(response) {
    const { status, headers, body } = response;
    // A page of HTML is from a proxy.
    const isOurs = headers.get("Content-Type")?.startsWith("text/plain");
    if (!isOurs) body?.cancel();
    const reason = isOurs ? (await response.text()).trim() : `refused with status ${status}`;
    // The server may accept another token.
    if (isOurs && status === 403 && !this.#authorization) return { code: REFUSED, reason };
    if (status !== 429 && status !== 503) return { code: ABNORMAL };
    // Random, so that clients that were refused together do not come back together.
    const after = Number(headers.get("Retry-After")) * 1000 * (1 + this.#random()) || undefined;
    const code = status === 429 ? 4029 : 1013;
    return { code, goodbye: { type: "goodbye", code, reason, after } };
  }

  /** @param {Source} source @param {string} text */
  #receive(source, text) {
    if (!this.#sources.includes(source)) return;
    const frame = JSON.parse(text);
    const { type, id, facility } = frame;
    if (source.timer !== undefined && !source.isReady) this.#expect(source);
    if (type === "goodbye") {
      source.goodbye = frame; // passed on if this is the end of all
      return;
    }
    const { isSingle } = this.#settings;
    const key = isSingle ? undefined : facility;
    const entry = source.entries.get(key);
    if (entry && source.waiting.has(entry) && (isSingle ? type === "welcome" : id === entry.frame.id)) {
      this.#answered(source, key, entry, frame);
      return;
    }
    if (type === "welcome") {
      if (!this.#isWelcome) this.#pass(frame); // of the page
      this.#isWelcome = true;
      this.#check(source);
      return;
    }
    const isResumed = entry && source.resumed.has(entry);
    if (frame.kept && isResumed) return; // the client has had it
    const at = performance.now();
    if (source !== this.#sources[0] && (isResumed || !entry)) source.held.push({ text, at });
    else this.#deliver(source, frame, text, at);
  }

  /** The server has ended, or refused, a subscription. @param {Source} source @param {string | undefined} key */
  #forget(source, key) {
    this.#entries.delete(key);
    source.entries.delete(key);
  }

  /**
   * @param {Source} source
   * @param {any} frame
   * @param {string} text of the frame
   * @param {number} at when it arrived
   */
  #deliver(source, frame, text, at) {
    const { type, facility, position } = frame;
    const key = this.#settings.isSingle ? undefined : facility;
    const entry = source.entries.get(key);
    if (entry !== this.#entries.get(key)) return; // of a subscription that has ended
    if (type !== "ping" && this.#isRepeated(source, text, at)) return;
    if (entry && position !== undefined) entry.positions.set(position.slice(0, position.indexOf(".")), position);
    if (type === "unsubscribed") this.#forget(source, key); // by the server: the client asks again
    this.#pass(frame);
  }

  /**
   * Compares texts, because messages of facilities without a history have nothing else to know them by. Each source
   * brings each of them, so that two equal messages are two.
   *
   * @param {Source} source
   * @param {string} text
   * @param {number} at when it arrived
   * @returns {boolean} whether an older source, which has ended since, has brought it
   */
  #isRepeated(source, text, at) {
    if (source !== this.#sources[0]) return false; // a new subscription, which the older source does not have
    const early = (this.#early.get(text) ?? []).filter((each) => at - each.at < OVERLAP);
    const index = early.findIndex((each) => each.source !== source);
    if (index >= 0) early.splice(index, 1);
    if (this.#sources.length > 1) early.push({ source, at });
    this.#early.set(text, early);
    if (early.length === 0) this.#early.delete(text);
    return index >= 0;
  }

  /** @param {Source} source @param {string | undefined} key @param {Entry} entry @param {any} frame */
  #answered(source, key, entry, frame) {
    const isCurrent = this.#entries.get(key) === entry;
    source.waiting.delete(entry);
    if (source.resumed.has(entry)) {
      // The client knows its subscription; if that could not go on, it must ask for all anew.
      if (isCurrent && (frame.type !== "welcome" || frame.recovered === false)) {
        this.#end({ code: ABNORMAL });
        return;
      }
    } else if (isCurrent) {
      if (frame.type === "welcome") Object.assign(entry, { isOpen: true, token: frame.token ?? "" });
      else this.#forget(source, key);
      this.#pass(frame);
    }
    this.#check(source);
  }

  /** @param {Source} source */
  #check(source) {
    if (source.waiting.size > 0 || source.isReady || !this.#sources.includes(source)) return;
    source.isReady = true;
    clearTimeout(source.timer);
    if (source === this.#sources[0]) this.#settle(source);
    else this.#overlap = setTimeout(() => this.#replace(source), OVERLAP);
  }

  /** @param {Source} source the second one; it is the only one from now on */
  #replace(source) {
    if (source.socket && this.#posts > 0) {
      // What is sent over the socket must not come before what was posted.
      this.#overlap = setTimeout(() => this.#replace(source), OVERLAP);
      return;
    }
    clearTimeout(this.#overlap);
    for (const each of this.#sources) if (each !== source) release(each);
    this.#sources = [source];
    for (const { text, at } of source.held.splice(0)) this.#deliver(source, JSON.parse(text), text, at);
    if (this.#state !== CLOSED) this.#settle(source);
  }

  /** @param {Source} source the only one, and it is ready */
  #settle(source) {
    const { socket, entries } = source;
    if (!socket) {
      this.#schedule();
      if (isStale(entries, this.#entries)) this.#renew();
      return;
    }
    this.#socket = socket;
    clearTimeout(this.#trial);
    const ended = [...entries].filter(([key, entry]) => this.#entries.get(key) !== entry);
    for (const [facility] of ended) socket.send(JSON.stringify({ type: "unsubscribe", facility }));
    const begun = [...this.#entries].filter(([key, entry]) => entries.get(key) !== entry);
    sendTogether(socket, requests(new Map(begun)));
    this.#back();
  }

  /** A source has ended. @param {Source} source @param {Close} close */
  #lost(source, close) {
    if (!this.#sources.includes(source)) return;
    const other = this.#sources.find((each) => each !== source);
    if (other?.isReady && source.socket) {
      release(source);
      clearTimeout(this.#overlap);
      this.#sources = [other];
      this.#settle(other);
    } else if (other?.isReady && other !== this.#sources[0]) {
      this.#replace(other);
    } else {
      this.#end(close);
    }
  }

  /** @param {Close} close */
  #end({ code, reason = "", goodbye }) {
    if (goodbye) this.#pass(goodbye);
    this.close();
    this.onclose?.({ code, reason });
  }

  /** Asks for what the client wants now, when it has said all of it. */
  #renew() {
    setTimeout(() => {
      const [source] = this.#sources;
      // Otherwise it is asked for when the sources have settled.
      if (this.#sources.length === 1 && source.isReady && !this.#socket && isStale(source.entries, this.#entries)) {
        this.#addStream();
      }
    }, 0);
  }

  // Back to a WebSocket.

  #schedule() {
    this.#trial ??= setTimeout(() => this.#try(), TRIAL * this.#random());
  }

  #try() {
    clearTimeout(this.#trial);
    this.#trial = undefined;
    const { WebSocket: Socket = globalThis.WebSocket, isSingle } = this.#settings;
    if (this.#sources.length !== 1 || !this.#sources[0].isReady || this.#socket) return;
    /** @type {WebSocket} */
    let socket;
    try {
      const url = isSingle ? this.#address("") : new URL(this.#url);
      socket = new Socket(url.href.replace(/^http/, "ws"), this.#protocols);
    } catch {
      this.#schedule();
      return;
    }
    const source = this.#add(() => {
      socket.onopen = socket.onmessage = socket.onclose = null;
      socket.close();
    });
    source.socket = socket;
    socket.onerror = () => {};
    socket.onopen = () => sendTogether(socket, requests(source.entries));
    socket.onmessage = ({ data }) => {
      if (this.#socket) this.onmessage?.({ data });
      else this.#receive(source, data);
    };
    socket.onclose = ({ code, reason }) => {
      if (this.#socket) this.#end({ code, reason });
      else this.#lost(source, { code });
    };
  }

  // Requests.

  /** The token that a WebSocket sends as a subprotocol: not in the URL, which others log. */
  get #authorization() {
    const token = this.#protocols.find((name) => name.startsWith("wsloop.token."));
    return token && { Authorization: `Bearer ${token}` };
  }

  /**
   * @param {string} parameter
   * @returns {URL} of a stream, or of the WebSocket of one subscription: with its positions
   */
  #address(parameter) {
    const url = new URL(this.#url.replace(/^ws/, "http"));
    const single = this.#entries.get(undefined);
    const resume = single && resumeOf(single);
    url.search = url.search.replace(/[?&]resume=[^&]*/, "");
    const parameters = [url.search.slice(1), resume && `resume=${encodeURIComponent(resume)}`, parameter];
    url.search = parameters.filter(Boolean).join("&");
    return url;
  }

  /** @param {any} frame @returns {Promise<any>} the frame that answers it */
  async #post(frame) {
    const { type, id } = frame;
    if (this.#state === CLOSED) return {};
    const controller = new AbortController();
    const abort = () => controller.abort();
    const timer = setTimeout(abort, type === "call" ? CALL_TIMEOUT : POST_TIMEOUT);
    this.#ending.signal.addEventListener("abort", abort);
    try {
      const response = await fetch(this.#target(frame), {
        method: "POST",
        headers: { Accept: JSON_TYPE, "Content-Type": JSON_TYPE, ...this.#authorization },
        body: JSON.stringify(frame),
        cache: "no-store",
        credentials: "include",
        signal: controller.signal,
      });
      const { status, headers } = response;
      if (headers.get("Content-Type")?.startsWith(JSON_TYPE)) return { ...(await response.json()), id };
      const code = ERRORS[status] ?? "unknown";
      return { type: "error", code, reason: code === "unknown" ? `status ${status}` : await response.text(), id };
    } catch (error) {
      if (error instanceof RangeError) return { type: "error", code: "frame", reason: error.message, id };
      return { type: "error", code: "unknown", reason: "No answer arrived: it may have been done, or not.", id };
    } finally {
      clearTimeout(timer);
      this.#ending.signal.removeEventListener("abort", abort);
    }
  }

  /** @param {any} frame @returns {URL} that the frame is posted to */
  #target({ type, facility }) {
    const url = new URL(this.#url.replace(/^ws/, "http"));
    const parameters = [url.search.slice(1).replace(/(^|&)resume=[^&]*/, "")];
    if (!this.#settings.isSingle && type !== "call") {
      const { frame } = this.#entries.get(facility) ?? {};
      const path = `${url.pathname}${facility.split("/").map(encodeURIComponent).join("/")}`;
      url.pathname = path;
      if (url.pathname !== path) throw new RangeError("The name of this facility cannot be a part of a URL.");
      const [verb, audiences] = type === "publish" ? ["publish", frame?.publish] : ["subscribe", frame?.audiences];
      for (const audience of audiences ?? []) parameters.push(`${verb}-${audience}`);
    }
    url.search = parameters.filter(Boolean).join("&");
    return url;
  }
}

/** @param {Source} source */
function release(source) {
  clearTimeout(source.timer);
  source.close();
}

/** @param {Entry} entry @returns {string} the value of `resume`; empty without a token */
function resumeOf({ token, positions }) {
  return token && [token, ...positions.values()].join("~");
}

/** @param {Map<string | undefined, Entry>} entries @returns {any[]} the frames that ask for them */
function requests(entries) {
  return [...entries.values()]
    .filter(({ frame }) => frame)
    .map((entry) => ({ ...entry.frame, resume: resumeOf(entry) || undefined }));
}

/** @param {WebSocket} socket @param {any[]} frames */
function sendTogether(socket, frames) {
  while (frames.length) socket.send(JSON.stringify(frames.splice(0, MOST_TOGETHER)));
}

/** @param {Map<any, Entry>} asked @param {Map<any, Entry>} wanted @returns {boolean} whether they differ */
function isStale(asked, wanted) {
  return asked.size !== wanted.size || [...wanted].some(([key, entry]) => asked.get(key) !== entry);
}
