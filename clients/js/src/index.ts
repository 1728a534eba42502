//! A client for the messaging half of imks, over the stock client of Socket.IO.

export { createClient, Channel, Client, type ClientEvents, type ClientOptions, type Draft } from "./client.js";
export type { ConnectionOptions, ImksSocket, State, StateChange, Token, TokenReason } from "./connection.js";
export { ImksError, type ClientErrorCode } from "./error.js";
export type { ChannelEvent, Cursor, UpdateKind } from "./merge.js";
export type { RequestData, RequestOptions, RequestPayload } from "./requests.js";
export { MemoryStore, WebStorageStore, type OutboxEntry, type OutboxStore, type WebStorage } from "./store.js";
export type { MessagesOptions, MessageStream } from "./stream.js";
export { apply } from "./timeline.js";
export type * from "./imks.js";
