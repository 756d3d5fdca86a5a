/** Time that passes when the test says so. (Node's own mock timers changed their signature between versions.) */
export class Clock {
  now = 0;
  /** @type {Map<symbol, {call: () => void, due: number}>} */
  timers = new Map();
  #real = { setTimeout, clearTimeout };
  #performance = performance.now;

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
    });
    performance.now = () => this.now;
  }

  restore() {
    Object.assign(globalThis, this.#real);
    performance.now = this.#performance;
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
