//! The data: one file per entity with its row, its SQL and its query functions. Knows no sockets and
//! no users' sessions; the only DDL is in `migrate/`.

pub mod append;
pub mod channel_state;
pub mod db;
pub mod message;
pub mod message_edit;
pub mod message_id;
pub mod message_read_state;
pub mod message_sync;
pub mod metrics;
pub(crate) mod rows;
pub mod sweep;

pub use db::Db;
