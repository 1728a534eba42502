//! Rows of the features' own tables: what a batch reads under the lock, and what it writes, each table with one
//! statement for all mutations.

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

/// A row that mutations write. Of several writes to one key in a batch the last one counts.
pub(crate) trait Record: Debug + Send + Sync + 'static {
    /// What identifies a row.
    type Key: Debug + Clone + Eq + Hash + Send + Sync + 'static;

    /// Its own key.
    fn key(&self) -> Self::Key;

    /// The statement that stores rows.
    fn insert() -> &'static RowsSql;

    /// The input of [`Record::insert`].
    fn columns<'a>(rows: &[&'a Self]) -> Vec<Column<'a>>;
}

/// A [`Record`] that can be taken away again.
pub(crate) trait Removable: Record {
    /// The statement that removes rows.
    fn delete() -> &'static RowsSql;

    /// The input of [`Removable::delete`].
    fn key_columns(keys: &[Self::Key]) -> Vec<Column<'_>>;
}

/// Rows that mutations look at, found by a key that several rows may share.
pub(crate) trait Lookup:
    for<'r> FromRow<'r, PgRow> + for<'r> FromRow<'r, SqliteRow> + Debug + Send + Sync + Unpin + 'static
{
    /// What rows are found by.
    type Key: Debug + Clone + Eq + Hash + Send + Sync + 'static;

    /// The key that this row was found by.
    fn key(&self) -> Self::Key;

    /// The statement that finds rows.
    fn select() -> &'static RowsSql;

    /// The input of [`Lookup::select`].
    fn key_columns(keys: &[Self::Key]) -> Vec<Column<'_>>;
}

/// What a batch does to one row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Write<R> {
    /// Stores the record.
    Stored(R),
    /// Removes the record.
    Removed,
}

/// All rows that a batch writes, by table. Removals come first: what is removed and then stored is stored.
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

    /// What the batch does to this row so far.
    pub(super) fn write_of<R: Record>(&self, key: &R::Key) -> Option<Write<&R>> {
        let table = self.table::<R>()?;
        Some(as_write(&table.writes[*table.index.get(key)?]).1)
    }

    /// What the batch does to all rows of a table so far, in the order of the first write to each.
    pub(super) fn writes<R: Record>(&self) -> impl Iterator<Item = (&R::Key, Write<&R>)> {
        self.table::<R>().into_iter().flat_map(|table| table.writes.iter().map(as_write))
    }

    fn table<R: Record>(&self) -> Option<&TableOf<R>> {
        self.0.iter().find_map(|table| (table.as_ref() as &dyn Any).downcast_ref())
    }

    /// One statement that removes and one that stores for each table.
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

/// A statement with its input.
type Statement<'a> = (&'static RowsSql, Vec<Column<'a>>);

/// Rows of one table, without their type.
trait Table: Any + Debug + Send + Sync {
    /// What removes rows, and what stores them.
    fn statements(&self) -> Vec<Statement<'_>>;
}

#[derive(Debug)]
struct TableOf<R: Record> {
    /// Where in `writes` a key is.
    index: HashMap<R::Key, usize>,
    /// The last write to each key, in the order of the first; no row where it removed it.
    writes: Vec<(R::Key, Option<R>)>,
    removed: Vec<R::Key>,
    delete: Option<Delete<R>>,
}

/// Makes the statement that removes the rows with these keys.
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

/// Rows that were loaded for a batch, and keys whose rows are still to be loaded, by table.
#[derive(Debug, Default)]
pub(super) struct Lookups(Vec<Box<dyn Found>>);

impl Lookups {
    /// Asks for the rows of a key.
    pub(super) fn want<L: Lookup>(&mut self, key: L::Key) {
        let mut tables = self.0.iter_mut();
        match tables.find_map(|found| (found.as_mut() as &mut dyn Any).downcast_mut::<FoundRows<L>>()) {
            Some(found) => found.wanted.push(key),
            None => self.0.push(Box::new(FoundRows::<L> { wanted: vec![key], rows: HashMap::new() })),
        }
    }

    /// The rows of a key; nothing when they were not loaded.
    pub(super) fn rows<L: Lookup>(&self, key: &L::Key) -> Option<&[L]> {
        let mut tables = self.0.iter();
        let found = tables.find_map(|found| (found.as_ref() as &dyn Any).downcast_ref::<FoundRows<L>>())?;
        found.rows.get(key).map(Vec::as_slice)
    }

    /// Whether something was asked for that is not loaded.
    pub(super) fn is_incomplete(&self) -> bool {
        self.0.iter().any(|found| found.is_incomplete())
    }

    /// Loads what was asked for since the last time.
    pub(super) async fn load(&mut self, connection: &mut Connection<'_>) -> Result<(), sqlx::Error> {
        for found in &mut self.0 {
            if found.is_incomplete() {
                found.load(connection).await?;
            }
        }
        Ok(())
    }
}

/// Rows found in one table, without their type.
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
            // A key that was asked for has an entry, whether there are rows or not.
            let mut wanted = std::mem::take(&mut self.wanted);
            wanted.retain(|key| match self.rows.entry(key.clone()) {
                Entry::Occupied(_) => false,
                Entry::Vacant(new) => new.insert(Vec::new()).is_empty(),
            });
            let found: Vec<L> = L::select().fetch(connection, &L::key_columns(&wanted)).await?;
            for row in found {
                self.rows.entry(row.key()).or_default().push(row);
            }
            Ok(())
        })
    }
}
