//! Authentication of users ([`TokenVerifier`]) and checks of their permissions ([`Permissions`]).
//!
//! Tokens are checked locally against the keys of the core or of the operator's own application, or by the hook
//! of that application, and permissions are cached for a minute. Both follow the core's streams, so a revoked token
//! or a removed member loses its rights within a second. This module also re-exports the core's types that its
//! callers need, so that no module above it depends on gRPC.

mod claims;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
mod grant_cache;
mod hook;
mod keyring;
mod keys;
mod login;
mod login_config;
mod membership_cache;
pub mod metrics;
mod own_keys;
mod permission;
mod permissions;
mod policy;
mod recent;
mod revocation;
mod signed;
mod token;
mod token_config;

pub use crate::pb::{
    ChannelInfo, CoreClient, CustomEmoji, Enqueued, IncomingWebhook, Membership, Notification, NotifyLevel,
    Revocation, UserInfo,
};
pub use hook::Hook;
pub use login::Login;
pub use login_config::{HookConfig, LoginConfig};
pub use own_keys::{KeySource, check_keys};
pub use permission::{Grant, Permission};
pub use permissions::{AccessChange, Config as PermissionConfig, Permissions};
pub use policy::Policy;
pub use signed::SignedTokens;
pub use token::{Identity, Presented, TokenVerifier};
pub use token_config::Config as TokenConfig;
