//! The data an application attaches to a socket: one value per type, some of them visible to other nodes.

use std::any::Any;
use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use parking_lot::Mutex;
use serde::Serialize;
use serde_json::{Map, Value};
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
    shared: Option<Box<Vec<Shared>>>,
}

/// The name of a value, and how it is shown.
type Shared = (Cow<'static, str>, ToJson);

type ToJson = Arc<dyn Fn() -> ImksResult<Value> + Send + Sync>;

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
        shared.push((name.into(), to_json));
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
    pub(crate) fn shared(&self) -> Value {
        let saved = self.save();
        Value::Object(saved.to_json())
    }
}

impl SavedData {
    /// Returns the values that other nodes may see, by name.
    pub(crate) fn to_json(&self) -> Map<String, Value> {
        let field = |(name, to_json): &(Cow<'static, str>, ToJson)| Some((name.to_string(), to_json().ok()?));
        self.shared.iter().flat_map(|shared| shared.iter()).filter_map(field).collect()
    }

    /// Returns the values that other nodes may see, by name, to be stored: all of them.
    ///
    /// # Errors
    /// That of a value that JSON cannot represent.
    pub(crate) fn try_to_json(&self) -> ImksResult<Map<String, Value>> {
        let field =
            |(name, to_json): &(Cow<'static, str>, ToJson)| to_json().map(|value| (name.to_string(), value));
        self.shared.iter().flat_map(|shared| shared.iter()).map(field).collect()
    }

    /// Creates data from values that another node has stored. Those without a rule stay what others may see.
    pub(crate) fn from_json(values: Map<String, Value>, rules: &HashMap<&'static str, RestoreValue>) -> Self {
        let mut data = Self::default();
        let shared = data.shared.get_or_insert_default();
        for (name, value) in values {
            if let Some(value) = rules.get(&*name).and_then(|restore| restore(&value)) {
                data.values.push(value);
            }
            shared.push((name.into(), Arc::new(move || Ok(value.clone()))));
        }
        data
    }
}

/// A function that makes the value of a socket of the JSON in which it was stored.
pub(crate) type RestoreValue = Box<dyn Fn(&Value) -> Option<Arc<dyn Any + Send + Sync>> + Send + Sync>;

impl fmt::Debug for SocketData {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_tuple("SocketData").field(&self.0.lock().values.len()).finish()
    }
}
