// The events of imks, for the stock client. Made from the types of the server; do not edit.
//
//   import { io, Socket } from "socket.io-client";
//   import type { ClientToServerEvents, ServerToClientEvents } from "./imks";
//   const socket: Socket<ServerToClientEvents, ClientToServerEvents> = io(url, { auth: { token } });

/** The answer to a request: its data, or an error. */
export type Answer<T> = { ok: true; data: T; meta: Meta } | Failure;

export interface ServerToClientEvents {
  "session:ready": (payload: SessionReadyEvent) => void;
  "session:channels": (payload: SessionChannelsEvent) => void;
  "auth:expiring": (payload: AuthExpiringEvent) => void;
  "auth:expired": (payload: AuthExpiredEvent) => void;
  "auth:revoked": (payload: AuthRevokedEvent) => void;
  "session:ended": (payload: SessionEndedEvent) => void;
  "server:shutdown": (payload: ServerShutdownEvent) => void;
  "error": (payload: ErrorEvent) => void;
  "channel:joined": (payload: ChannelJoinedEvent) => void;
  "channel:left": (payload: ChannelLeftEvent) => void;
  "channel:updated": (payload: ChannelUpdatedEvent) => void;
  "sync:required": (payload: SyncRequiredEvent) => void;
  "channel:horizon": (payload: ChannelHorizonEvent) => void;
  "channel:activity": (payload: ChannelActivityEvent) => void;
  "message:new": (payload: MessageNewEvent) => void;
  "mention:new": (payload: MentionNewEvent) => void;
  "message:updated": (payload: MessageUpdatedEvent) => void;
  "message:deleted": (payload: MessageDeletedEvent) => void;
  "message:append": (payload: MessageAppendEvent) => void;
  "read:updated": (payload: ReadUpdatedEvent) => void;
  "read:updated_many": (payload: ReadUpdatedManyEvent) => void;
  "reaction:updated": (payload: ReactionUpdatedEvent) => void;
  "pin:updated": (payload: PinUpdatedEvent) => void;
  "poll:updated": (payload: PollUpdatedEvent) => void;
  "ack:updated": (payload: AckUpdatedEvent) => void;
  "thread:state": (payload: ThreadStateEvent) => void;
  "thread:updated": (payload: ThreadUpdatedEvent) => void;
  "typing": (payload: TypingEvent) => void;
  "presence:own": (payload: PresenceOwnEvent) => void;
  "presence:update": (payload: PresenceUpdateEvent) => void;
  "call:incoming": (payload: CallIncomingEvent) => void;
  "draft:updated": (payload: DraftUpdatedEvent) => void;
  "bookmark:updated": (payload: BookmarkUpdatedEvent) => void;
  "schedule:updated": (payload: ScheduleUpdatedEvent) => void;
  "message:ephemeral": (payload: MessageEphemeralEvent) => void;
}

export interface ClientToServerEvents {
  "auth:refresh": (payload: AuthRefreshRequest, ack: (answer: Answer<AuthRefreshAnswer>) => void) => void;
  "ping": (payload: PingRequest, ack: (answer: Answer<PingAnswer>) => void) => void;
  "channel:subscribe": (payload: ChannelSubscribeRequest, ack: (answer: Answer<ChannelSubscribeAnswer>) => void) => void;
  "channel:unsubscribe": (payload: ChannelUnsubscribeRequest, ack: (answer: Answer<ChannelUnsubscribeAnswer>) => void) => void;
  "channel:focus": (payload: ChannelFocusRequest, ack: (answer: Answer<ChannelFocusAnswer>) => void) => void;
  "message:send": (payload: MessageSendRequest, ack: (answer: Answer<MessageSendAnswer>) => void) => void;
  "mentions:list": (payload: MentionsListRequest, ack: (answer: Answer<MentionsListAnswer>) => void) => void;
  "keypackage:publish": (payload: KeypackagePublishRequest, ack: (answer: Answer<KeypackagePublishAnswer>) => void) => void;
  "keypackage:claim": (payload: KeypackageClaimRequest, ack: (answer: Answer<KeypackageClaimAnswer>) => void) => void;
  "message:edit": (payload: MessageEditRequest, ack: (answer: Answer<MessageEditAnswer>) => void) => void;
  "message:edits": (payload: MessageEditsRequest, ack: (answer: Answer<MessageEditsAnswer>) => void) => void;
  "message:delete": (payload: MessageDeleteRequest, ack: (answer: Answer<MessageDeleteAnswer>) => void) => void;
  "message:delete_bulk": (payload: MessageDeleteBulkRequest, ack: (answer: Answer<MessageDeleteBulkAnswer>) => void) => void;
  "stream:append": (payload: StreamAppendRequest, ack: (answer: Answer<StreamAppendAnswer>) => void) => void;
  "stream:finish": (payload: StreamFinishRequest, ack: (answer: Answer<StreamFinishAnswer>) => void) => void;
  "stream:abort": (payload: StreamAbortRequest, ack: (answer: Answer<StreamAbortAnswer>) => void) => void;
  "history": (payload: HistoryRequest, ack: (answer: Answer<HistoryAnswer>) => void) => void;
  "message:get": (payload: MessageGetRequest, ack: (answer: Answer<MessageGetAnswer>) => void) => void;
  "sync": (payload: SyncRequest, ack: (answer: Answer<SyncAnswer>) => void) => void;
  "read:mark": (payload: ReadMarkRequest, ack: (answer: Answer<ReadMarkAnswer>) => void) => void;
  "read:mark_unread": (payload: ReadMarkUnreadRequest, ack: (answer: Answer<ReadMarkUnreadAnswer>) => void) => void;
  "read:mark_all": (payload: ReadMarkAllRequest, ack: (answer: Answer<ReadMarkAllAnswer>) => void) => void;
  "reaction:add": (payload: ReactionAddRequest, ack: (answer: Answer<ReactionAddAnswer>) => void) => void;
  "reaction:remove": (payload: ReactionRemoveRequest, ack: (answer: Answer<ReactionRemoveAnswer>) => void) => void;
  "emoji:list": (payload: EmojiListRequest, ack: (answer: Answer<EmojiListAnswer>) => void) => void;
  "emoji:get": (payload: EmojiGetRequest, ack: (answer: Answer<EmojiGetAnswer>) => void) => void;
  "pin:add": (payload: PinAddRequest, ack: (answer: Answer<PinAddAnswer>) => void) => void;
  "pin:remove": (payload: PinRemoveRequest, ack: (answer: Answer<PinRemoveAnswer>) => void) => void;
  "pin:list": (payload: PinListRequest, ack: (answer: Answer<PinListAnswer>) => void) => void;
  "poll:vote": (payload: PollVoteRequest, ack: (answer: Answer<PollVoteAnswer>) => void) => void;
  "poll:close": (payload: PollCloseRequest, ack: (answer: Answer<PollCloseAnswer>) => void) => void;
  "poll:voters": (payload: PollVotersRequest, ack: (answer: Answer<PollVotersAnswer>) => void) => void;
  "message:ack": (payload: MessageAckRequest, ack: (answer: Answer<MessageAckAnswer>) => void) => void;
  "message:acks": (payload: MessageAcksRequest, ack: (answer: Answer<MessageAcksAnswer>) => void) => void;
  "thread:follow": (payload: ThreadFollowRequest, ack: (answer: Answer<ThreadFollowAnswer>) => void) => void;
  "thread:unfollow": (payload: ThreadUnfollowRequest, ack: (answer: Answer<ThreadUnfollowAnswer>) => void) => void;
  "thread:list": (payload: ThreadListRequest, ack: (answer: Answer<ThreadListAnswer>) => void) => void;
  "thread:followed": (payload: ThreadFollowedRequest, ack: (answer: Answer<ThreadFollowedAnswer>) => void) => void;
  "typing:start": (payload: TypingStartRequest, ack: (answer: Answer<TypingStartAnswer>) => void) => void;
  "typing:stop": (payload: TypingStopRequest, ack: (answer: Answer<TypingStopAnswer>) => void) => void;
  "presence:set": (payload: PresenceSetRequest, ack: (answer: Answer<PresenceSetAnswer>) => void) => void;
  "presence:active": (payload: PresenceActiveRequest, ack: (answer: Answer<PresenceActiveAnswer>) => void) => void;
  "presence:subscribe": (payload: PresenceSubscribeRequest, ack: (answer: Answer<PresenceSubscribeAnswer>) => void) => void;
  "presence:unsubscribe": (payload: PresenceUnsubscribeRequest, ack: (answer: Answer<PresenceUnsubscribeAnswer>) => void) => void;
  "presence:list": (payload: PresenceListRequest, ack: (answer: Answer<PresenceListAnswer>) => void) => void;
  "call:signal": (payload: CallSignalRequest, ack: (answer: Answer<CallSignalAnswer>) => void) => void;
  "draft:set": (payload: DraftSetRequest, ack: (answer: Answer<DraftSetAnswer>) => void) => void;
  "draft:clear": (payload: DraftClearRequest, ack: (answer: Answer<DraftClearAnswer>) => void) => void;
  "draft:list": (payload: DraftListRequest, ack: (answer: Answer<DraftListAnswer>) => void) => void;
  "bookmark:add": (payload: BookmarkAddRequest, ack: (answer: Answer<BookmarkAddAnswer>) => void) => void;
  "bookmark:update": (payload: BookmarkUpdateRequest, ack: (answer: Answer<BookmarkUpdateAnswer>) => void) => void;
  "bookmark:remove": (payload: BookmarkRemoveRequest, ack: (answer: Answer<BookmarkRemoveAnswer>) => void) => void;
  "bookmark:list": (payload: BookmarkListRequest, ack: (answer: Answer<BookmarkListAnswer>) => void) => void;
  "search": (payload: SearchRequest, ack: (answer: Answer<SearchAnswer>) => void) => void;
  "attachment:create": (payload: AttachmentCreateRequest, ack: (answer: Answer<AttachmentCreateAnswer>) => void) => void;
  "attachment:complete": (payload: AttachmentCompleteRequest, ack: (answer: Answer<AttachmentCompleteAnswer>) => void) => void;
  "attachment:remove": (payload: AttachmentRemoveRequest, ack: (answer: Answer<AttachmentRemoveAnswer>) => void) => void;
  "attachment:get": (payload: AttachmentGetRequest, ack: (answer: Answer<AttachmentGetAnswer>) => void) => void;
  "schedule:create": (payload: ScheduleCreateRequest, ack: (answer: Answer<ScheduleCreateAnswer>) => void) => void;
  "schedule:get": (payload: ScheduleGetRequest, ack: (answer: Answer<ScheduleGetAnswer>) => void) => void;
  "schedule:list": (payload: ScheduleListRequest, ack: (answer: Answer<ScheduleListAnswer>) => void) => void;
  "schedule:update": (payload: ScheduleUpdateRequest, ack: (answer: Answer<ScheduleUpdateAnswer>) => void) => void;
  "schedule:cancel": (payload: ScheduleCancelRequest, ack: (answer: Answer<ScheduleCancelAnswer>) => void) => void;
  "message:report": (payload: MessageReportRequest, ack: (answer: Answer<MessageReportAnswer>) => void) => void;
  "report:list": (payload: ReportListRequest, ack: (answer: Answer<ReportListAnswer>) => void) => void;
  "read:receipts": (payload: ReadReceiptsRequest, ack: (answer: Answer<ReadReceiptsAnswer>) => void) => void;
}

/** Which users a list has. */
export type AckState = "acked" | "missing";

/** The payload of a change event: the feature's payload, the number of the change, and a name for traces. */
export type AckUpdatedEvent = {
  /** How many users have acknowledged it. */
  ack_count: number;
  channel_id: string;
  event_id: string;
  message_id: string;
  rev: number;
  /** Those who did with this change. */
  user_ids: Array<string>;
};

/** A user who is asked to acknowledge a message. */
export type AckedBy = {
  /** Null for a user who has not. */
  acked_at: string | null;
  user_id: string;
};

/** An attachment, as messages show it. */
export type Attachment = {
  /** The name of the file. */
  filename: string;
  /** The height of a picture. */
  height: number | null;
  /** The id of the attachment. */
  id: string;
  /** The media type that the uploader named. */
  mime: string;
  /** The checksum that the uploader named. */
  sha256: string | null;
  /** The size of the file in bytes. */
  size: number;
  /** The width of a picture. */
  width: number | null;
};

/** The answer to `attachment:complete`. */
export type AttachmentCompleteAnswer = {
  attachment: Attachment;
};

/** The payload of `attachment:complete` and `attachment:remove`. */
export type AttachmentCompleteRequest = {
  attachment_id: string;
};

/** The answer to `attachment:create`. */
export type AttachmentCreateAnswer = {
  attachment: Attachment;
  upload: Upload;
};

/** The payload of `attachment:create`. */
export type AttachmentCreateRequest = {
  channel_id: string;
  filename: string;
  height?: number | null;
  mime: string;
  sha256?: string | null;
  size: number;
  width?: number | null;
};

/** The answer to `attachment:get`. */
export type AttachmentGetAnswer = {
  attachment: Attachment;
  /** When the address stops being valid. */
  expires_at: string;
  /** The address; a path is one of this server. Whoever has it can read the file until it expires. */
  url: string;
};

/** The payload of `attachment:get`. */
export type AttachmentGetRequest = {
  attachment_id: string;
  channel_id: string;
};

/** The answer to `attachment:remove`. */
export type AttachmentRemoveAnswer = {
  attachment_id: string;
  removed: boolean;
};

/** The payload of `attachment:complete` and `attachment:remove`. */
export type AttachmentRemoveRequest = {
  attachment_id: string;
};

export type AuthExpiredEvent = Record<string, never>;

export type AuthExpiringEvent = {
  expires_in_ms: number;
};

/** The answer to `auth:refresh`. */
export type AuthRefreshAnswer = {
  token_expires_at: string;
};

/** The payload of `auth:refresh`. */
export type AuthRefreshRequest = {
  token: string;
};

export type AuthRevokedEvent = {
  message?: string | null;
};

/** The author of a message, with the name they had when it was written. */
export type Author = {
  /** The user. */
  id: string;
  /** The displayed name. The id, not the name, identifies the user. */
  username: string;
};

/** A bookmark, as the devices of its user see it: the payload of `bookmark:updated`. */
export type Bookmark = {
  /** The channel of the message. */
  channel_id: string;
  /** When the message was saved. */
  created_at: string;
  /** The message. */
  message_id: string;
  /** What the user noted. */
  note: string | null;
  /** When the user will be reminded. */
  remind_at: string | null;
  /** When the user was last reminded. */
  reminded_at: string | null;
  /** Whether the bookmark was removed. */
  removed: boolean;
  /** The number of this change in the user's stream. */
  user_rev: number;
};

/** The answer to `bookmark:add` and `bookmark:update`. */
export type BookmarkAddAnswer = {
  bookmark: Bookmark;
};

/** The payload of `bookmark:add` and `bookmark:update`. An absent field keeps what is stored, null removes it. */
export type BookmarkAddRequest = {
  channel_id: string;
  message_id: string;
  note?: string | null;
  remind_at?: string | null;
};

/** The answer to `bookmark:list`: bookmarks, the last changed first. */
export type BookmarkListAnswer = {
  bookmarks: Array<Bookmark>;
  /** The `before` of the next page; null after the last one. */
  next: number | null;
};

/** The payload of `bookmark:list`. */
export type BookmarkListRequest = {
  before?: number | null;
  limit?: number;
};

/** The answer to `bookmark:remove`. */
export type BookmarkRemoveAnswer = {
  message_id: string;
  removed: boolean;
};

/** The payload of `bookmark:remove`. */
export type BookmarkRemoveRequest = {
  message_id: string;
};

/** The answer to `bookmark:add` and `bookmark:update`. */
export type BookmarkUpdateAnswer = {
  bookmark: Bookmark;
};

/** The payload of `bookmark:add` and `bookmark:update`. An absent field keeps what is stored, null removes it. */
export type BookmarkUpdateRequest = {
  channel_id: string;
  message_id: string;
  note?: string | null;
  remind_at?: string | null;
};

export type BookmarkUpdatedEvent = Bookmark;

/** The payload of `call:incoming`. */
export type CallIncomingEvent = {
  channel_id: string;
  data: unknown;
  from: Author;
  to: string | null;
};

/** The answer to `call:signal`. */
export type CallSignalAnswer = Record<string, never>;

/** The payload of `call:signal`. */
export type CallSignalRequest = {
  channel_id: string;
  /** Whatever the clients of a call tell each other. */
  data: unknown;
  /** The member whom it is for; all others in the channel if absent. */
  to?: string | null;
};

/** A message that was changed, possibly a tombstone. */
export type ChangedMessage = {
  /** The message in its current state. */
  message: Message;
  /** The number of its last change. */
  rev: number;
};

/** The payload of `channel:activity`. */
export type ChannelActivityEvent = {
  /** Each as text, which all events share. */
  channels: Array<ChannelDigest>;
};

/** How far a channel has come. */
export type ChannelDigest = {
  channel_id: string;
  /** The last message, if it is newer than the last digest. */
  last_message_id?: string | null;
  last_seq: number;
  rev: number;
};

/** The answer to both events, and to `channel:focus`: one entry per channel, in the order of the request. */
export type ChannelFocusAnswer = {
  channels: Array<SubscribedChannel>;
};

/** The payload of `channel:focus`: the channels in view, possibly none. */
export type ChannelFocusRequest = {
  channel_ids: Array<string>;
};

/** Where the history of a channel begins: after this message. */
export type ChannelHorizonEvent = {
  /** The channel. */
  channel_id: string;
  /** The id of that message. Those before it in the channel have lower ids. */
  horizon_id: string;
  /** The number of the newest message that was removed. */
  horizon_seq: number;
};

export type ChannelJoinedEvent = {
  channel_id: string;
  name: string;
};

export type ChannelLeftEvent = {
  channel_id: string;
  message?: string | null;
  reason: string;
};

/** The state of a channel for this user. */
export type ChannelState = {
  channel_id: string;
  horizon_id?: string | null;
  /** Only where messages were removed because their time was over, as `horizon_id`. */
  horizon_seq?: number | null;
  last_message_id: string | null;
  last_seq: number;
  mention_count: number;
  muted: boolean;
  muted_until: string | null;
  name: string;
  notify_level: string;
  read_seq: number;
  rev: number;
  unread_count: number;
};

/** The answer to both events, and to `channel:focus`: one entry per channel, in the order of the request. */
export type ChannelSubscribeAnswer = {
  channels: Array<SubscribedChannel>;
};

/** The payload of both events. */
export type ChannelSubscribeRequest = {
  channel_ids: Array<string>;
};

/** Everything that brings a client up to date in a channel. */
export type ChannelSync = {
  /** The messages that were changed after the cursor, in their current state. */
  changes: Array<ChangedMessage>;
  /** The channel. */
  channel_id: string;
  /** The id of that message. Those before it in the channel have lower ids. */
  horizon_id: string | null;
  /**
   * The number of the newest message that was removed because its time was over; 0 if none was. The client discards
   * the messages up to it.
   */
  horizon_seq: number;
  /** The messages after the cursor, oldest first; the newest page if `truncated` or `reset`. */
  messages: Array<Message>;
  /**
   * Whether the changes after the cursor cannot be told one by one, so that the client must discard its
   * cache; `messages` is the newest page then.
   */
  reset: boolean;
  /** The `rev` of the next cursor. */
  rev: number;
  /** The `seq` of the next cursor. */
  seq: number;
  /** The first and last `seq` of `messages`. */
  seq_range: [number, number] | null;
  /**
   * Whether messages before `messages` are missing: between the cursor and them, or all earlier ones if `reset`. Clients
   * load them on scroll.
   */
  truncated: boolean;
};

/** The answer to both events, and to `channel:focus`: one entry per channel, in the order of the request. */
export type ChannelUnsubscribeAnswer = {
  channels: Array<SubscribedChannel>;
};

/** The payload of both events. */
export type ChannelUnsubscribeRequest = {
  channel_ids: Array<string>;
};

/** The payload of `channel:updated`: the channel as it is now. */
export type ChannelUpdatedEvent = {
  archived: boolean;
  channel_id: string;
  kind: string;
  name: string;
  read_only: boolean;
  slow_mode_s: number;
};

/** A key package that is handed out. */
export type ClaimedPackage = {
  /** The owner's device. */
  device_id: string;
  /** The owner's name for the package. */
  id: string;
  /** Whether others may get it too. */
  last_resort: boolean;
  /** The package. */
  package: string;
  /** The owner. */
  user_id: string;
};

/** The program that a client says it is, for logs and lists of sessions. Nothing is decided by it. */
export type ClientInfo = {
  /** The name of the program; at most `CLIENT_CHARS_MAX` characters. */
  name: string;
  /** Its version, bounded like the name. */
  version: string | null;
};

/** The program that a client says it is, for logs and lists of sessions. Nothing is decided by it. */
export type ClientInfoInput = {
  /** The name of the program; at most `CLIENT_CHARS_MAX` characters. */
  name: string;
  /** Its version, bounded like the name. */
  version?: string | null;
};

/** The `auth` object of the CONNECT packet. Unknown fields are ignored. */
export type ConnectAuth = {
  /** The program that the client is, for logs and lists of sessions. */
  client?: ClientInfoInput | null;
  /**
   * Whether the device gets everything of its channels (`full`, as without this), or digests until it says which it
   * looks at (`light`).
   */
  mode?: string | null;
  /** Whether the device starts `online` (as without this) or `idle`. */
  presence?: string | null;
  /** The version of the messaging protocol: 1. */
  protocol?: number | null;
  /**
   * Whether the client may come back to its session (`recovered`), as those of Socket.IO do that keep the offset at the end of
   * events. False for those whose handlers fail if there is one more argument.
   */
  recovery?: boolean | null;
  /** The token of the user; not needed if it is in the header `Authorization`. */
  token?: string | null;
  /** The trace that the client is in, as W3C writes it. */
  traceparent?: string | null;
};

/** How clients render a body. */
export type ContentType = "markdown" | "plain" | "e2ee";

/** A custom emoji. */
export type CustomEmoji = {
  /** The id. */
  id: string;
  /** The address of the picture. */
  image_url: string;
  /** What stands between the colons. */
  name: string;
  /** The workspace that it belongs to. */
  workspace_id: string;
};

/** A draft, as the devices of its user see it: the payload of `draft:updated`. */
export type Draft = {
  /** The text; empty if the draft is cleared. */
  body: string;
  /** The channel. */
  channel_id: string;
  /** Whether there is no draft any more. */
  cleared: boolean;
  /** The message that it will quote. */
  reply_to_message_id: string | null;
  /** The thread; `None` for the channel itself. */
  thread_id: string | null;
  /** When it was set or cleared. */
  updated_at: string;
  /** The number of this change in the user's stream. */
  user_rev: number;
  /** The number of times that the draft was set or cleared. */
  version: number;
};

/** The answer to `draft:set` and `draft:clear`. */
export type DraftClearAnswer = {
  updated_at: string;
  user_rev: number;
  version: number;
};

/** The payload of `draft:clear`. */
export type DraftClearRequest = {
  channel_id: string;
  thread_id?: string | null;
};

/** The answer to `draft:list`: drafts, the last changed first. */
export type DraftListAnswer = {
  drafts: Array<Draft>;
  /** The `before` of the next page; null after the last one. */
  next: number | null;
};

/** The payload of `draft:list`. */
export type DraftListRequest = {
  before?: number | null;
};

/** The answer to `draft:set` and `draft:clear`. */
export type DraftSetAnswer = {
  updated_at: string;
  user_rev: number;
  version: number;
};

/** The payload of `draft:set`. */
export type DraftSetRequest = {
  base_version?: number | null;
  body: string;
  channel_id: string;
  reply_to_message_id?: string | null;
  thread_id?: string | null;
};

export type DraftUpdatedEvent = Draft;

/** An embed. */
export type Embed = {
  author: EmbedAuthor | null;
  color: number | null;
  description: string | null;
  fields: Array<EmbedField>;
  footer: string | null;
  image_url: string | null;
  kind: EmbedKind;
  published_at: string | null;
  site_name: string | null;
  /** Set by the server. */
  source: EmbedSource;
  thumbnail_url: string | null;
  title: string | null;
  url: string | null;
  video_url: string | null;
};

/** The author of what an embed shows. */
export type EmbedAuthor = {
  /** The name. */
  name: string;
  /** The author's page. */
  url: string | null;
};

/** The author of what an embed shows. */
export type EmbedAuthorInput = {
  /** The name. */
  name: string;
  /** The author's page. */
  url?: string | null;
};

/** A field of an embed. */
export type EmbedField = {
  /** Whether it may stand beside others. */
  inline: boolean;
  /** The name. */
  name: string;
  /** The value. */
  value: string;
};

/** A field of an embed. */
export type EmbedFieldInput = {
  /** Whether it may stand beside others. */
  inline?: boolean;
  /** The name. */
  name: string;
  /** The value. */
  value: string;
};

/** An embed. */
export type EmbedInput = {
  author?: EmbedAuthorInput | null;
  color?: number | null;
  description?: string | null;
  fields?: Array<EmbedFieldInput>;
  footer?: string | null;
  image_url?: string | null;
  kind?: EmbedKind;
  published_at?: string | null;
  site_name?: string | null;
  thumbnail_url?: string | null;
  title?: string | null;
  url?: string | null;
  video_url?: string | null;
};

/** What an embed shows first. */
export type EmbedKind = "rich" | "link" | "image" | "video";

/** Who made an embed. */
export type EmbedSource = "sender" | "preview";

/** The answer to `emoji:get`. */
export type EmojiGetAnswer = {
  emoji: CustomEmoji;
};

/** The payload of `emoji:get`. */
export type EmojiGetRequest = {
  /** A channel of the workspace. */
  channel_id: string;
  emoji_id: string;
};

/** The answer to `emoji:list`. */
export type EmojiListAnswer = {
  emoji: Array<CustomEmoji>;
  etag: string;
  /** Whether nothing changed since the etag of the request; then there are no emoji in the answer. */
  not_modified: boolean;
};

/** The payload of `emoji:list`. */
export type EmojiListRequest = {
  /** A channel of the workspace. */
  channel_id: string;
  /** The etag of the last answer. */
  etag?: string;
};

/** The part of an error that a client may see. Programs read `code`; `message` is for logs. */
export type ErrorBody = {
  code: ErrorCode;
  details?: ErrorDetails | null;
  message: string;
  request_id: string;
  retry_after_ms?: number | null;
  retryable: boolean;
};

export type ErrorCode = "invalid_payload" | "invalid_input" | "unauthenticated" | "token_expired" | "token_revoked" | "forbidden" | "not_found" | "unknown_event" | "method_not_allowed" | "conflict" | "version_mismatch" | "nonce_conflict" | "message_deleted" | "payload_too_large" | "failed_precondition" | "channel_archived" | "channel_read_only" | "edit_window_closed" | "poll_closed" | "stream_ended" | "limit_reached" | "rate_limited" | "slow_mode" | "internal" | "unavailable" | "overloaded" | "timeout";

/** What a program may need besides the code. */
export type ErrorDetails = {
  field: string;
} | {
  permission: string;
} | {
  current: number;
} | {
  last_seq: number;
} | {
  offset: number;
} | {
  key: PresentKey;
} | {
  limit: string;
} | {
  bucket: string;
};

/** The payload of the event `error`. */
export type ErrorEvent = {
  code: ErrorCode;
  details?: ErrorDetails | null;
  /** The name of the event, unless it exceeded a limit and was not read. */
  event?: string | null;
  message: string;
  nonce?: string | null;
  request_id: string;
  retry_after_ms?: number | null;
  retryable: boolean;
};

/** The answer to a request that was refused or failed. */
export type Failure = {
  error: ErrorBody;
  ok: false;
};

/**
 * A forwarded message, as it was when it was forwarded. Once the original is deleted, its text is not shown any
 * more.
 */
export type Forward = {
  /** The author of the original. */
  author: Author;
  /** The text of the original; empty if it is deleted. */
  body: string;
  /** The channel of the original. */
  channel_id: string;
  /** How clients render the text. */
  content_type: ContentType;
  /** When the original was written. */
  created_at: string;
  /** When the original was deleted; of one that is gone altogether, when it was written. */
  deleted_at: string | null;
  /** The original. */
  id: string;
};

/** The field `forward_of` of `message:send`. */
export type ForwardOf = {
  channel_id: string;
  message_id: string;
};

/** A page of history, oldest message first. It ends early when it reaches its limit in bytes. */
export type HistoryAnswer = {
  /** Whether newer messages exist. */
  has_more_after: boolean;
  /** Whether older messages exist. */
  has_more_before: boolean;
  /** The messages. Deleted ones have no body. */
  messages: Array<Message>;
  /** The first and last `seq` of the page; `None` if it is empty. */
  seq_range: [number, number] | null;
};

/** The payload of `history`. */
export type HistoryRequest = {
  after?: string | null;
  around?: string | null;
  before?: string | null;
  channel_id: string;
  limit?: number;
  thread_id?: string | null;
};

/** A key package as its owner publishes it. Its text is opaque to the server. */
export type KeyPackage = {
  /** The owner's name for it, for example its hash. */
  id: string;
  /** Whether it is handed out again and again when no other is left. */
  last_resort?: boolean;
  /** The package. */
  package: string;
};

/** The answer to `keypackage:claim`. */
export type KeypackageClaimAnswer = {
  /** The users who are no members of the channel, or have no package left. */
  missing: Array<string>;
  /** One package of each device of these users. */
  packages: Array<ClaimedPackage>;
};

/** The payload of `keypackage:claim`. */
export type KeypackageClaimRequest = {
  channel_id: string;
  user_ids: Array<string>;
};

/** The answer to `keypackage:publish`. */
export type KeypackagePublishAnswer = {
  /** The packages of the device that can be handed out, without that of last resort. */
  available: number;
};

/** The payload of `keypackage:publish`. */
export type KeypackagePublishRequest = {
  device_id: string;
  /** May be empty, to learn how many there are. */
  packages: Array<KeyPackage>;
};

/** A message that mentions a user, and why. */
export type Mention = {
  /** The first reason of: by name, by role, as online, as everybody. */
  kind: MentionKind;
  /** The message, as the user sees it. */
  message: Message;
};

/** Why a message mentions a user. */
export type MentionKind = "user" | "role" | "channel" | "here";

/** The payload of `mention:new`. */
export type MentionNewEvent = {
  author: Author;
  channel_id: string;
  kind: MentionKind;
  message_id: string;
  seq: number;
  thread_id: string | null;
};

/** The mentions of a message: at most `MENTIONED_USERS_MAX` users and `MENTIONED_ROLES_MAX` roles. */
export type Mentions = {
  /** Whether everybody in the channel is mentioned. */
  channel: boolean;
  /** Whether everybody who is online is mentioned. */
  here: boolean;
  /** The mentioned roles. */
  roles: Array<string>;
  /** The mentioned users. */
  users: Array<string>;
};

/** The mentions of a message: at most `MENTIONED_USERS_MAX` users and `MENTIONED_ROLES_MAX` roles. */
export type MentionsInput = {
  /** Whether everybody in the channel is mentioned. */
  channel?: boolean;
  /** Whether everybody who is online is mentioned. */
  here?: boolean;
  /** The mentioned roles. */
  roles?: Array<string>;
  /** The mentioned users. */
  users?: Array<string>;
};

/** A page of an inbox. */
export type MentionsListAnswer = {
  /** The messages, newest first. */
  mentions: Array<Mention>;
  /** The `before` of the next page; `None` after the last one. */
  next: string | null;
};

/** The payload of `mentions:list`. */
export type MentionsListRequest = {
  /** Only messages that are older than this one. */
  before?: string | null;
  limit?: number;
};

/**
 * A message as everybody in the channel sees it: the payload of `message:new`, field for field
 * (docs/protocol.md). Contains nothing that depends on the reader.
 */
export type Message = {
  /** How many users have acknowledged it. */
  ack_count: number;
  /** Whether readers are asked to acknowledge the message. */
  ack_requested: boolean;
  /** True where the reader has; not in events. */
  acked?: boolean | null;
  attachment_count: number;
  attachments: Array<Attachment>;
  author: Author;
  /** Empty for a deleted message. */
  body: string;
  channel_id: string;
  content_type: ContentType;
  created_at: string;
  deleted_at: string | null;
  edited_at: string | null;
  embeds: Array<Embed>;
  expires_at: string | null;
  flags: number;
  forward_of: Forward | null;
  id: string;
  mentions: Mentions;
  /** Only on notices of the system. */
  metadata?: Record<string, unknown> | null;
  nonce: string | null;
  pinned: boolean;
  poll: Poll | null;
  priority: Priority;
  reactions: Record<string, ReactionTotal>;
  reply_to: ReplyPreview | null;
  reply_to_message_id: string | null;
  seq: number;
  /** Null for a message that was complete when it was sent. */
  stream: Stream | null;
  thread: ThreadState | null;
  thread_id: string | null;
  type: MessageType;
  version: number;
};

/** The answer to `message:ack`. */
export type MessageAckAnswer = {
  /** How many users have acknowledged it. */
  ack_count: number;
  /** When the caller acknowledged it. */
  acked_at: string;
  /** The message. */
  message_id: string;
  /** The number of the message's last change. */
  rev: number;
};

/** The payload of `message:ack`. */
export type MessageAckRequest = {
  channel_id: string;
  message_id: string;
};

/** The answer to `message:acks`. */
export type MessageAcksAnswer = {
  /** How many users have acknowledged the message. */
  ack_count: number;
  /** The `cursor` of the next page; null after the last one. */
  next: string | null;
  users: Array<AckedBy>;
};

/** The payload of `message:acks`. */
export type MessageAcksRequest = {
  channel_id: string;
  /** The `next` of the page before. */
  cursor?: string | null;
  limit?: number;
  message_id: string;
  state?: AckState;
};

/** The payload of `message:append`. */
export type MessageAppendEvent = {
  channel_id: string;
  id: string;
  /** The number of characters before the piece. */
  offset: number;
  text: string;
};

/** The answer to `message:delete`. */
export type MessageDeleteAnswer = {
  deleted_at: string;
  message_id: string;
  rev: number;
};

/** The outcome of `DeleteMessages`: the answer to `message:delete_bulk`. */
export type MessageDeleteBulkAnswer = {
  /** The messages that were deleted. */
  deleted: Array<string>;
  /** The messages that do not exist in the channel, or were deleted before. */
  skipped: Array<string>;
};

/** The payload of `message:delete_bulk`. */
export type MessageDeleteBulkRequest = {
  channel_id: string;
  message_ids: Array<string>;
};

/** The payload of `message:delete`. */
export type MessageDeleteRequest = {
  channel_id: string;
  message_id: string;
};

/** The payload of a change event: the feature's payload, the number of the change, and a name for traces. */
export type MessageDeletedEvent = {
  channel_id: string;
  deleted_at: string;
  deleted_by: string;
  event_id: string;
  id: string;
  rev: number;
  seq: number;
  thread_id: string | null;
};

/** An earlier text that an edit replaced. */
export type MessageEdit = {
  /** The text. */
  body: string;
  /** When the text was replaced. */
  edited_at: string;
  /** The user who replaced the text. */
  editor_id: string;
  /** The version that had this text. */
  version: number;
};

/** The answer to `message:edit`. */
export type MessageEditAnswer = {
  message: Message;
  rev: number;
};

/** The payload of `message:edit`. */
export type MessageEditRequest = {
  /** All files that the message has from now on. */
  attachments?: Array<string> | null;
  body: string;
  channel_id: string;
  expected_version?: number | null;
  mentions?: MentionsInput | null;
  message_id: string;
};

/** The answer to `message:edits`: the earlier texts, newest first. */
export type MessageEditsAnswer = {
  edits: Array<MessageEdit>;
};

/** The payload of `message:edits`. */
export type MessageEditsRequest = {
  channel_id: string;
  message_id: string;
};

/** The payload of `message:ephemeral`. */
export type MessageEphemeralEvent = {
  author: Author;
  body: string;
  channel_id: string;
  content_type: ContentType;
  created_at: string;
  flags: number;
  id: string;
  mentions: Mentions;
  reply_to_message_id: string | null;
  thread_id: string | null;
  type: MessageType;
};

/** The answer to `message:get`. */
export type MessageGetAnswer = {
  messages: Array<Message>;
  /** Whether some messages did not fit, so that the client has to request them again. */
  more: boolean;
};

/** The payload of `message:get`. */
export type MessageGetRequest = {
  channel_id: string;
  message_ids: Array<string>;
};

export type MessageNewEvent = Message;

/** The answer to `message:report`. */
export type MessageReportAnswer = {
  report_id: string;
};

/** The payload of `message:report`. */
export type MessageReportRequest = {
  channel_id: string;
  message_id: string;
  note?: string | null;
  reason: string;
};

/** The answer to `message:send`. */
export type MessageSendAnswer = {
  duplicate: boolean;
  message: Message;
};

/** The payload of `message:send`. */
export type MessageSendRequest = {
  /** Whether readers are asked to acknowledge the message. */
  ack_requested?: boolean;
  also_send_to_channel?: boolean;
  attachments?: Array<string>;
  /** May be missing only in a message that forwards another one or that is streamed. */
  body?: string | null;
  channel_id: string;
  /** Whether the draft in the same channel and thread is cleared in the same transaction. */
  clear_draft?: boolean;
  content_type?: ContentType;
  embeds?: Array<EmbedInput>;
  expect?: {
    last_seq: number;
  } | {
    key: string;
    value: string;
    version: number;
  } | null;
  /** When the message deletes itself. */
  expires_at?: string | null;
  flags?: number;
  forward_of?: ForwardOf | null;
  mentions?: MentionsInput | null;
  nonce?: string | null;
  poll?: StartPoll | null;
  priority?: Priority;
  reply_to_message_id?: string | null;
  /** Whether the text arrives piece by piece, by `stream:append`. */
  stream?: boolean;
  thread_id?: string | null;
};

/** The `type` of a message. */
export type MessageType = "default" | "reply" | "poll" | "bot" | "webhook" | "call" | "e2ee" | "forwarded" | "system_join" | "system_leave" | "system_rename" | "system_pin";

/** The payload of a change event: the feature's payload, the number of the change, and a name for traces. */
export type MessageUpdatedEvent = {
  /** How many users have acknowledged it. */
  ack_count: number;
  /** Whether readers are asked to acknowledge the message. */
  ack_requested: boolean;
  /** True where the reader has; not in events. */
  acked?: boolean | null;
  attachment_count: number;
  attachments: Array<Attachment>;
  author: Author;
  /** Empty for a deleted message. */
  body: string;
  channel_id: string;
  content_type: ContentType;
  created_at: string;
  deleted_at: string | null;
  edited_at: string | null;
  embeds: Array<Embed>;
  event_id: string;
  expires_at: string | null;
  flags: number;
  forward_of: Forward | null;
  id: string;
  kind: string;
  mentions: Mentions;
  /** Only on notices of the system. */
  metadata?: Record<string, unknown> | null;
  nonce: string | null;
  pinned: boolean;
  poll: Poll | null;
  priority: Priority;
  reactions: Record<string, ReactionTotal>;
  reply_to: ReplyPreview | null;
  reply_to_message_id: string | null;
  rev: number;
  seq: number;
  /** Null for a message that was complete when it was sent. */
  stream: Stream | null;
  thread: ThreadState | null;
  thread_id: string | null;
  type: MessageType;
  version: number;
};

/** What an answer says beside its data. */
export type Meta = {
  request_id: string;
  server_time: string;
  /** The span of the request in the server's traces, as W3C writes it. Only of requests that are traced. */
  traceparent?: string | null;
};

/** A pin, as the list of a channel's pins shows it. */
export type Pin = {
  /** The message. */
  message_id: string;
  /** When it was pinned. */
  pinned_at: string;
  /** The user who pinned it. */
  pinned_by: string;
};

/** Whether a message is pinned: the answer to `pin:add` and `pin:remove`. */
export type PinAddAnswer = {
  /** The message. */
  message_id: string;
  /** The number of pinned messages in the channel. */
  pin_count: number;
  /** Whether it is pinned. */
  pinned: boolean;
  /** The number of the message's last change. */
  rev: number;
};

/** The payload of `pin:add` and `pin:remove`. */
export type PinAddRequest = {
  channel_id: string;
  message_id: string;
};

/** The answer to `pin:list`. */
export type PinListAnswer = {
  /** The pinned messages, the oldest message first. */
  messages: Array<Message>;
  /** Whether some messages did not fit, so that the client has to request them with `message:get`. */
  more: boolean;
  /** The pins, the newest first. */
  pins: Array<Pin>;
};

/** The payload of `pin:list`. */
export type PinListRequest = {
  channel_id: string;
};

/** Whether a message is pinned: the answer to `pin:add` and `pin:remove`. */
export type PinRemoveAnswer = {
  /** The message. */
  message_id: string;
  /** The number of pinned messages in the channel. */
  pin_count: number;
  /** Whether it is pinned. */
  pinned: boolean;
  /** The number of the message's last change. */
  rev: number;
};

/** The payload of `pin:add` and `pin:remove`. */
export type PinRemoveRequest = {
  channel_id: string;
  message_id: string;
};

/** The payload of a change event: the feature's payload, the number of the change, and a name for traces. */
export type PinUpdatedEvent = {
  channel_id: string;
  event_id: string;
  message_id: string;
  pin_count: number;
  pinned: boolean;
  rev: number;
};

/** The answer to `ping`. */
export type PingAnswer = {
  server_time: string;
  t: unknown;
};

/** The payload of `ping`; `t` is echoed unchanged. */
export type PingRequest = {
  t?: unknown;
};

export type Poll = {
  allow_change: boolean;
  anonymous: boolean;
  closed_at: string | null;
  closes_at: string | null;
  hide_results: boolean;
  is_final: boolean;
  max_choices: number;
  /** What the reader chose; not in events. */
  my_votes?: Array<number>;
  options: Array<PollOption>;
  question: string;
  total_voters: number;
  /** Null while the results are hidden. */
  total_votes: number | null;
};

/** A poll after a vote or its end: the answer to `poll:vote` and `poll:close`. */
export type PollCloseAnswer = {
  /** The message of the poll. */
  message_id: string;
  /** The poll, with what the caller chose. */
  poll: Poll;
  /** The number of the message's last change. */
  rev: number;
};

/** The payload of `poll:close`. */
export type PollCloseRequest = {
  channel_id: string;
  message_id: string;
};

export type PollOption = {
  id: number;
  text: string;
  /** Null while the results are hidden. */
  votes: number | null;
};

/** The payload of a change event: the feature's payload, the number of the change, and a name for traces. */
export type PollUpdatedEvent = {
  channel_id: string;
  event_id: string;
  message_id: string;
  poll: Poll;
  rev: number;
};

/** A poll after a vote or its end: the answer to `poll:vote` and `poll:close`. */
export type PollVoteAnswer = {
  /** The message of the poll. */
  message_id: string;
  /** The poll, with what the caller chose. */
  poll: Poll;
  /** The number of the message's last change. */
  rev: number;
};

/** The payload of `poll:vote`. */
export type PollVoteRequest = {
  channel_id: string;
  message_id: string;
  /** Everything that the caller chooses; empty to take the vote back. */
  option_ids: Array<number>;
};

/** The answer to `poll:voters`: users by id. */
export type PollVotersAnswer = {
  /** The `after` of the next page; null after the last one. */
  next: string | null;
  user_ids: Array<string>;
};

/** The payload of `poll:voters`. */
export type PollVotersRequest = {
  after?: string | null;
  channel_id: string;
  message_id: string;
  option_id: number;
};

/** The presence of a user: the payload of `presence:update`. */
export type Presence = {
  /** When a device was last active, to the minute; `None` if that is not known. */
  last_active_at: string | null;
  status: PresenceStatus;
  user_id: string;
  /** Grows with each change; greater after a restart too. */
  version: number;
};

export type PresenceActiveAnswer = Record<string, never>;

/** The payload of `presence:active`. */
export type PresenceActiveRequest = Record<string, never>;

/** What a user has chosen to show. */
export type PresenceChoice = "online" | "idle" | "dnd" | "invisible";

/** The answer to `presence:list`: the users in the channel who are not offline, on all nodes, by id. */
export type PresenceListAnswer = {
  /** The `cursor` of the next page; null after the last one. */
  next: string | null;
  presences: Array<Presence>;
};

/** The payload of `presence:list`. */
export type PresenceListRequest = {
  channel_id: string;
  cursor?: string | null;
};

/** The answer to `presence:set`, and the payload of `presence:own`. */
export type PresenceOwnEvent = {
  status: PresenceChoice;
  until: string | null;
};

/** The answer to `presence:set`, and the payload of `presence:own`. */
export type PresenceSetAnswer = {
  status: PresenceChoice;
  until: string | null;
};

/** The payload of `presence:set`. */
export type PresenceSetRequest = {
  status: PresenceChoice;
  until?: string | null;
};

/** What others see of a user. */
export type PresenceStatus = "online" | "idle" | "dnd" | "offline";

/** The answer to `presence:subscribe`. Users who share no channel with the caller are left out. */
export type PresenceSubscribeAnswer = {
  presences: Array<Presence>;
};

/** The payload of `presence:subscribe` and `presence:unsubscribe`. */
export type PresenceSubscribeRequest = {
  user_ids: Array<string>;
};

export type PresenceUnsubscribeAnswer = Record<string, never>;

/** The payload of `presence:subscribe` and `presence:unsubscribe`. */
export type PresenceUnsubscribeRequest = {
  user_ids: Array<string>;
};

export type PresenceUpdateEvent = Presence;

/** The value that a key has instead of the expected one; none for a key that does not exist. */
export type PresentKey = {
  value: string | null;
  version: number;
};

/** How much a message matters to its readers. */
export type Priority = "normal" | "important" | "urgent";

/** The `action` of `reaction:updated`. */
export type ReactionAction = "add" | "remove";

/** The total of one emoji on a message: the answer to `reaction:add` and `reaction:remove`. */
export type ReactionAddAnswer = {
  /** The number of users who reacted with the emoji. */
  count: number;
  /** The emoji. */
  emoji: string;
  /** The message. */
  message_id: string;
  /** The number of the message's last change. */
  rev: number;
};

/** The payload of `reaction:add`. */
export type ReactionAddRequest = {
  channel_id: string;
  emoji: string;
  message_id: string;
};

/** One of several reactions that were committed together. */
export type ReactionChange = {
  action: ReactionAction;
  emoji: string;
  user_id: string;
};

/** The total of one emoji on a message: the answer to `reaction:add` and `reaction:remove`. */
export type ReactionRemoveAnswer = {
  /** The number of users who reacted with the emoji. */
  count: number;
  /** The emoji. */
  emoji: string;
  /** The message. */
  message_id: string;
  /** The number of the message's last change. */
  rev: number;
};

/** The payload of `reaction:remove`. */
export type ReactionRemoveRequest = {
  channel_id: string;
  emoji: string;
  message_id: string;
  /** The user whose reaction to remove; the caller if absent. */
  user_id?: string | null;
};

/** The number of users who reacted with an emoji, and some of them. */
export type ReactionTotal = {
  count: number;
  /** Whether the reader is one of the users. Never stored or broadcast. */
  me?: boolean;
  /** Up to `USERS_SHOWN` of the users. */
  user_ids: Array<string>;
};

/** The payload of a change event: the feature's payload, the number of the change, and a name for traces. */
export type ReactionUpdatedEvent = {
  action: ReactionAction;
  changes?: Array<ReactionChange>;
  channel_id: string;
  count: number;
  emoji: string;
  event_id: string;
  message_id: string;
  reactions: Record<string, ReactionTotal>;
  rev: number;
  user_id: string;
};

/** The answer to `read:mark_all`. */
export type ReadMarkAllAnswer = {
  /** The number of channels whose position moved. */
  updated: number;
};

/** The payload of `read:mark_all`. */
export type ReadMarkAllRequest = {
  /** The channels; all of the caller's if absent. */
  channel_ids?: Array<string> | null;
};

/** The answer to `read:mark`. */
export type ReadMarkAnswer = {
  mention_count: number;
  read_seq: number;
  unread_count: number;
};

/** The payload of `read:mark`. */
export type ReadMarkRequest = {
  channel_id: string;
  seq: number;
  thread_id?: string | null;
};

/** The answer to `read:mark`. */
export type ReadMarkUnreadAnswer = {
  mention_count: number;
  read_seq: number;
  unread_count: number;
};

/** The payload of `read:mark_unread`. */
export type ReadMarkUnreadRequest = {
  channel_id: string;
  from_seq: number;
};

/** The answer to `read:receipts`: users by id. */
export type ReadReceiptsAnswer = {
  /** The `after` of the next page; null after the last one. */
  next: string | null;
  user_ids: Array<string>;
};

/** The payload of `read:receipts`. */
export type ReadReceiptsRequest = {
  after?: string | null;
  channel_id: string;
  seq: number;
};

/** A user's read position in a channel, and how much it leaves unread. */
export type ReadState = {
  /** The channel. */
  channel_id: string;
  /** The number of unread messages that mention the reader: by name, by role, as online or as everybody. */
  mention_count: number;
  /** The number of the newest message that was read. */
  read_seq: number;
  /** The number of later messages of others, without deleted ones and those only in threads. */
  unread_count: number;
  /** The number of this position in the user's own stream (table `user_state`); 0 if it was never marked. */
  user_rev: number;
};

export type ReadUpdatedEvent = {
  channel_id: string;
  mention_count: number;
  read_seq: number;
  thread_id: string | null;
  unread_count: number;
  user_rev: number;
} | {
  channel_id: string;
  read_seq: number;
  user_id: string;
};

/** The payload of `read:updated_many`. */
export type ReadUpdatedManyEvent = {
  read_states: Array<ReadState>;
};

/** The message that a reply quotes, in its current state: edits are shown, and a deleted message has no body. */
export type ReplyPreview = {
  /** The author of the message. */
  author: Author;
  /** The first `PREVIEW_CHARS` characters of the message; empty if it is deleted or encrypted. */
  body: string;
  /** When the message was written. */
  created_at: string;
  /** When the message was deleted. */
  deleted_at: string | null;
  /** The message. */
  id: string;
  /** The number of the message in its channel. */
  seq: number;
};

/** A report, as moderators see it. */
export type Report = {
  author_id: string;
  /** The text of the message when it was reported. */
  body: string;
  channel_id: string;
  created_at: string;
  id: string;
  message_id: string;
  note: string | null;
  reason: string;
  reporter_id: string;
};

/** The answer to `report:list`: reports, the newest first. */
export type ReportListAnswer = {
  /** The `before` of the next page; null after the last one. */
  next: string | null;
  reports: Array<Report>;
};

/** The payload of `report:list`. */
export type ReportListRequest = {
  before?: string | null;
  channel_id: string;
};

/** The answer to `schedule:create`, `schedule:get`, `schedule:update` and `schedule:cancel`. */
export type ScheduleCancelAnswer = {
  /** Whether a request with the same nonce created it before. */
  duplicate?: boolean;
  scheduled: Scheduled;
};

/** The payload of `schedule:cancel`. */
export type ScheduleCancelRequest = {
  expected_version?: number | null;
  id: string;
};

/** The answer to `schedule:create`, `schedule:get`, `schedule:update` and `schedule:cancel`. */
export type ScheduleCreateAnswer = {
  /** Whether a request with the same nonce created it before. */
  duplicate?: boolean;
  scheduled: Scheduled;
};

/** The payload of `schedule:create`: when to send, beside the payload of `message:send`. */
export type ScheduleCreateRequest = {
  /** Whether readers are asked to acknowledge the message. */
  ack_requested?: boolean;
  also_send_to_channel?: boolean;
  attachments?: Array<string>;
  /** May be missing only in a message that forwards another one or that is streamed. */
  body?: string | null;
  channel_id: string;
  /** Whether the draft in the same channel and thread is cleared in the same transaction. */
  clear_draft?: boolean;
  content_type?: ContentType;
  embeds?: Array<EmbedInput>;
  expect?: {
    last_seq: number;
  } | {
    key: string;
    value: string;
    version: number;
  } | null;
  /** When the message deletes itself. */
  expires_at?: string | null;
  flags?: number;
  forward_of?: ForwardOf | null;
  mentions?: MentionsInput | null;
  nonce?: string | null;
  poll?: StartPoll | null;
  priority?: Priority;
  reply_to_message_id?: string | null;
  send_at: string;
  /** Whether the text arrives piece by piece, by `stream:append`. */
  stream?: boolean;
  thread_id?: string | null;
};

/** The answer to `schedule:create`, `schedule:get`, `schedule:update` and `schedule:cancel`. */
export type ScheduleGetAnswer = {
  /** Whether a request with the same nonce created it before. */
  duplicate?: boolean;
  scheduled: Scheduled;
};

/** The payload of `schedule:get`. */
export type ScheduleGetRequest = {
  id: string;
};

/** The answer to `schedule:list`: scheduled messages, the last changed first. */
export type ScheduleListAnswer = {
  /** The `before` of the next page; null after the last one. */
  next: number | null;
  scheduled: Array<Scheduled>;
};

/** The payload of `schedule:list`. */
export type ScheduleListRequest = {
  before?: number | null;
  state?: ScheduledState | null;
};

/** The answer to `schedule:create`, `schedule:get`, `schedule:update` and `schedule:cancel`. */
export type ScheduleUpdateAnswer = {
  /** Whether a request with the same nonce created it before. */
  duplicate?: boolean;
  scheduled: Scheduled;
};

/** The payload of `schedule:update`: what to change. An absent field stays as it is. */
export type ScheduleUpdateRequest = {
  /** Whether readers are asked to acknowledge the message. */
  ack_requested?: boolean;
  also_send_to_channel?: boolean;
  attachments?: Array<string>;
  /** May be missing only in a message that forwards another one or that is streamed. */
  body?: string | null;
  channel_id?: string;
  /** Whether the draft in the same channel and thread is cleared in the same transaction. */
  clear_draft?: boolean;
  content_type?: ContentType;
  embeds?: Array<EmbedInput>;
  expect?: {
    last_seq: number;
  } | {
    key: string;
    value: string;
    version: number;
  } | null;
  expected_version?: number | null;
  /** When the message deletes itself. */
  expires_at?: string | null;
  flags?: number;
  forward_of?: ForwardOf | null;
  id: string;
  mentions?: MentionsInput | null;
  nonce?: string | null;
  poll?: StartPoll | null;
  priority?: Priority;
  reply_to_message_id?: string | null;
  send_at?: string | null;
  /** Whether the text arrives piece by piece, by `stream:append`. */
  stream?: boolean;
  thread_id?: string | null;
};

export type ScheduleUpdatedEvent = Scheduled;

/** A scheduled message, as the devices of its author see it: the payload of `schedule:updated`. */
export type Scheduled = {
  channel_id: string;
  created_at: string;
  error: string | null;
  id: string;
  /** The payload of `message:send` as JSON. */
  message: Record<string, unknown>;
  message_id: string | null;
  send_at: string;
  state: ScheduledState;
  updated_at: string;
  user_rev: number;
  version: number;
};

/** The state of a scheduled message. */
export type ScheduledState = "pending" | "dispatching" | "sent" | "failed" | "cancelled";

/** The answer to `search`: messages, newest first. */
export type SearchAnswer = {
  messages: Array<Message>;
  /** The `cursor` of the next page; null at the end. */
  next: string | null;
};

/** What a message can have besides its text. */
export type SearchHas = "link" | "attachment" | "poll";

/** The payload of `search`. */
export type SearchRequest = {
  after?: string | null;
  before?: string | null;
  channel_ids?: Array<string> | null;
  cursor?: string | null;
  from?: string | null;
  has?: Array<SearchHas> | null;
  limit?: number;
  mentions?: string | null;
  q?: string;
};

export type ServerInfo = {
  name: string;
  node: string;
  version: string;
};

/** The payload of `server:shutdown`. */
export type ServerShutdownEvent = {
  /** Why the server stops. */
  reason: string;
  /** The delay before reconnecting; it differs between clients, so that they do not all reconnect at once. */
  reconnect_after_ms: number;
};

/** The payload of `session:channels`. */
export type SessionChannelsEvent = {
  channels: Array<ChannelState>;
  channels_complete: boolean;
};

/** The payload of `session:ended`. */
export type SessionEndedEvent = {
  message?: string | null;
  reason: string;
  /** Whether the client may come back, as a stock client does by itself. */
  reconnect: boolean;
};

/** What a session gets of its channels when it begins. */
export type SessionMode = "full" | "light";

/** The payload of `session:ready`. */
export type SessionReadyEvent = {
  channels: Array<ChannelState>;
  channels_complete: boolean;
  client?: ClientInfo | null;
  /** The id of this connection, which no other one has. */
  connection_id: string;
  feature_level: number;
  limits: Record<string, number>;
  mode: SessionMode;
  protocol: number;
  resumed: boolean;
  server: ServerInfo;
  server_time: string;
  /** The session that the token belongs to. Where its issuer names none, the id of this connection. */
  session_id: string;
  token_expires_at: string;
  user: SessionUser;
};

export type SessionUser = {
  id: string;
  username: string;
};

/** The field `poll` of `message:send`. */
export type StartPoll = {
  allow_change?: boolean;
  anonymous?: boolean;
  closes_at?: string | null;
  hide_results?: boolean;
  /** The most options that one voter may choose. */
  max_choices?: number;
  options: Array<string>;
  question: string;
};

/** How far a streamed message has come. */
export type Stream = {
  /** The number of characters of the text so far: where the next piece goes. */
  offset: number;
  /** The state. */
  state: StreamState;
};

/** The answer to `stream:finish` and `stream:abort`. */
export type StreamAbortAnswer = {
  message: Message;
  rev: number;
};

/** The payload of `stream:finish` and `stream:abort`. */
export type StreamAbortRequest = {
  channel_id: string;
  message_id: string;
  /** The number of characters that the text must have. */
  offset?: number | null;
};

export type StreamAppendAnswer = Stream;

/** The payload of `stream:append`. */
export type StreamAppendRequest = {
  channel_id: string;
  message_id: string;
  /** The number of characters before the text. */
  offset: number;
  /** What to add; empty to only renew the lease. */
  text: string;
};

/** The answer to `stream:finish` and `stream:abort`. */
export type StreamFinishAnswer = {
  message: Message;
  rev: number;
};

/** The payload of `stream:finish` and `stream:abort`. */
export type StreamFinishRequest = {
  channel_id: string;
  message_id: string;
  /** The number of characters that the text must have. */
  offset?: number | null;
};

/** What becomes of a message whose text arrives piece by piece. */
export type StreamState = "active" | "finished" | "aborted" | "interrupted";

/** The numbers of a channel whose room was entered. */
export type SubscribedChannel = {
  channel_id: string;
  error?: ErrorBody | null;
  horizon_id?: string | null;
  horizon_seq?: number;
  last_message_id?: string | null;
  last_seq?: number;
  ok: boolean;
  rev?: number;
};

/** The answer to `sync`. */
export type SyncAnswer = {
  channels: Array<ChannelSync>;
  /** Whether some channels were not answered, so that the client has to request them again. */
  more: boolean;
  /** Channels that the user may not read, or no longer. */
  removed_channels: Array<string>;
  user: UserSync;
};

/** The last message and change of a channel that a client has. */
export type SyncCursor = {
  /** The channel. */
  channel_id: string;
  /** The number of the newest change that the client has. */
  rev: number;
  /** The number of the newest message that the client has. */
  seq: number;
};

/** Why clients should `sync`. */
export type SyncReason = "gap";

/** The payload of `sync`. */
export type SyncRequest = {
  channels: Array<SyncCursor>;
  limit_per_channel?: number;
  total_limit?: number;
  /** The number of the newest change of the caller's own data that the client has; 0 for none. */
  user_rev?: number | null;
};

/** The payload of `sync:required`: clients should `sync` these channels. */
export type SyncRequiredEvent = {
  channel_ids: Array<string>;
  reason: SyncReason;
};

export type ThreadFollowAnswer = ThreadMember;

/** The payload of `thread:follow` and `thread:unfollow`. */
export type ThreadFollowRequest = {
  channel_id: string;
  thread_id: string;
};

/** The answer to `thread:followed`. */
export type ThreadFollowedAnswer = {
  /** The `before` of the next page; null after the last one. */
  next: number | null;
  threads: Array<ThreadMember>;
};

/** The payload of `thread:followed`. */
export type ThreadFollowedRequest = {
  before?: number | null;
  limit?: number;
  /** Whether to leave out threads without unread replies. */
  unread?: boolean;
};

/** The answer to `thread:list`. */
export type ThreadListAnswer = {
  /** The `before` of the next page; null after the last one. */
  next: number | null;
  /** The first messages of the threads, the thread with the newest reply first. */
  threads: Array<Message>;
};

/** The payload of `thread:list`. */
export type ThreadListRequest = {
  /** Only threads whose newest reply has a smaller `seq`. */
  before?: number | null;
  channel_id: string;
  limit?: number;
};

/** A user's position in a thread: an entry of `user.threads` in `sync`, and the payload of `thread:state`. */
export type ThreadMember = {
  /** The channel of the thread. */
  channel_id: string;
  /** Whether the user follows the thread. */
  following: boolean;
  /** The number of the newest reply; 0 if there is none. */
  last_reply_seq: number;
  /** The number of unread replies that mention the user directly. */
  mention_count: number;
  /** The number of the newest reply that was read. */
  read_seq: number;
  /** The first message of the thread. */
  thread_id: string;
  /** The number of later replies of others that are not deleted. */
  unread_count: number;
  /** The number of the last change of this row in the user's stream. */
  user_rev: number;
};

/** The state of a thread, as its first message shows it. */
export type ThreadState = {
  last_reply_at: string;
  last_reply_seq: number;
  participant_ids: Array<string>;
  reply_count: number;
};

export type ThreadStateEvent = ThreadMember;

export type ThreadUnfollowAnswer = ThreadMember;

/** The payload of `thread:follow` and `thread:unfollow`. */
export type ThreadUnfollowRequest = {
  channel_id: string;
  thread_id: string;
};

/** The payload of a change event: the feature's payload, the number of the change, and a name for traces. */
export type ThreadUpdatedEvent = {
  channel_id: string;
  event_id: string;
  last_reply_at: string;
  last_reply_seq: number;
  participant_ids: Array<string>;
  reply_count: number;
  rev: number;
  thread_id: string;
};

/** The payload of `typing`. */
export type TypingEvent = {
  channel_id: string;
  /** How long to show it without a further event; 0 if `typing` is false. */
  expires_in_ms: number;
  thread_id: string | null;
  typing: boolean;
  user: Author;
};

/** The answer to `typing:start`. */
export type TypingStartAnswer = {
  /** How long others see it without a further `typing:start`; 0 if they do not see it. */
  expires_in_ms: number;
};

/** The payload of `typing:start` and `typing:stop`. */
export type TypingStartRequest = {
  channel_id: string;
  thread_id?: string | null;
};

/** The answer to `typing:stop`. */
export type TypingStopAnswer = Record<string, never>;

/** The payload of `typing:start` and `typing:stop`. */
export type TypingStopRequest = {
  channel_id: string;
  thread_id?: string | null;
};

/** How to upload a file: one HTTP request. */
export type Upload = {
  /** When the address stops being valid. */
  expires_at: string;
  /** The headers that the request must have. */
  headers: Record<string, string>;
  /** The method. */
  method: string;
  /** The address; a path is one of this server. */
  url: string;
};

/** The part that belongs to the user rather than to a channel. */
export type UserSync = {
  bookmarks: Array<Bookmark>;
  drafts: Array<Draft>;
  /** Whether there are more of these four after `rev`. */
  more: boolean;
  read_states: Array<ReadState>;
  /** Whether the client has to discard the drafts, bookmarks, threads and scheduled messages that it has. */
  reset: boolean;
  rev: number;
  scheduled: Array<Scheduled>;
  threads: Array<ThreadMember>;
};
