import { useRef, useState } from "react";
import { useConsumer } from "wsloop/react";

/** Asks a consumer, and measures how long the answer takes. */
export function Echo() {
  const sentAt = useRef(0);
  const [took, setTook] = useState<number | null>(null);
  const { state, send } = useConsumer("/ws/echo/", {
    onMessage: () => setTook(performance.now() - sentAt.current),
  });

  function ask() {
    sentAt.current = performance.now();
    send("echo");
  }

  return (
    <section className="panel" aria-labelledby="echo">
      <h2 id="echo">Ask a consumer</h2>
      <div className="actions">
        <button className="button quiet" type="button" aria-disabled={state.name !== "connected"} onClick={ask}>
          Echo
        </button>
        <p role="status" data-echo>
          {took !== null && `The answer took ${took.toFixed(1)} ms.`}
        </p>
      </div>
    </section>
  );
}
