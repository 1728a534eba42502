//! SQL statements that take many rows as input, written once for both databases.
//!
//! The text refers to a table `r`. PostgreSQL gets it as arrays (`UNNEST`), SQLite as a list of `VALUES`. The
//! length of that list is the next power of two, so that a few prepared statements serve every batch. Unbound
//! parameters are NULL, hence every text contains `WHERE r.KEY IS NOT NULL`.

use std::borrow::Cow;
use std::ops::Range;
use std::sync::{Arc, OnceLock};

use sqlx::postgres::{PgArguments, PgConnection, PgRow};
use sqlx::sqlite::{SqliteArguments, SqliteConnection, SqliteRow};
use sqlx::{Arguments, AssertSqlSafe, FromRow};
use uuid::Uuid;

use super::db::Db;
use crate::ImksResult;

/// One open connection of either kind.
pub(crate) enum Connection<'c> {
    Postgres(&'c mut PgConnection),
    Sqlite(&'c mut SqliteConnection),
}

impl<'c> From<&'c mut PgConnection> for Connection<'c> {
    fn from(connection: &'c mut PgConnection) -> Self {
        Self::Postgres(connection)
    }
}

impl<'c> From<&'c mut SqliteConnection> for Connection<'c> {
    fn from(connection: &'c mut SqliteConnection) -> Self {
        Self::Sqlite(connection)
    }
}

impl Connection<'_> {
    /// Runs a statement without parameters and discards its rows.
    pub(crate) async fn run(&mut self, sql: &'static str) -> Result<(), sqlx::Error> {
        match self {
            Self::Postgres(connection) => sqlx::query(sql).execute(&mut **connection).await.map(drop),
            Self::Sqlite(connection) => sqlx::query(sql).execute(&mut **connection).await.map(drop),
        }
    }
}

/// A column of the input, with one value per row.
pub(crate) enum Column<'a> {
    Ids(Vec<Uuid>),
    MaybeIds(Vec<Option<Uuid>>),
    Numbers(Vec<i64>),
    MaybeNumbers(Vec<Option<i64>>),
    Texts(Vec<&'a str>),
    MaybeTexts(Vec<Option<&'a str>>),
    Flags(Vec<bool>),
}

impl Column<'_> {
    fn len(&self) -> usize {
        match self {
            Self::Ids(values) => values.len(),
            Self::MaybeIds(values) => values.len(),
            Self::Numbers(values) => values.len(),
            Self::MaybeNumbers(values) => values.len(),
            Self::Texts(values) => values.len(),
            Self::MaybeTexts(values) => values.len(),
            Self::Flags(values) => values.len(),
        }
    }

    fn postgres_type(&self) -> &'static str {
        match self {
            Self::Ids(_) | Self::MaybeIds(_) => "uuid",
            Self::Numbers(_) | Self::MaybeNumbers(_) => "int8",
            Self::Texts(_) | Self::MaybeTexts(_) => "text",
            Self::Flags(_) => "bool",
        }
    }

    fn add_all(&self, arguments: &mut PgArguments) -> Result<(), sqlx::Error> {
        match self {
            Self::Ids(values) => arguments.add(values.as_slice()),
            Self::MaybeIds(values) => arguments.add(values.as_slice()),
            Self::Numbers(values) => arguments.add(values.as_slice()),
            Self::MaybeNumbers(values) => arguments.add(values.as_slice()),
            Self::Texts(values) => arguments.add(values.as_slice()),
            Self::MaybeTexts(values) => arguments.add(values.as_slice()),
            Self::Flags(values) => arguments.add(values.as_slice()),
        }
        .map_err(sqlx::Error::Encode)
    }

    fn add_one(&self, row: usize, arguments: &mut SqliteArguments) -> Result<(), sqlx::Error> {
        match self {
            Self::Ids(values) => arguments.add(values[row]),
            Self::MaybeIds(values) => arguments.add(values[row]),
            Self::Numbers(values) => arguments.add(values[row]),
            Self::MaybeNumbers(values) => arguments.add(values[row]),
            Self::Texts(values) => arguments.add(values[row]),
            Self::MaybeTexts(values) => arguments.add(values[row]),
            Self::Flags(values) => arguments.add(values[row]),
        }
        .map_err(sqlx::Error::Encode)
    }
}

impl<'a> Column<'a> {
    /// Returns a column with one value of each row.
    pub(crate) fn of<R, V: Value<'a>>(rows: impl IntoIterator<Item = R>, value: impl FnMut(R) -> V) -> Self {
        V::column(rows.into_iter().map(value))
    }
}

/// A value that stands in a column: its type decides the kind of the column.
pub(crate) trait Value<'a>: Sized {
    /// Returns a column of these values.
    fn column(values: impl Iterator<Item = Self>) -> Column<'a>;

    /// Returns how many bytes of text the value holds.
    fn text_bytes(self) -> usize {
        0
    }
}

/// Implements [`Value`]: the type, the kind of column, and the conversion of one value.
macro_rules! values {
    ($($type:ty => $column:ident($value:ident => $converted:expr) $(, text $bytes:expr)?;)*) => {$(
        impl<'a> Value<'a> for $type {
            fn column(values: impl Iterator<Item = Self>) -> Column<'a> {
                Column::$column(values.map(|$value| $converted).collect())
            }

            $(fn text_bytes(self) -> usize {
                let $value = self;
                $bytes
            })?
        }
    )*};
}

values! {
    Uuid => Ids(id => id);
    Option<Uuid> => MaybeIds(id => id);
    i32 => Numbers(number => i64::from(number));
    i64 => Numbers(number => number);
    Option<i32> => MaybeNumbers(number => number.map(i64::from));
    Option<i64> => MaybeNumbers(number => number);
    bool => Flags(flag => flag);
    &'a str => Texts(text => text), text text.len();
    Option<&'a str> => MaybeTexts(text => text), text text.map_or(0, str::len);
    &'a Uuid => Ids(id => *id);
    &'a Option<Uuid> => MaybeIds(id => *id);
    &'a i32 => Numbers(number => i64::from(*number));
    &'a i64 => Numbers(number => *number);
    &'a Option<i32> => MaybeNumbers(number => number.map(i64::from));
    &'a Option<i64> => MaybeNumbers(number => *number);
    &'a String => Texts(text => text.as_str()), text text.len();
    &'a Option<String> => MaybeTexts(text => text.as_deref()), text text.as_ref().map_or(0, String::len);
}

/// A statement that takes the table `r` as input.
pub(crate) struct RowsSql {
    /// The names of the columns of `r`, comma separated, in the order of the input.
    columns: &'static str,
    /// The SQL that reads from `r`.
    body: &'static str,
    postgres: OnceLock<Arc<str>>,
    sqlite: [OnceLock<Arc<str>>; SIZES],
}

impl RowsSql {
    pub(crate) const fn new(columns: &'static str, body: &'static str) -> Self {
        Self { columns, body, postgres: OnceLock::new(), sqlite: [const { OnceLock::new() }; SIZES] }
    }

    /// Returns the number of columns of the input.
    #[cfg(test)]
    pub(crate) fn width(&self) -> usize {
        self.columns.split(',').count()
    }

    /// Runs the statement, if there are rows, and discards its result. All columns must have the same length.
    /// After an error the caller rolls back its transaction, which may hold a part of the statement's changes.
    pub(crate) async fn execute(
        &self,
        connection: &mut Connection<'_>,
        columns: &[Column<'_>],
    ) -> Result<(), sqlx::Error> {
        if columns[0].len() == 0 {
            return Ok(());
        }
        match connection {
            Connection::Postgres(connection) => {
                let text = AssertSqlSafe(self.postgres_text(columns));
                sqlx::query_with(text, postgres_arguments(columns)?).execute(&mut **connection).await?;
            }
            Connection::Sqlite(connection) => {
                for rows in chunks(columns) {
                    let text = AssertSqlSafe(self.sqlite_text(columns.len(), rows.len())?);
                    let query = sqlx::query_with(text, sqlite_arguments(columns, rows)?);
                    query.execute(&mut **connection).await?;
                }
            }
        }
        Ok(())
    }

    /// Runs the statement and returns its rows.
    pub(crate) async fn fetch<T>(
        &self,
        connection: &mut Connection<'_>,
        columns: &[Column<'_>],
    ) -> Result<Vec<T>, sqlx::Error>
    where
        T: for<'r> FromRow<'r, PgRow> + for<'r> FromRow<'r, SqliteRow> + Send + Unpin,
    {
        if columns[0].len() == 0 {
            return Ok(Vec::new());
        }
        match connection {
            Connection::Postgres(connection) => {
                let text = AssertSqlSafe(self.postgres_text(columns));
                sqlx::query_as_with(text, postgres_arguments(columns)?).fetch_all(&mut **connection).await
            }
            Connection::Sqlite(connection) => {
                let mut found = Vec::new();
                for rows in chunks(columns) {
                    let text = AssertSqlSafe(self.sqlite_text(columns.len(), rows.len())?);
                    let query = sqlx::query_as_with(text, sqlite_arguments(columns, rows)?);
                    found.append(&mut query.fetch_all(&mut **connection).await?);
                }
                Ok(found)
            }
        }
    }

    /// Runs the statement on a reading connection and returns its rows.
    pub(crate) async fn read<T>(&self, db: &Db, columns: &[Column<'_>]) -> ImksResult<Vec<T>>
    where
        T: for<'r> FromRow<'r, PgRow> + for<'r> FromRow<'r, SqliteRow> + Send + Unpin,
    {
        match db {
            Db::Postgres(pool) => {
                let mut lease = pool.lease().await?;
                let mut connection = Connection::Postgres(lease.connection()?);
                let outcome = pool.answered(Box::pin(self.fetch(&mut connection, columns))).await;
                Ok(lease.settle(outcome)?)
            }
            Db::Sqlite(sqlite) => {
                let mut connection = Box::pin(sqlite.reader.acquire()).await?;
                Ok(Box::pin(self.fetch(&mut Connection::Sqlite(&mut connection), columns)).await?)
            }
        }
    }

    fn postgres_text(&self, columns: &[Column<'_>]) -> Arc<str> {
        let render = || {
            let arrays: Vec<String> = columns
                .iter()
                .enumerate()
                .map(|(index, column)| format!("${}::{}[]", index + 1, column.postgres_type()))
                .collect();
            format!("WITH r({}) AS (SELECT * FROM UNNEST({})) {}", self.columns, arrays.join(", "), self.body)
                .into()
        };
        Arc::clone(self.postgres.get_or_init(render))
    }

    /// Returns the SQL of this statement on SQLite, for an input of this size.
    pub(super) fn sqlite_text(&self, columns: usize, rows: usize) -> Result<Arc<str>, sqlx::Error> {
        let rows = rows.next_power_of_two();
        let slot = self.sqlite.get(rows.trailing_zeros() as usize);
        let slot = slot.ok_or_else(|| sqlx::Error::Protocol("too many rows in one statement".into()))?;
        let render = || {
            let row = format!("({})", vec!["?"; columns].join(","));
            let (values, body) = (vec![row; rows].join(","), or_fail(self.body));
            format!("WITH r({}) AS (VALUES {values}) {body}", self.columns).into()
        };
        Ok(Arc::clone(slot.get_or_init(render)))
    }
}

/// Returns the SQL for SQLite of a statement that runs in a transaction. By default, a statement that fails
/// undoes its own changes, for which SQLite copies each page to a statement journal first: a third of the cost
/// of an insert. With `OR FAIL`, the changes stay and the transaction must be rolled back.
fn or_fail(body: &str) -> Cow<'_, str> {
    for (verb, or_fail) in [("INSERT INTO ", "INSERT OR FAIL INTO "), ("UPDATE ", "UPDATE OR FAIL ")] {
        if let Some(rest) = body.strip_prefix(verb) {
            return format!("{or_fail}{rest}").into();
        }
    }
    body.into()
}

fn postgres_arguments(columns: &[Column<'_>]) -> Result<PgArguments, sqlx::Error> {
    let mut arguments = PgArguments::default();
    for column in columns {
        column.add_all(&mut arguments)?;
    }
    Ok(arguments)
}

/// Splits the rows by statement, because SQLite limits the number of parameters.
fn chunks(columns: &[Column<'_>]) -> Vec<Range<usize>> {
    let rows = columns[0].len();
    (0..rows).step_by(ROWS_LIMIT).map(|from| from..rows.min(from + ROWS_LIMIT)).collect()
}

fn sqlite_arguments(columns: &[Column<'_>], rows: Range<usize>) -> Result<SqliteArguments, sqlx::Error> {
    let mut arguments = SqliteArguments::default();
    arguments.reserve(columns.len() * rows.len(), 0);
    for row in rows {
        for column in columns {
            column.add_one(row, &mut arguments)?;
        }
    }
    Ok(arguments)
}

/// The most rows of one statement on SQLite, which takes 32,766 parameters; the widest table has 20 columns.
pub(crate) const ROWS_LIMIT: usize = 1 << (SIZES - 1);
const SIZES: usize = 11;

/// Declares constants for Rust and, as macros for `concat!`, for SQL: `NAME: type = macro_name = number`.
macro_rules! sql_number {
    ($($(#[$meta:meta])* $vis:vis const $name:ident: $type:ty = $literal:ident = $number:literal;)*) => {$(
        $(#[$meta])*
        $vis const $name: $type = $number;
        #[allow(unused_macros, reason = "not every number stands in SQL")]
        macro_rules! $literal {
            () => {
                $number
            };
        }
        #[allow(unused_imports, reason = "not every number stands in SQL of another file")]
        pub(crate) use $literal;
    )*};
}
pub(crate) use sql_number;

#[cfg(test)]
mod tests {
    use super::*;

    static TOMBSTONES: RowsSql = RowsSql::new(
        "channel_id, seq, counted",
        "INSERT INTO message_tombstone (channel_id, seq, counted) SELECT * FROM r WHERE r.channel_id IS NOT NULL",
    );

    #[tokio::test]
    async fn a_statement_that_fails_halfway_on_sqlite_is_undone_by_its_transaction() {
        let config = crate::models::db::Config {
            url: Some(String::from("sqlite::memory:").into()),
            ..crate::models::db::Config::default()
        };
        let db = Db::connect(&config).await.unwrap();
        db.migrate().await.unwrap();
        let Db::Sqlite(sqlite) = &db else { panic!("not SQLite") };
        let mut connection = sqlite.writer.acquire().await.unwrap();
        let mut connection = Connection::Sqlite(&mut connection);
        let count = "SELECT COUNT(*) FROM message_tombstone";
        connection.run("BEGIN IMMEDIATE").await.unwrap();
        let rows = [1, 2, 1];
        let columns =
            [Column::of(rows, |_| Uuid::nil()), Column::of(rows, |seq: i64| seq), Column::of(rows, |_| true)];
        let error = TOMBSTONES.execute(&mut connection, &columns).await.unwrap_err();
        assert!(error.as_database_error().unwrap().is_unique_violation(), "{error}");
        assert_eq!(number(&mut connection, count).await, 2, "it kept no copy of the pages for undoing");
        connection.run("ROLLBACK").await.unwrap();
        assert_eq!(number(&mut connection, count).await, 0);
    }

    async fn number(connection: &mut Connection<'_>, sql: &'static str) -> i64 {
        let Connection::Sqlite(connection) = connection else { panic!("not SQLite") };
        sqlx::query_scalar(sql).fetch_one(&mut **connection).await.unwrap()
    }
}
