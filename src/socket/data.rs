//! The data an application attaches to a socket: one value per type, some of them visible to other nodes.

use std::any::Any;
use std::fmt;
use std::sync::Arc;

use parking_lot::Mutex;
use serde::Serialize;
use smallvec::SmallVec;

use crate::error::ImksResult;

/// The data of one socket. It is small for a socket with one value, the common case.
#[derive(Default)]
pub(crate) struct SocketData(Mutex<SavedData>);

/// The data of a socket while its client is absent.
#[derive(Clone, Default)]
pub(crate) struct SavedData {
    values: SmallVec<[Arc<dyn Any + Send + Sync>; 1]>,
    /// The values that other nodes may see, by name. Few sockets have any.
    #[allow(clippy::box_collection, reason = "one pointer in every socket, not three")]
    shared: Option<Box<Vec<(&'static str, ToJson)>>>,
}

type ToJson = Arc<dyn Fn() -> ImksResult<serde_json::Value> + Send + Sync>;

impl SocketData {
    /// Creates socket data from saved data.
    pub(crate) fn restored(saved: SavedData) -> Self {
        Self(Mutex::new(saved))
    }

    /// Returns a copy of the current data.
    pub(crate) fn save(&self) -> SavedData {
        self.0.lock().clone()
    }

    /// Stores a value, replacing an earlier one of the same type.
    pub(crate) fn set<T: Send + Sync + 'static>(&self, value: Arc<T>) {
        let values = &mut self.0.lock().values;
        match values.iter_mut().find(|known| known.is::<T>()) {
            Some(known) => *known = value,
            None => values.push(value),
        }
    }

    /// Stores a value that other nodes may see under `name`.
    pub(crate) fn share<T: Serialize + Send + Sync + 'static>(&self, name: &'static str, value: T) {
        let value = Arc::new(value);
        self.set(value.clone());
        let to_json: ToJson = Arc::new(move || Ok(serde_json::to_value(&*value)?));
        let mut data = self.0.lock();
        let shared = data.shared.get_or_insert_default();
        shared.retain(|(known, _)| *known != name);
        shared.push((name, to_json));
    }

    /// Returns the value of this type, if there is one.
    pub(crate) fn get<T: Send + Sync + 'static>(&self) -> Option<Arc<T>> {
        self.0.lock().values.iter().find_map(|value| value.clone().downcast().ok())
    }

    /// Removes and returns the value of this type.
    pub(crate) fn remove<T: Send + Sync + 'static>(&self) -> Option<Arc<T>> {
        let values = &mut self.0.lock().values;
        let place = values.iter().position(|value| value.is::<T>())?;
        values.swap_remove(place).downcast().ok()
    }

    /// Returns the values that other nodes may see, as one JSON object.
    pub(crate) fn shared(&self) -> serde_json::Value {
        let shared = self.0.lock().shared.clone().unwrap_or_default();
        let field = |(name, to_json): &(&'static str, ToJson)| Some(((*name).to_owned(), to_json().ok()?));
        serde_json::Value::Object(shared.iter().filter_map(field).collect())
    }
}

impl fmt::Debug for SocketData {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_tuple("SocketData").field(&self.0.lock().values.len()).finish()
    }
}
