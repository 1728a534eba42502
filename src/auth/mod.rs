//! Who is this ([`Authenticator`]), and may they ([`Permissions`]).
//!
//! Tokens are checked locally against the core's keys, permissions are cached for a minute; both follow the
//! core's streams, so that a withdrawn token or a removed member loses its rights within a second. The types
//! of the core that rules are made of are exported here too: nothing above this module speaks gRPC.

mod claims;
mod grant_cache;
mod keys;
pub mod metrics;
mod permission;
mod permissions;
mod revocation;
mod token;

pub use crate::pb::{CoreClient, Membership, Revocation};
pub use permission::Permission;
pub use permissions::{AccessChange, Config as PermissionConfig, Permissions};
pub use token::{Authenticator, Config as TokenConfig, Identity};
