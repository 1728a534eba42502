//! A list of messages that the events of a channel keep up to date, for programs that show it. No I/O.

import type { Message } from "./imks.js";
import { characters, type ChannelEvent } from "./merge.js";

/**
 * Returns `messages`, oldest first, after `event`. The list that was passed in stays as it is, and so does each message
 * that has not changed.
 *
 * A `deleted` also takes the text from the messages of the list that quote the deleted one. A `gap` changes nothing: whoever
 * shows one keeps the event.
 */
export function apply(messages: readonly Message[], event: ChannelEvent): readonly Message[] {
  switch (event.type) {
    case "message":
      return [...messages, event.message];
    case "updated":
      return change(messages, event.id, (message) => ({ ...message, ...event.changes, ...own(message, event) }));
    case "deleted":
      return remove(messages, event);
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

/** Leaves a tombstone of a message, and takes its text from the messages that quote it. */
function remove(messages: readonly Message[], event: Extract<ChannelEvent, { type: "deleted" }>): readonly Message[] {
  const { id, deleted_at } = event;
  const quote = { body: "", deleted_at };
  return change(messages, id, (message) => event.message ?? tombstone(message, deleted_at)).map((message) => {
    const { reply_to, forward_of } = message;
    if (reply_to?.id !== id && forward_of?.id !== id) return message;
    const quotes: Partial<Message> = {};
    if (reply_to?.id === id) quotes.reply_to = { ...reply_to, ...quote };
    if (forward_of?.id === id) quotes.forward_of = { ...forward_of, ...quote };
    return { ...message, ...quotes };
  });
}

/** Returns what the server keeps of a deleted message. */
function tombstone({ metadata: _, acked: __, ...message }: Message, deleted_at: string): Message {
  return {
    ...message,
    body: "",
    reactions: {},
    attachments: [],
    attachment_count: 0,
    embeds: [],
    poll: null,
    stream: null,
    forward_of: null,
    mentions: { users: [], roles: [], channel: false, here: false },
    ack_requested: false,
    ack_count: 0,
    pinned: false,
    expires_at: null,
    deleted_at,
  };
}
