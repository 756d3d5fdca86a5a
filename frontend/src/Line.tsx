import { useEffect, useState } from "react";
import { useSocketState } from "wsloop/react";

/** The state of the socket, in words; counts down to the next attempt. */
export function Line() {
  const state = useSocketState();
  const isSignedOut = state.name === "offline" && state.reason === "signed out";
  useEffect(() => {
    if (isSignedOut) showSignedOut();
  }, [isSignedOut]);
  return (
    <p className="line" data-line data-state={state.name}>
      <span className="state">
        <span role="status">
          {state.name}
          {"reason" in state && state.reason && ` (${state.reason})`}
        </span>
        {state.name === "reconnecting" && <Countdown key={state.seconds} seconds={state.seconds} />}
      </span>
      {isSignedOut && <a href={location.href}>Reload the page</a>}
    </p>
  );
}

/** The header of the site, which Django's template makes, says it as on its other pages. */
function showSignedOut() {
  for (const element of document.querySelectorAll<HTMLElement>("[data-signed-in]")) element.hidden = true;
  for (const element of document.querySelectorAll<HTMLElement>("[data-signed-out]")) element.hidden = false;
}

/** Counts down, for the eye only: a screen reader would speak each second. */
function Countdown({ seconds }: { seconds: number }) {
  const [left, setLeft] = useState(Math.ceil(seconds));
  useEffect(() => {
    const timer = setInterval(() => setLeft((before) => before - 1), 1000);
    return () => clearInterval(timer);
  }, []);
  return <span aria-hidden="true">{left > 0 ? ` in ${left} s` : " …"}</span>;
}
