//! The nodes that use this database: a row per running server, renewed every few seconds. SQLite needs none,
//! because its file belongs to one server.

use std::fmt;

use sqlx::FromRow;

use super::db::Db;
use crate::ImksResult;

/// A server that uses this database.
#[derive(Debug, Clone, PartialEq, Eq, FromRow)]
pub struct ClusterNode {
    /// Its id.
    pub node: String,
    /// Its name for people.
    pub name: String,
    /// How it reaches other nodes: two nodes with the same text hear each other, unless it is [`ALONE`].
    pub adapter: String,
    /// How it is reached by other nodes.
    #[sqlx(flatten)]
    pub contact: Contact,
}

/// How a server takes requests that others have received for its sessions; empty if it takes none.
#[derive(Clone, Default, PartialEq, Eq, FromRow)]
pub struct Contact {
    /// The host and port of its listener.
    pub address: Option<String>,
    /// The secret with which others sign requests.
    pub secret: Option<Vec<u8>>,
    /// The SHA-256 hash of its certificate, if the listener speaks TLS.
    pub certificate: Option<Vec<u8>>,
}

impl fmt::Debug for Contact {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Contact").field("address", &self.address).finish_non_exhaustive()
    }
}

/// The `adapter` of a node that reaches no others.
pub const ALONE: &str = "local";

impl ClusterNode {
    /// Whether this node and another one hear each other.
    pub fn hears(&self, other: &Self) -> bool {
        self.adapter == other.adapter && self.adapter != ALONE
    }

    /// Renews the row of this node. Returns the others that were alive in the last seconds.
    ///
    /// # Errors
    /// [`crate::ImksError::Database`].
    pub async fn renew(&self, db: &Db) -> ImksResult<Vec<Self>> {
        let Db::Postgres(pool) = db else { return Ok(Vec::new()) };
        let Contact { address, secret, certificate } = &self.contact;
        let renew = sqlx::query(RENEW).bind(&self.node).bind(&self.name).bind(&self.adapter);
        renew.bind(address).bind(secret).bind(certificate).execute(pool).await?;
        Ok(sqlx::query_as(OTHERS).bind(&self.node).bind(ALIVE_MICROS).fetch_all(pool).await?)
    }

    /// Removes the row of this node, which is about to end, and those of nodes that have ended without a word.
    ///
    /// # Errors
    /// [`crate::ImksError::Database`].
    pub async fn leave(&self, db: &Db) -> ImksResult<()> {
        let Db::Postgres(pool) = db else { return Ok(()) };
        sqlx::query(LEAVE).bind(&self.node).bind(ALIVE_MICROS).execute(pool).await?;
        Ok(())
    }
}

// The clock is the database's, because rows of all nodes are compared.
const RENEW: &str = "INSERT INTO cluster_node (node, name, adapter, address, secret, certificate, seen_at) \
    VALUES ($1, $2, $3, $4, $5, $6, (EXTRACT(EPOCH FROM clock_timestamp()) * 1000000)::BIGINT) \
    ON CONFLICT (node) DO UPDATE SET seen_at = EXCLUDED.seen_at, certificate = EXCLUDED.certificate";
const OTHERS: &str = "SELECT node, name, adapter, address, secret, certificate FROM cluster_node WHERE node <> $1 \
    AND seen_at > (EXTRACT(EPOCH FROM clock_timestamp()) * 1000000)::BIGINT - $2";
const LEAVE: &str = "DELETE FROM cluster_node WHERE node = $1 \
    OR seen_at < (EXTRACT(EPOCH FROM clock_timestamp()) * 1000000)::BIGINT - 6 * $2";
/// How long a node counts as alive after it renewed its row.
const ALIVE_MICROS: i64 = 10_000_000;
