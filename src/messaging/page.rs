//! Pages of lists: how long they are, and where the next one begins.

use serde::{Deserialize, Deserializer};

use crate::models::text::{described, refusal};

/// The `limit` of a request: 1 to [`ROWS_MAX`], [`ROWS_DEFAULT`] if absent.
#[derive(Debug, Clone, Copy)]
pub(super) struct PageSize(u32);

impl PageSize {
    /// Returns the number of rows.
    pub(super) fn rows(self) -> usize {
        self.0 as usize
    }

    /// Returns the number of rows, for queries.
    pub(super) fn get(self) -> u32 {
        self.0
    }
}

impl Default for PageSize {
    fn default() -> Self {
        Self(ROWS_DEFAULT)
    }
}

described!([] PageSize, _ => { "type": "integer", "minimum": 1, "maximum": ROWS_MAX, "default": ROWS_DEFAULT });

impl<'de> Deserialize<'de> for PageSize {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let rows = u32::deserialize(deserializer)?;
        match (1..=ROWS_MAX).contains(&rows) {
            true => Ok(Self(rows)),
            false => Err(refusal(format_args!("must be between 1 and {ROWS_MAX}"))),
        }
    }
}

/// Returns where the next page begins, at the position of the last row, if this page of `limit` rows is full.
pub(super) fn next_page<T, P>(rows: &[T], limit: usize, position: impl FnOnce(&T) -> P) -> Option<P> {
    rows.last().filter(|_| rows.len() >= limit).map(position)
}

/// The most rows in one page of a list whose `limit` the client chooses.
const ROWS_MAX: u32 = 100;
const ROWS_DEFAULT: u32 = 50;
