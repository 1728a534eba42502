//! The data: one file per entity with its row, its SQL and its query functions. Knows no sockets and
//! no users' sessions; the only DDL is in `migrate/`.

pub mod db;

pub use db::Db;
