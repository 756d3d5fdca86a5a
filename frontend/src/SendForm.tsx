import { useRef, useState, type SubmitEvent } from "react";
import { usePresence } from "wsloop/react";

import { post, site } from "./site.ts";

/** Sends a notice through a view of Django, which checks and publishes it. */
export function SendForm() {
  const { users } = usePresence("react");
  const [status, setStatus] = useState<{ kind: "" | "success" | "error"; text: string }>({ kind: "", text: "" });
  const [isSending, setSending] = useState(false);
  const field = useRef<HTMLTextAreaElement>(null);
  const others = users.filter((user) => user !== site.user);

  async function submit(event: SubmitEvent<HTMLFormElement>) {
    event.preventDefault();
    if (isSending) return;
    const data = new FormData(event.currentTarget);
    const recipient = String(data.get("to") ?? "");
    setSending(true);
    setStatus({ kind: "", text: "" });
    try {
      const errors = await post(site.send, {
        audience: recipient ? "user" : "broadcast",
        recipient,
        message: String(data.get("message") ?? ""),
      });
      const [error] = Object.values(errors).flat();
      if (!error && field.current) field.current.value = "";
      setStatus(error ? { kind: "error", text: error } : { kind: "success", text: "Sent." });
    } catch {
      setStatus({ kind: "error", text: "The server cannot be reached. Try again." });
    }
    setSending(false);
    field.current?.focus();
  }

  return (
    <section className="panel" aria-labelledby="send">
      <h2 id="send">Send</h2>
      {site.user ? (
        <form onSubmit={submit}>
          <div>
            <label htmlFor="to">To</label>
            <select id="to" name="to">
              <option value="">Everybody</option>
              <option value={site.user}>Yourself</option>
              {others.map((user) => (
                <option key={user}>{user}</option>
              ))}
            </select>
          </div>
          <div>
            <label htmlFor="message">Message</label>
            <textarea
              id="message"
              name="message"
              rows={3}
              maxLength={2000}
              autoComplete="off"
              required
              ref={field}
              aria-invalid={status.kind === "error"}
              aria-describedby="send-status"
            />
          </div>
          <div className="actions">
            <button className="button" aria-disabled={isSending}>
              Send
            </button>
            <p className="form-status" role="status" id="send-status" data-kind={status.kind} data-status>
              {status.text}
            </p>
          </div>
        </form>
      ) : (
        <p>
          To send, <a href={site.signIn}>sign in</a>.
        </p>
      )}
    </section>
  );
}
