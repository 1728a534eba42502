//! Who is this ([`Authenticator`]), and may they ([`Permissions`]).
//!
//! Tokens are checked locally against the core's keys, permissions are kept for a minute; both follow the
//! core's streams, so that a withdrawn token or a removed member loses its rights within a second. The types
//! of the core that rules are made of are exported here too: nothing above this module speaks gRPC.

mod claims;
mod keys;
pub mod metrics;
mod permission;
mod revocation;
mod token;

pub use crate::pb::{
    ChannelInfo, ChannelKind, CoreClient, IDS_MAX, Membership, NotifyLevel, Page, Revocation, UserInfo,
};
pub use permission::{AccessChange, Config as PermissionConfig, Permission, Permissions};
pub use token::{Authenticator, Config as TokenConfig, Identity};
