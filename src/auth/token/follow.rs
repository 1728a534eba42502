//! The background task of a [`TokenVerifier`](super::TokenVerifier), which follows the core's revocations.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};

use tokio_util::task::TaskTracker;

use super::{Inner, Way};
use crate::background;
use crate::clock::{micros, now_micros};
use crate::pb::{Change, Revocation, Watch, WatchKind};

impl Inner {
    pub(super) fn spawn(self: &Arc<Self>) {
        let watch = self.core.watch(WatchKind::Revocations);
        let follow = follow_revocations(Arc::downgrade(self), watch);
        let follow = self.stop.clone().run_until_cancelled_owned(follow);
        TaskTracker::new().spawn(background::essential("revocations", follow));
    }

    pub(super) fn revoke(&self, revocation: Revocation) {
        if let (Way::Own(own), Some(user)) = (&self.way, revocation.user_id) {
            own.users().forget(user);
        }
        let lifetime = micros(self.config.lifetime_max);
        // What is known already has ended its connections.
        let is_new = self.revocations.write().add(revocation, now_micros(), lifetime);
        if is_new && self.revoked.send(revocation).is_err() {
            tracing::trace!("nobody listens to revocations; the set is up to date");
        }
    }
}

async fn follow_revocations(inner: Weak<Inner>, mut watch: Watch) {
    loop {
        let change = watch.next().await;
        let Some(inner) = inner.upgrade() else { return };
        match change {
            Change::Revoked(revocation) => inner.revoke(revocation),
            Change::CaughtUp | Change::Resumed => inner.follows(true),
            Change::Missing => inner.follows(false),
            // After a reset the stream sends everything again; the revocations received so far remain valid.
            _ => {}
        }
    }
}

impl Inner {
    /// Records whether the core reports revocations. Either way, no past ones are to be waited for.
    fn follows(&self, is_followed: bool) {
        if self.is_followed.swap(is_followed, Ordering::Relaxed) && !is_followed {
            tracing::warn!("the core does not report withdrawn tokens: it is asked about those in use");
        }
        self.caught_up.send_replace(true);
    }
}
