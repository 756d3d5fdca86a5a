import { useRef, useState } from "react";

import { useNotices, type NoticeMessage } from "./notices.ts";

const SHOWN = 20;

/** The notification centre: what has arrived, the newest first, and how much of it is new. */
export function Notices() {
  const [unread, setUnread] = useState(0);
  const heading = useRef<HTMLHeadingElement>(null);
  const { messages, state, loss } = useNotices((message) => {
    if (!message.kept) setUnread((before) => before + 1);
  });
  const newest = messages.slice(-SHOWN).reverse();

  function markRead() {
    setUnread(0);
    heading.current?.focus(); // the button that had the focus is gone
  }

  return (
    <section className="panel" aria-labelledby="notices">
      <div className="panel-head">
        <h2 id="notices" ref={heading} tabIndex={-1}>
          Notices
        </h2>
        <p role="status" className="unread" data-unread={unread}>
          {unread > 0 && `${unread} new`}
        </p>
        {unread > 0 && (
          <button className="button quiet small" type="button" onClick={markRead}>
            Mark as read
          </button>
        )}
      </div>
      {state.name === "offline" && <p className="note warning">Nothing arrives any more: {state.reason}.</p>}
      {loss && <p className="note warning">{loss.reason}</p>}
      <div role="log" aria-label="Notices, the newest first">
        <ol className="feed" data-feed>
          {newest.map((message, number) => (
            <Item key={message.id ?? `${messages.length - number}`} message={message} isNew={number < unread} />
          ))}
        </ol>
        {newest.length === 0 && <p className="nothing-yet">Nothing has arrived yet.</p>}
      </div>
    </section>
  );
}

function Item({ message, isNew }: { message: NoticeMessage; isNew: boolean }) {
  const { sender, text, sent } = message.data;
  const time = new Date(sent);
  return (
    <li className="message" data-audience={message.audience} data-new={isNew || undefined}>
      <p className="message-head">
        <span className="badge" data-audience={message.audience}>
          {message.audience}
        </span>
        <span className="sender">{sender}</span>
        {!Number.isNaN(time.getTime()) && <time dateTime={sent}>{time.toLocaleTimeString()}</time>}
      </p>
      <p className="message-text">{text}</p>
    </li>
  );
}
