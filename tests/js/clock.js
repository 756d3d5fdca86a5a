/**
 * Time that passes when the test says so; microtasks run at once, unless a test keeps them. (Node's own mock timers
 * changed their signature between versions.)
 */
export class Clock {
  now = 0;
  /** @type {Map<symbol, {call: () => void, due: number}>} */
  timers = new Map();
  /** @type {(() => void)[] | null} those that wait */
  microtasks = null;
  #real = { setTimeout, clearTimeout, queueMicrotask };
  #performance = performance.now;
  #date = Date.now;

  install() {
    Object.assign(globalThis, {
      /** @param {() => void} call @param {number} delay */
      setTimeout: (call, delay) => {
        const timer = Symbol("timer");
        this.timers.set(timer, { call, due: this.now + delay });
        return timer;
      },
      /** @param {symbol} timer */
      clearTimeout: (timer) => this.timers.delete(timer),
      /** @param {() => void} call */
      queueMicrotask: (call) => (this.microtasks ? this.microtasks.push(call) : call()),
    });
    performance.now = Date.now = () => this.now;
  }

  restore() {
    Object.assign(globalThis, this.#real);
    performance.now = this.#performance;
    Date.now = this.#date;
  }

  /** The code that has queued the microtasks has ended. */
  turn() {
    const calls = this.microtasks ?? [];
    this.microtasks = null;
    for (const call of calls) call();
  }

  /** The machine sleeps, and its timers with it. @param {number} milliseconds */
  sleep(milliseconds) {
    for (const timer of this.timers.values()) timer.due += milliseconds;
    this.now += milliseconds;
  }

  /** @param {number} milliseconds */
  tick(milliseconds) {
    const end = this.now + milliseconds;
    for (;;) {
      const [timer, next] = [...this.timers].sort(([, a], [, b]) => a.due - b.due)[0] ?? [];
      if (!next || next.due > end) break;
      this.timers.delete(timer);
      this.now = next.due;
      next.call();
    }
    this.now = end;
  }
}
