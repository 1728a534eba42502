//! A list of messages that the events of a channel keep up to date, for programs that show it. No I/O.

import type { Message } from "./imks.js";
import { characters, type ChannelEvent } from "./merge.js";

/**
 * Returns `messages`, oldest first, after `event`. The list that was passed in stays as it is, and so does each message
 * that has not changed.
 *
 * A `gap` changes nothing: whoever shows one keeps the event.
 */
export function apply(messages: readonly Message[], event: ChannelEvent): readonly Message[] {
  switch (event.type) {
    case "message":
      return [...messages, event.message];
    case "updated":
      return change(messages, event.id, (message) => ({ ...message, ...event.changes, ...own(message, event) }));
    case "deleted":
      return change(messages, event.id, (message) => event.message ?? { ...message, ...empty(), deleted_at: event.deleted_at });
    case "append":
      return change(messages, event.id, (message) => ({
        ...message,
        body: message.body + event.text,
        stream: { state: "active", offset: event.offset + characters(event.text) },
      }));
    case "removed":
      return messages.filter((message) => message.seq > event.until_seq);
    case "reset":
      return event.messages;
    case "gap":
      return messages;
  }
}

/** Returns the fields of `changes` that have something of the reader's own, with it. */
function own({ reactions, poll }: Message, { changes, own }: Extract<ChannelEvent, { type: "updated" }>): Partial<Message> {
  const fields: Partial<Message> = {};
  if (own && changes.reactions) {
    fields.reactions = Object.fromEntries(
      Object.entries(changes.reactions).map(([emoji, total]) => {
        const me = own[emoji] ?? reactions[emoji]?.me ?? false;
        return [emoji, me ? { ...total, me } : total];
      }),
    );
  }
  if (own && changes.poll && poll?.my_votes) fields.poll = { ...changes.poll, my_votes: poll.my_votes };
  return fields;
}

function change(messages: readonly Message[], id: string, to: (message: Message) => Message): readonly Message[] {
  // What changes is mostly new.
  const place = messages.findLastIndex((message) => message.id === id);
  const message = messages[place];
  return message === undefined ? messages : messages.with(place, to(message));
}

/** Returns what a deleted message no longer has. */
function empty() {
  return { body: "", reactions: {}, attachments: [], attachment_count: 0, embeds: [], poll: null, stream: null, pinned: false };
}
