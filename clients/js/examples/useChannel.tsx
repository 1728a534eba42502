// A hook for React: the messages of a channel, kept up to date, and those that are not sent yet.
import { apply, type Client, type Draft, type ImksError, type Message, type OutboxEntry } from "@imks/client";
import { useCallback, useEffect, useState } from "react";

export interface ChannelView {
  /** Oldest first. */
  messages: readonly Message[];
  /** What waits in the outbox, oldest first. A message stands here until it stands in `messages`. */
  waiting: readonly OutboxEntry[];
  /** Why no more messages come. */
  error: ImksError | null;
  send(draft: Draft): Promise<Message>;
}

export function useChannel(client: Client, channelId: string, last = 50): ChannelView {
  const [messages, setMessages] = useState<readonly Message[]>([]);
  const [waiting, setWaiting] = useState<readonly OutboxEntry[]>([]);
  const [error, setError] = useState<ImksError | null>(null);

  useEffect(() => {
    const stream = client.channel(channelId).messages({ from: { last }, gaps: "skip" });
    const read = async () => {
      for await (const event of stream) setMessages((messages) => apply(messages, event));
    };
    setMessages([]);
    setError(null);
    read().catch(setError);
    return () => void stream.return();
  }, [client, channelId, last]);

  useEffect(() => {
    const look = () => setWaiting(client.channel(channelId).waiting());
    const stops = [client.on("sent", look), client.on("failed", look)];
    look();
    return () => stops.forEach((stop) => stop());
  }, [client, channelId]);

  const send = useCallback(
    (draft: Draft) => {
      const sending = client.channel(channelId).send(draft);
      setWaiting(client.channel(channelId).waiting());
      return sending;
    },
    [client, channelId],
  );

  const stored = new Set(messages.map(({ nonce }) => nonce));
  return { messages, waiting: waiting.filter(({ nonce }) => !stored.has(nonce)), error, send };
}

export function Channel({ client, id }: { client: Client; id: string }) {
  const { messages, waiting, error, send } = useChannel(client, id);
  const submit = (form: FormData) => void send({ body: String(form.get("body")) }).catch((error) => alert(error.message));
  return (
    <>
      <ul>
        {messages.map(({ id, author, body, deleted_at }) => (
          <li key={id}>{deleted_at ? "(deleted)" : `${author.username}: ${body}`}</li>
        ))}
        {waiting.map(({ nonce, request }) => (
          <li key={nonce}>… {request.body}</li>
        ))}
      </ul>
      {error && <p>{error.message}</p>}
      <form action={submit}>
        <input name="body" required />
      </form>
    </>
  );
}
