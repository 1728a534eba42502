//! HTTP long-polling.

pub(crate) mod jsonp;
mod requests;

pub(crate) use requests::{Inbox, Inputs, Payload, PendingGet, PendingPost, Polling, Post, Refusal, offer};
