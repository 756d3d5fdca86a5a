/** Time that passes when the test says so. (Node's own mock timers changed their signature between versions.) */
export class Clock {
  now = 0;
  timers = new Map();
  #real = { setTimeout, clearTimeout };
  #performance = performance.now;

  install() {
    globalThis.setTimeout = (call, delay) => {
      const timer = Symbol("timer");
      this.timers.set(timer, { call, due: this.now + delay });
      return timer;
    };
    globalThis.clearTimeout = (timer) => this.timers.delete(timer);
    performance.now = () => this.now;
  }

  restore() {
    Object.assign(globalThis, this.#real);
    performance.now = this.#performance;
  }

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
