//! What an application keeps with a socket: data by its type, and listeners of this one socket.

use std::any::Any;
use std::fmt;
use std::sync::{Arc, OnceLock};

use parking_lot::{Mutex, MutexGuard};
use serde::Serialize;
use smallvec::SmallVec;

use super::events::{Event, EventError};
use super::listeners::Listeners;
use super::socket::Socket;
use crate::error::ImksResult;
use crate::socket::codec::packet::Args;

/// Small for a socket that keeps one value, which is what most do.
#[derive(Default)]
pub(crate) struct Pouch {
    data: Mutex<Data>,
    /// What few sockets have. Made when first needed.
    extras: OnceLock<Box<Mutex<Extras>>>,
}

type Data = SmallVec<[Arc<dyn Any + Send + Sync>; 1]>;

/// What stays when the client goes and comes back: data, not listeners.
#[derive(Clone, Default)]
pub(crate) struct Kept {
    data: Data,
    shared: Vec<(&'static str, ToJson)>,
}

impl Pouch {
    /// Filled with what was kept.
    pub(crate) fn filled(kept: Kept) -> Self {
        let Kept { data, shared } = kept;
        let pouch = Self { data: Mutex::new(data), extras: OnceLock::new() };
        if !shared.is_empty() {
            pouch.extras.get_or_init(Default::default).lock().shared = shared;
        }
        pouch
    }

    /// What it holds now.
    pub(crate) fn kept(&self) -> Kept {
        let shared = self.extras.get().map(|extras| extras.lock().shared.clone()).unwrap_or_default();
        Kept { data: self.data.lock().clone(), shared }
    }
}

#[derive(Default)]
struct Extras {
    listeners: Listeners,
    /// Name → data that other nodes may see.
    shared: Vec<(&'static str, ToJson)>,
}

type ToJson = Arc<dyn Fn() -> ImksResult<serde_json::Value> + Send + Sync>;

impl Socket {
    /// Keeps a value with the socket, for example the user behind it. One value per type: an earlier value of the
    /// same type is replaced.
    pub fn set_data<T: Send + Sync + 'static>(&self, value: T) {
        self.keep(Arc::new(value));
        self.data_changed();
    }

    /// As [`Socket::set_data`], and shown to other nodes as `data.NAME` of a [`RemoteSocket`].
    ///
    /// [`RemoteSocket`]: crate::socket::RemoteSocket
    pub fn share_data<T: Serialize + Send + Sync + 'static>(&self, name: &'static str, value: T) {
        self.share_quietly(name, value);
        self.data_changed();
        if let Some(hook) = &self.namespace().hooks().data {
            hook(self);
        }
    }

    /// The same, and nobody is told.
    pub(crate) fn share_quietly<T: Serialize + Send + Sync + 'static>(&self, name: &'static str, value: T) {
        let value = Arc::new(value);
        self.keep(value.clone());
        let to_json: ToJson = Arc::new(move || Ok(serde_json::to_value(&*value)?));
        let mut extras = self.extras();
        extras.shared.retain(|(known, _)| *known != name);
        extras.shared.push((name, to_json));
    }

    fn data_changed(&self) {
        if let Some((store, link)) = self.session() {
            store.set_data(link, || self.pouch().kept());
        }
    }

    /// The value of this type, if one was kept.
    pub fn data<T: Send + Sync + 'static>(&self) -> Option<Arc<T>> {
        let data = self.pouch().data.lock();
        data.iter().find_map(|value| value.clone().downcast().ok())
    }

    /// Takes the value of this type away.
    pub fn remove_data<T: Send + Sync + 'static>(&self) -> Option<Arc<T>> {
        let mut data = self.pouch().data.lock();
        let place = data.iter().position(|value| value.is::<T>())?;
        let value = data.swap_remove(place);
        drop(data);
        self.data_changed();
        value.downcast().ok()
    }

    fn keep<T: Send + Sync + 'static>(&self, value: Arc<T>) {
        let mut data = self.pouch().data.lock();
        match data.iter_mut().find(|known| known.is::<T>()) {
            Some(known) => *known = value,
            None => data.push(value),
        }
    }

    /// What [`Socket::share_data`] keeps, as one JSON object.
    pub fn shared_data(&self) -> serde_json::Value {
        let Some(extras) = self.pouch().extras.get() else { return serde_json::json!({}) };
        let extras = extras.lock();
        let fields =
            extras.shared.iter().filter_map(|(name, to_json)| Some(((*name).to_owned(), to_json().ok()?)));
        serde_json::Value::Object(fields.collect())
    }

    /// Packet middleware of this socket alone, behind that of its namespace. See
    /// [`NamespaceBuilder::packet_middleware`](crate::socket::NamespaceBuilder::packet_middleware).
    pub fn packet_middleware<F, Fut>(&self, step: F)
    where
        F: Fn(Event) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Event, EventError>> + Send + 'static,
    {
        self.listen(|listeners| listeners.add_middleware(step));
    }

    /// Sees every event of this client, before packet middleware and handlers.
    pub fn on_any(&self, listener: impl Fn(&Event) + Send + Sync + 'static) {
        self.listen(|listeners| listeners.add_incoming(listener));
    }

    /// Sees every event that is sent to this client; acks aside.
    pub fn on_any_outgoing(&self, listener: impl Fn(&Socket, &Args) + Send + Sync + 'static) {
        self.listen(|listeners| listeners.add_outgoing(listener));
    }

    /// Removes all packet middleware and listeners of this socket.
    pub fn off_any(&self) {
        if let Some(extras) = self.pouch().extras.get() {
            extras.lock().listeners = Listeners::default();
        }
    }

    fn listen(&self, add: impl FnOnce(&mut Listeners)) {
        let mut extras = self.extras();
        add(&mut extras.listeners);
        self.namespace().watch(&extras.listeners);
    }

    fn extras(&self) -> MutexGuard<'_, Extras> {
        self.pouch().extras.get_or_init(Default::default).lock()
    }

    pub(crate) fn listeners(&self) -> Option<Listeners> {
        self.pouch().extras.get().map(|extras| extras.lock().listeners.clone())
    }
}

impl fmt::Debug for Pouch {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_tuple("Pouch").field(&self.data.lock().len()).finish()
    }
}
