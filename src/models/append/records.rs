//! Rows of the features' own tables, which a batch reads under the lock and writes with one statement per
//! table.

use std::any::Any;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fmt::Debug;
use std::hash::Hash;

use futures_util::future::BoxFuture;
use sqlx::FromRow;
use sqlx::postgres::PgRow;
use sqlx::sqlite::SqliteRow;

use crate::models::rows::{Column, Connection, RowsSql};

/// A row that mutations write. The last of several writes to one key in a batch wins.
pub(crate) trait Record: Debug + Send + Sync + 'static {
    /// The key of a row.
    type Key: Debug + Clone + Eq + Hash + Send + Sync + 'static;

    /// Returns the key of this row.
    fn key(&self) -> Self::Key;

    /// Returns the statement that stores rows.
    fn insert() -> &'static RowsSql;

    /// Returns the input of [`Record::insert`].
    fn columns<'a>(rows: &[&'a Self]) -> Vec<Column<'a>>;
}

/// A [`Record`] that can be removed.
pub(crate) trait Removable: Record {
    /// Returns the statement that removes rows.
    fn delete() -> &'static RowsSql;

    /// Returns the input of [`Removable::delete`].
    fn key_columns(keys: &[Self::Key]) -> Vec<Column<'_>>;
}

/// A row that mutations read, found by a key that several rows may share.
pub(crate) trait Lookup:
    for<'r> FromRow<'r, PgRow> + for<'r> FromRow<'r, SqliteRow> + Debug + Send + Sync + Unpin + 'static
{
    /// The key that finds rows.
    type Key: Debug + Clone + Eq + Hash + Send + Sync + 'static;

    /// Returns the key that finds this row.
    fn key(&self) -> Self::Key;

    /// Returns the statement that keeps others from changing what [`Lookup::select`] finds, if the lock of the channel does
    /// not. It runs before, on PostgreSQL only: a transaction on SQLite is alone anyway.
    fn lock_postgres() -> Option<&'static str> {
        None
    }

    /// Returns the statement that finds rows.
    fn select() -> &'static RowsSql;

    /// Returns the input of [`Lookup::select`].
    fn key_columns(keys: &[Self::Key]) -> Vec<Column<'_>>;
}

/// The effect of a batch on one row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Write<R> {
    /// Stores the record.
    Stored(R),
    /// Removes the record.
    Removed,
}

/// All rows that a batch writes, by table. Removals run first, so that a row can be removed and stored again.
#[derive(Debug, Default)]
pub(super) struct Records(Vec<Box<dyn Table>>);

impl Records {
    pub(super) fn insert<R: Record>(&mut self, row: R) {
        self.with_table(|table: &mut TableOf<R>| table.insert(row));
    }

    pub(super) fn remove<R: Removable>(&mut self, key: R::Key) {
        self.with_table(|table: &mut TableOf<R>| {
            table.delete = Some(delete::<R>);
            table.remove(key);
        });
    }

    /// Returns what the batch does to this row so far.
    pub(super) fn write_of<R: Record>(&self, key: &R::Key) -> Option<Write<&R>> {
        let table = self.table::<R>()?;
        Some(as_write(&table.writes[*table.index.get(key)?]).1)
    }

    /// Returns what the batch does to all rows of a table so far, in the order of the first write to each.
    pub(super) fn writes<R: Record>(&self) -> impl Iterator<Item = (&R::Key, Write<&R>)> {
        self.table::<R>().into_iter().flat_map(|table| table.writes.iter().map(as_write))
    }

    fn table<R: Record>(&self) -> Option<&TableOf<R>> {
        self.0.iter().find_map(|table| (table.as_ref() as &dyn Any).downcast_ref())
    }

    /// Runs one removing and one storing statement for each table.
    pub(super) async fn write(&self, connection: &mut Connection<'_>) -> Result<(), sqlx::Error> {
        for table in &self.0 {
            for (sql, columns) in table.statements() {
                sql.execute(connection, &columns).await?;
            }
        }
        Ok(())
    }

    fn with_table<R: Record>(&mut self, work: impl FnOnce(&mut TableOf<R>)) {
        let mut tables = self.0.iter_mut();
        match tables.find_map(|table| (table.as_mut() as &mut dyn Any).downcast_mut()) {
            Some(table) => work(table),
            None => {
                let mut table = Box::<TableOf<R>>::default();
                work(&mut table);
                self.0.push(table);
            }
        }
    }
}

fn as_write<R: Record>((key, row): &(R::Key, Option<R>)) -> (&R::Key, Write<&R>) {
    (key, row.as_ref().map_or(Write::Removed, Write::Stored))
}

/// A statement and its input.
type Statement<'a> = (&'static RowsSql, Vec<Column<'a>>);

/// The rows of one table, with their type erased.
trait Table: Any + Debug + Send + Sync {
    /// Returns the statements that remove rows and that store rows.
    fn statements(&self) -> Vec<Statement<'_>>;
}

#[derive(Debug)]
struct TableOf<R: Record> {
    /// The index in `writes` by key.
    index: HashMap<R::Key, usize>,
    /// The last write to each key, in the order of the first; `None` for a removal.
    writes: Vec<(R::Key, Option<R>)>,
    removed: Vec<R::Key>,
    delete: Option<Delete<R>>,
}

/// A function that returns the statement that removes the rows with these keys.
type Delete<R> = fn(&[<R as Record>::Key]) -> Statement<'_>;

impl<R: Record> Default for TableOf<R> {
    fn default() -> Self {
        Self { index: HashMap::new(), writes: Vec::new(), removed: Vec::new(), delete: None }
    }
}

impl<R: Record> TableOf<R> {
    fn insert(&mut self, row: R) {
        self.write(row.key(), Some(row));
    }

    fn remove(&mut self, key: R::Key) {
        self.removed.push(key.clone());
        self.write(key, None);
    }

    fn write(&mut self, key: R::Key, row: Option<R>) {
        match self.index.entry(key) {
            Entry::Occupied(known) => self.writes[*known.get()].1 = row,
            Entry::Vacant(new) => {
                self.writes.push((new.key().clone(), row));
                new.insert(self.writes.len() - 1);
            }
        }
    }
}

impl<R: Record> Table for TableOf<R> {
    fn statements(&self) -> Vec<Statement<'_>> {
        let delete = self.delete.filter(|_| !self.removed.is_empty()).map(|delete| delete(&self.removed));
        let rows: Vec<&R> = self.writes.iter().filter_map(|(_, row)| row.as_ref()).collect();
        let insert = (!rows.is_empty()).then(|| (R::insert(), R::columns(&rows)));
        delete.into_iter().chain(insert).collect()
    }
}

fn delete<R: Removable>(keys: &[R::Key]) -> Statement<'_> {
    (R::delete(), R::key_columns(keys))
}

/// The rows loaded for a batch, and the keys whose rows are still to be loaded, by table.
#[derive(Debug, Default)]
pub(super) struct Lookups(Vec<Box<dyn Found>>);

impl Lookups {
    /// Requests the rows of a key.
    pub(super) fn want<L: Lookup>(&mut self, key: L::Key) {
        let mut tables = self.0.iter_mut();
        match tables.find_map(|found| (found.as_mut() as &mut dyn Any).downcast_mut::<FoundRows<L>>()) {
            Some(found) => found.wanted.push(key),
            None => self.0.push(Box::new(FoundRows::<L> { wanted: vec![key], rows: HashMap::new() })),
        }
    }

    /// Returns the rows of a key, or `None` if they are not loaded.
    pub(super) fn rows<L: Lookup>(&self, key: &L::Key) -> Option<&[L]> {
        let mut tables = self.0.iter();
        let found = tables.find_map(|found| (found.as_ref() as &dyn Any).downcast_ref::<FoundRows<L>>())?;
        found.rows.get(key).map(Vec::as_slice)
    }

    /// Whether rows were requested that are not loaded.
    pub(super) fn is_incomplete(&self) -> bool {
        self.0.iter().any(|found| found.is_incomplete())
    }

    /// Loads the rows that were requested since the last call.
    pub(super) async fn load(&mut self, connection: &mut Connection<'_>) -> Result<(), sqlx::Error> {
        for found in &mut self.0 {
            if found.is_incomplete() {
                found.load(connection).await?;
            }
        }
        Ok(())
    }
}

/// The rows found in one table, with their type erased.
trait Found: Any + Debug + Send + Sync {
    fn is_incomplete(&self) -> bool;

    fn load<'a>(&'a mut self, connection: &'a mut Connection<'_>) -> BoxFuture<'a, Result<(), sqlx::Error>>;
}

#[derive(Debug)]
struct FoundRows<L: Lookup> {
    wanted: Vec<L::Key>,
    rows: HashMap<L::Key, Vec<L>>,
}

impl<L: Lookup> Found for FoundRows<L> {
    fn is_incomplete(&self) -> bool {
        !self.wanted.is_empty()
    }

    fn load<'a>(&'a mut self, connection: &'a mut Connection<'_>) -> BoxFuture<'a, Result<(), sqlx::Error>> {
        Box::pin(async move {
            // Every requested key has an entry, even if it has no rows.
            let mut wanted = std::mem::take(&mut self.wanted);
            wanted.retain(|key| match self.rows.entry(key.clone()) {
                Entry::Occupied(_) => false,
                Entry::Vacant(new) => new.insert(Vec::new()).is_empty(),
            });
            let is_postgres = matches!(connection, Connection::Postgres(_));
            if let Some(lock) = L::lock_postgres().filter(|_| is_postgres) {
                connection.run(lock).await?;
            }
            let found: Vec<L> = L::select().fetch(connection, &L::key_columns(&wanted)).await?;
            for row in found {
                self.rows.entry(row.key()).or_default().push(row);
            }
            Ok(())
        })
    }
}
