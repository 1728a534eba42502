//! Dynamic namespaces, created on demand when a client asks for a path that matches a rule.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use dashmap::DashMap;
use dashmap::mapref::entry::Entry;
use serde::Serialize;

use crate::bus::BoxFuture;
use crate::error::{ImksError, ImksResult};
use crate::socket::cluster::message_bus::MessageBus;
use crate::socket::cluster::namespace_cluster::NamespaceCluster;
use crate::socket::codec::arguments::{Arguments, One};
use crate::socket::namespace::connect::ConnectPayload;
use crate::socket::namespace::delivery::Delivery;
use crate::socket::namespace::handlers::Handlers;
use crate::socket::namespace::namespace::{Namespace, OnClientGone, check_path};
use crate::socket::recovery::config::Recovery;

/// A rule that decides which paths belong to a dynamic namespace.
pub struct NamespaceMatch(Rule);

enum Rule {
    Pattern(Box<str>),
    Predicate(Box<dyn Fn(&str) -> bool + Send + Sync>),
    Ask(Box<dyn Fn(Arc<str>, ConnectPayload) -> BoxFuture<'static, bool> + Send + Sync>),
}

impl NamespaceMatch {
    /// Matches paths with a pattern in which `*` stands for one or more characters other than `/`.
    ///
    /// `/room-*` matches `/room-12`, and `/shop/*/orders` matches `/shop/7/orders`.
    pub fn pattern(pattern: &str) -> Self {
        Self(Rule::Pattern(pattern.into()))
    }

    /// Matches paths for which `predicate` returns `true`.
    pub fn when(predicate: impl Fn(&str) -> bool + Send + Sync + 'static) -> Self {
        Self(Rule::Predicate(Box::new(predicate)))
    }

    /// Matches paths that `allow` permits for a client.
    ///
    /// It runs for every client, even if the namespace exists already, and before any middleware.
    pub fn ask<F, Fut>(allow: F) -> Self
    where
        F: Fn(Arc<str>, ConnectPayload) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = bool> + Send + 'static,
    {
        Self(Rule::Ask(Box::new(move |path, payload| Box::pin(allow(path, payload)))))
    }

    async fn allows(&self, path: &Arc<str>, payload: &ConnectPayload) -> bool {
        match &self.0 {
            Rule::Pattern(pattern) => matches_pattern(pattern, path),
            Rule::Predicate(predicate) => predicate(path),
            Rule::Ask(allow) => allow(path.clone(), payload.clone()).await,
        }
    }
}

impl From<&str> for NamespaceMatch {
    fn from(pattern: &str) -> Self {
        Self::pattern(pattern)
    }
}

impl fmt::Debug for NamespaceMatch {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match &self.0 {
            Rule::Pattern(pattern) => pattern,
            Rule::Predicate(_) => "predicate",
            Rule::Ask(_) => "ask",
        })
    }
}

fn matches_pattern(pattern: &str, path: &str) -> bool {
    let Some((fixed, rest)) = pattern.split_once('*') else { return pattern == path };
    let Some(path) = path.strip_prefix(fixed) else { return false };
    // Try every length for the star; the rest of the pattern decides. Paths have at most 256 characters.
    let star = path.find('/').unwrap_or(path.len());
    let ends = path.char_indices().map(|(at, c)| at + c.len_utf8()).take_while(|end| *end <= star);
    ends.into_iter().any(|end| matches_pattern(rest, &path[end..]))
}

/// A dynamic namespace: a template for namespaces created on demand. It is cheap to clone.
#[derive(Clone)]
pub struct DynamicNamespace {
    registry: Arc<Dynamic>,
    parent: usize,
}

impl DynamicNamespace {
    /// Returns the child namespaces that exist on this node.
    pub fn children(&self) -> Vec<Namespace> {
        let children = self.registry.children.iter();
        children.filter(|child| child.parent == self.parent).map(|child| child.namespace.clone()).collect()
    }

    /// Returns the child with this path, if it exists.
    pub fn child(&self, path: &str) -> Option<Namespace> {
        let child = self.registry.children.get(path).filter(|child| child.parent == self.parent)?;
        Some(child.namespace.clone())
    }

    /// Sends an event with one argument to everybody in every child of this node.
    ///
    /// Sockets in the same namespaces on other nodes get it too.
    pub fn emit(&self, event: &str, data: &(impl Serialize + ?Sized)) -> ImksResult<()> {
        self.emit_args(event, &One(data))
    }

    /// Sends an event with any arguments to everybody in every child of this node.
    ///
    /// Sockets in the same namespaces on other nodes get it too.
    pub fn emit_args(&self, event: &str, args: &impl Arguments) -> ImksResult<()> {
        self.children().iter().try_for_each(|child| child.emit_args(event, args))
    }

    /// Sends an event with one argument to everybody in this room of every child.
    pub fn emit_to_room(&self, room: &str, event: &str, data: &(impl Serialize + ?Sized)) -> ImksResult<()> {
        self.children().iter().try_for_each(|child| child.emit_to_room(room, event, data))
    }
}

impl fmt::Debug for DynamicNamespace {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.registry.parents.get(self.parent).map(|parent| &parent.name);
        formatter.debug_tuple("DynamicNamespace").field(&name).finish()
    }
}

/// All dynamic namespaces of a server, and their children.
pub(crate) struct Dynamic {
    parents: Vec<Parent>,
    children: DashMap<Box<str>, Child>,
    /// The number of `children`. Kept separately, because `DashMap::len` would deadlock while an entry is
    /// locked.
    len: AtomicUsize,
    limits: DynamicLimits,
    on_new: Option<NewNamespaceHook>,
    bus: Arc<MessageBus>,
}

pub(crate) type NewNamespaceHook = Box<dyn Fn(&Namespace) + Send + Sync>;

/// The template of one dynamic namespace.
pub(crate) struct Parent {
    pub(crate) name: String,
    pub(crate) rule: NamespaceMatch,
    pub(crate) handlers: Arc<Handlers>,
}

/// The limits from the configuration of the server.
#[derive(Debug, Clone)]
pub(crate) struct DynamicLimits {
    pub(crate) children_max: usize,
    pub(crate) cleanup: bool,
    pub(crate) recovery: Option<Recovery>,
    /// How long other nodes have to respond.
    pub(crate) request_timeout: Duration,
}

struct Child {
    namespace: Namespace,
    cluster: NamespaceCluster,
    parent: usize,
    /// The number of sockets that are in the namespace or joining it. Changed only under the lock of the map.
    users: usize,
}

impl Dynamic {
    pub(crate) fn new(
        parents: Vec<Parent>,
        limits: DynamicLimits,
        on_new: Option<NewNamespaceHook>,
        bus: Arc<MessageBus>,
    ) -> Arc<Self> {
        Arc::new(Self { parents, children: DashMap::new(), len: AtomicUsize::new(0), limits, on_new, bus })
    }

    /// Whether a path that is not a static namespace may still match.
    pub(crate) fn is_used(&self) -> bool {
        !self.parents.is_empty()
    }

    pub(crate) fn parent(self: &Arc<Self>, name: &str) -> Option<DynamicNamespace> {
        let parent = self.parents.iter().position(|parent| parent.name == name)?;
        Some(DynamicNamespace { registry: self.clone(), parent })
    }

    pub(crate) fn child(&self, path: &str) -> Option<Namespace> {
        self.children.get(path).map(|child| child.namespace.clone())
    }

    pub(crate) fn children(&self) -> Vec<Namespace> {
        self.children.iter().map(|child| child.namespace.clone()).collect()
    }

    /// Returns the namespace of this path and counts the client as its user. `Ok(None)` means that no rule
    /// matches.
    pub(crate) async fn find(
        self: Arc<Self>,
        path: Arc<str>,
        payload: ConnectPayload,
    ) -> ImksResult<Option<Namespace>> {
        if check_path(&path).is_err() {
            return Ok(None);
        }
        let owner = self.children.get(&*path).map(|child| child.parent);
        let candidates = match owner {
            Some(parent) => parent..parent + 1,
            None => 0..self.parents.len(),
        };
        for parent in candidates {
            if self.parents[parent].rule.allows(&path, &payload).await {
                return self.acquire(&path, parent).map(Some);
            }
        }
        Ok(None)
    }

    fn acquire(self: &Arc<Self>, path: &str, parent: usize) -> ImksResult<Namespace> {
        let created = match self.children.entry(path.into()) {
            Entry::Occupied(mut child) => {
                child.get_mut().users += 1;
                return Ok(child.get().namespace.clone());
            }
            Entry::Vacant(place) => {
                let classic = self.parents[parent].handlers.hooks.classic.as_ref();
                let timeout = self.limits.request_timeout;
                let cluster = NamespaceCluster::of(path, classic, &self.bus, timeout)?;
                let within = |len: usize| (len < self.limits.children_max).then_some(len + 1);
                self.len
                    .fetch_update(Ordering::Relaxed, Ordering::Relaxed, within)
                    .map_err(|_| ImksError::LimitReached("dynamic namespaces"))?;
                let handlers = self.parents[parent].handlers.clone();
                let recovery = self.limits.recovery.as_ref().filter(|_| handlers.hooks.never_drops());
                let delivery = Delivery::new(recovery, None)?;
                let home = Arc::downgrade(self);
                let on_client_gone: OnClientGone = Box::new(move |path| {
                    if let Some(home) = home.upgrade() {
                        home.remove_user(path);
                    }
                });
                let link = cluster.link();
                let namespace = Namespace::new(path, handlers, link, delivery, Some(on_client_gone));
                cluster.listen(&namespace);
                place.insert(Child { namespace: namespace.clone(), cluster, parent, users: 1 });
                namespace
            }
        };
        tracing::debug!(namespace = path, "namespace created");
        if let Some(hook) = &self.on_new {
            hook(&created);
        }
        Ok(created)
    }

    /// Leaves the clusters that existing namespaces share with Node.js servers.
    pub(crate) async fn leave(&self) {
        let clusters: Vec<_> = self.children.iter().map(|child| child.cluster.clone()).collect();
        for cluster in clusters {
            cluster.leave().await;
        }
    }

    /// Decrements the number of users, and removes a namespace without users if cleanup is on.
    fn remove_user(&self, path: &str) {
        let removed = self.children.remove_if_mut(path, |_, child| {
            child.users = child.users.saturating_sub(1);
            let unused = child.users == 0 && self.limits.cleanup;
            if unused {
                // Unsubscribe under the lock, so that a new namespace with this path subscribes afterwards.
                child.cluster.unlisten(path);
            }
            unused
        });
        if removed.is_some() {
            self.len.fetch_sub(1, Ordering::Relaxed);
            tracing::debug!(namespace = path, "namespace removed");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::matches_pattern;

    #[test]
    fn a_star_stands_for_part_of_one_segment() {
        for (pattern, path) in [
            ("/room-*", "/room-12"),
            ("/shop/*/orders", "/shop/7/orders"),
            ("/*", "/é"),
            ("/a*b*c", "/axbbyc"),
            ("/fixed", "/fixed"),
        ] {
            assert!(matches_pattern(pattern, path), "{pattern} {path}");
        }
        for (pattern, path) in [
            ("/room-*", "/room-"),
            ("/room-*", "/room-1/2"),
            ("/shop/*/orders", "/shop//orders"),
            ("/shop/*/orders", "/shop/7/8/orders"),
            ("/*", "/"),
            ("/fixed", "/fixed2"),
        ] {
            assert!(!matches_pattern(pattern, path), "{pattern} {path}");
        }
    }
}
