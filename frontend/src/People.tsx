import { usePresence } from "wsloop/react";

import { site } from "./site.ts";

/** Who has this page open. */
export function People() {
  const { users, anonymous } = usePresence("react");
  return (
    <section className="panel" aria-labelledby="people">
      <h2 id="people">Who is here</h2>
      <ul className="people" data-people>
        {users.map((user) => (
          <li key={user}>
            {user}
            {user === site.user && <span className="muted"> (you)</span>}
          </li>
        ))}
        {anonymous > 0 && <li className="muted">{anonymous === 1 ? "1 visitor" : `${anonymous} visitors`}</li>}
      </ul>
    </section>
  );
}
