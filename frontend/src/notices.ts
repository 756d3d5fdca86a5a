// The notices of the page: those that /send/ publishes, to the facility of the inbox.

import { useMessages } from "wsloop/react";
import type { Message } from "wsloop";

import { site } from "./site.ts";

export interface Notice {
  sender: string;
  text: string;
  sent: string;
}

export type NoticeMessage = Message<Notice>;

function parse(text: string): Notice {
  const value: unknown = JSON.parse(text);
  const { sender, text: words, sent } = Object(value) as Record<string, unknown>;
  if (typeof sender === "string" && typeof words === "string" && typeof sent === "string") {
    return { sender, text: words, sent };
  }
  throw new TypeError("This message is no notice.");
}

/** The notices of this visitor; every component that uses them shares one subscription. */
export function useNotices(onMessage?: (message: NoticeMessage) => void) {
  return useMessages<Notice>("inbox", {
    audiences: site.user ? ["broadcast", "user", "group", "session"] : ["broadcast", "session"],
    parse,
    limit: 50,
    load: async (_, history) => (await history({ limit: 50 })).messages,
    onMessage,
  });
}
