//! HTTP long-polling. A request passes itself to the connection through a slot of the inbox and waits. The
//! connection answers when it runs.

mod inbox;
pub(crate) mod jsonp;
mod payload;
mod requests;

pub(crate) use self::inbox::{GetReply, Inbox, Inputs, Post, PostReply, Refusal};
pub(crate) use self::payload::Payload;
pub(crate) use self::requests::{PendingGet, PendingPost};
