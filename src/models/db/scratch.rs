//! A database of its own on a PostgreSQL server, for tools that must not touch another one.

use std::net::SocketAddr;
use std::str::FromStr;

use sqlx::postgres::PgConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions, Connection};

use crate::secret::Secret;
use crate::{ImksError, ImksResult};

/// A database that was made for one purpose. Whoever made it removes it with [`Scratch::remove`].
pub(crate) struct Scratch {
    url: String,
    server: PgConnectOptions,
    name: String,
}

impl Scratch {
    /// Checks the form of a URL, without asking its server.
    ///
    /// # Errors
    /// [`ImksError::InvalidInput`] for a URL of another form.
    pub(crate) fn check(url: &str) -> ImksResult<()> {
        Self::at(url).map(drop)
    }

    /// Creates a database on the server of `url`, which is reached over TCP.
    ///
    /// # Errors
    /// [`ImksError::InvalidInput`] for a URL of another form, or if the role may not create databases;
    /// [`ImksError::DatabaseOpen`] if the server does not answer.
    pub(crate) async fn create(url: &str) -> ImksResult<Self> {
        let scratch = Self::at(url)?;
        Box::pin(scratch.run(&format!("CREATE DATABASE {}", scratch.name))).await?;
        Ok(scratch)
    }

    /// Returns a database that is not made yet.
    fn at(url: &str) -> ImksResult<Self> {
        let wrong = || ImksError::invalid("--database", "write postgres://USER:PASSWORD@HOST:PORT/DATABASE");
        let server = PgConnectOptions::from_str(url).map_err(|_| wrong())?;
        let name = format!("imks_scratch_{}", crate::clock::new_id().simple());
        place(url, None, &name).ok_or_else(wrong)?;
        Ok(Self { url: url.to_owned(), server, name })
    }

    /// Returns host and port of the server.
    pub(crate) fn server(&self) -> String {
        format!("{}:{}", self.server.get_host(), self.server.get_port())
    }

    /// Returns the URL of the database: of its server, or `through` a relay to it.
    pub(crate) fn url(&self, through: Option<SocketAddr>) -> Secret {
        place(&self.url, through, &self.name).unwrap_or_default().into()
    }

    /// Removes the database, even if somebody is still connected to it.
    ///
    /// # Errors
    /// As [`Scratch::create`]; the error names the database, which is still there.
    pub(crate) async fn remove(self) -> ImksResult<()> {
        Box::pin(self.run(&format!("DROP DATABASE {} WITH (FORCE)", self.name))).await
    }

    async fn run(&self, statement: &str) -> ImksResult<()> {
        let opened = Box::pin(self.server.connect()).await;
        let mut connection =
            opened.map_err(|source| ImksError::DatabaseOpen { place: self.server(), source })?;
        let outcome = sqlx::query(AssertSqlSafe(statement.to_owned())).execute(&mut connection).await;
        // The connection has done its work: how it ends does not matter.
        let _ = connection.close().await;
        let explain = |error| {
            ImksError::invalid("--database", format!("{statement}: {error} (the role needs CREATEDB)"))
        };
        outcome.map(drop).map_err(explain)
    }
}

/// Returns a URL with another database, and another host where one is given. `None` for a URL without a host.
fn place(url: &str, through: Option<SocketAddr>, database: &str) -> Option<String> {
    let (scheme, rest) =
        url.split_once("://").filter(|(scheme, _)| matches!(*scheme, "postgres" | "postgresql"))?;
    let (rest, query) = rest.split_once('?').map_or((rest, None), |(rest, query)| (rest, Some(query)));
    let authority = rest.split('/').next()?;
    let (user, host) =
        authority.rsplit_once('@').map_or((None, authority), |(user, host)| (Some(user), host));
    let names_host = |pair: &str| pair.starts_with("host=") || pair.starts_with("port=");
    if host.is_empty() || query.is_some_and(|query| query.split('&').any(names_host)) {
        return None;
    }
    let user = user.map(|user| format!("{user}@")).unwrap_or_default();
    let host = through.map_or(host.to_owned(), |relay| relay.to_string());
    let query = query.map(|query| format!("?{query}")).unwrap_or_default();
    Some(format!("{scheme}://{user}{host}/{database}{query}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_keeps_its_user_and_its_options_and_gets_another_database_and_host() {
        let relay = Some("127.0.0.1:9".parse().unwrap());
        let url = "postgres://me:p%40ss@db.example:5433/prod?sslmode=require";
        assert_eq!(place(url, None, "x").unwrap(), "postgres://me:p%40ss@db.example:5433/x?sslmode=require");
        assert_eq!(place(url, relay, "x").unwrap(), "postgres://me:p%40ss@127.0.0.1:9/x?sslmode=require");
        assert_eq!(place("postgres://db", None, "x").unwrap(), "postgres://db/x");
        for unusable in
            ["db", "postgres://", "mysql://db", "postgres:///prod", "postgres://a/b?host=/run/postgresql"]
        {
            assert_eq!(place(unusable, None, "x"), None, "{unusable}");
        }
    }
}
