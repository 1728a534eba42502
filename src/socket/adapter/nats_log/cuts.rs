//! When the connection to NATS is lost.

use async_nats::{ConnectOptions, Event};
use tokio::sync::watch;

use crate::error::{Cause, ImksError, ImksResult};

/// Ends what is under way when the connection is lost.
pub(super) struct Cuts(watch::Sender<()>);

impl Cuts {
    /// Follows a connection with these options.
    pub(super) fn follow(options: ConnectOptions) -> (ConnectOptions, Self) {
        let cuts = watch::Sender::new(());
        let cut = cuts.clone();
        let options = options.event_callback(move |event| {
            if matches!(event, Event::Disconnected | Event::Closed) {
                cut.send_replace(());
            }
            std::future::ready(())
        });
        (options, Self(cuts))
    }

    /// Waits for an access, or until the connection is lost: its answers do not come on the next one, which is there soon.
    pub(super) async fn until<T>(&self, access: impl Future<Output = ImksResult<T>>) -> ImksResult<T> {
        let mut cuts = self.0.subscribe();
        tokio::select! {
            biased;
            done = access => done,
            _ = cuts.changed() => {
                Err(ImksError::AdapterNats(Cause::new("the connection was lost before the answer")))
            }
        }
    }
}
