//! The task that measures the transports of a race now and then while the client is connected, and asks for a change
//! where another one has become the favourite.

use std::sync::Arc;

use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

use super::event::Status;
use super::racing::Racing;
use super::shared::{Command, Shared};
use super::transport::{Dialer, measure};

/// Measures until the client has ended.
pub(super) async fn run(
    (shared, commands): (Arc<Shared>, mpsc::WeakSender<Command>),
    dialer: Arc<Dialer>,
    racing: Racing,
    random: fn() -> f64,
) {
    let mut status = shared.status.subscribe();
    let dialer = Arc::new(dialer.apart());
    loop {
        // A clock that cannot show the time means never.
        let Some(next) = Instant::now().checked_add(racing.pause(random())) else { return };
        tokio::select! {
            _ = status.wait_for(|status| *status == Status::Closed) => return,
            () = sleep_until(next) => {}
        }
        if *status.borrow() != Status::Connected {
            continue;
        }
        // One after the other, so that they do not slow each other down.
        for transport in racing.between() {
            let took = measure(dialer.clone(), transport, racing.reach_timeout()).await;
            shared.racer.lock().attempt(transport, took);
        }
        shared.racer.lock().judge();
        let (favourite, current) = (shared.racer.lock().favourite(), shared.counting.lock().transport());
        if let (Some(favourite), Some(current)) = (favourite, current)
            && favourite != current
        {
            let Some(commands) = commands.upgrade() else { return };
            // A client that has ended changes nothing any more.
            let _ = commands.send(Command::Switch(favourite)).await;
        }
    }
}
