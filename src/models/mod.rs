//! The data: one file per entity with its row, its SQL and its query functions. This layer knows neither
//! sockets nor users' sessions. The only DDL is in `migrate/`.

pub mod api_key;
pub mod append;
pub(crate) mod channel_change;
pub mod channel_key;
pub mod channel_state;
pub mod cluster_message;
pub mod cluster_node;
pub mod control_request;
pub mod db;
pub mod emoji;
pub mod key_package;
pub mod message;
pub(crate) mod message_author;
pub mod message_bookmark;
pub mod message_delete;
pub mod message_draft;
pub mod message_edit;
pub mod message_id;
pub mod message_mention;
pub mod message_mention_inbox;
pub mod message_page;
pub mod message_pin;
pub mod message_poll;
pub mod message_poll_vote;
pub mod message_reaction;
mod message_reaction_row;
pub mod message_reaction_total;
pub mod message_read_state;
pub(crate) mod message_row;
pub mod message_search;
pub mod message_search_index;
pub mod message_send;
pub mod message_sync;
pub mod message_thread;
pub mod message_thread_member;
pub mod message_thread_state;
pub mod metrics;
pub(crate) mod rows;
mod search_terms;
pub mod sweep;
pub mod text;
pub mod user_presence;
pub(crate) mod user_rev;
pub mod user_stream;

pub use db::Db;
