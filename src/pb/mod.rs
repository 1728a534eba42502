//! The generated code of both contracts, and [`CoreClient`], the client side of the core, which adds TLS, several
//! addresses, deadlines and retries.

mod breaker;
mod channel;
mod client;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
pub mod json;
mod login;
mod members;
pub mod metrics;
mod optional;
mod parse;
mod traced;
mod types;
mod watch;

pub use breaker::Breaker;
pub use client::{Config, CoreClient, IDS_MAX};
pub use types::{
    Allowed, ChannelInfo, CustomEmoji, Effective, Enqueued, IncomingWebhook, Membership, Notification,
    NotifyLevel, Revocation, SigningAlgorithm, SigningKey, UserInfo, Verdict,
};
pub use watch::{Change, Watch, WatchKind};

/// The messages, clients and server traits generated from `proto/core/v1`.
#[allow(missing_docs, clippy::all, clippy::pedantic, clippy::restriction, rust_2018_idioms)]
pub mod v1 {
    tonic::include_proto!("core.v1");

    impl Permission {
        /// Returns the bit of the permission in `Effective.bits`, or `None` for `Unspecified`.
        pub fn bit(self) -> Option<u64> {
            u32::try_from(self as i32).ok()?.checked_sub(1).map(|position| 1 << position)
        }
    }
}

/// The messages and the client generated from `proto/imks/v1`, for those who call imks. The messages are also the
/// requests and answers of the HTTP API under `/api/v1/admin`: [`json`] says how they look there.
#[allow(missing_docs, clippy::all, clippy::pedantic, clippy::restriction, rust_2018_idioms)]
pub mod control {
    tonic::include_proto!("imks.v1");

    /// The file descriptors of the package, for reflection.
    pub const DESCRIPTORS: &[u8] = tonic::include_file_descriptor_set!("imks.v1");
}
