//! Several connections to one server, between which the work is divided.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::future::join_all;

use super::budget::Used;
use super::builder::ClientBuilder;
use super::error::{ClientError, ClientResult};
use super::event::Status;
use super::handle::Client;
use super::socket::Socket;

/// Several clients of one server. Cloning it is cheap, and all clones are the same pool.
///
/// Each client has its own connection, session, queue and outbox, so the order of events holds within one of them only.
/// More than one helps where one connection is slowed down by lost packets or by a core of the server, not otherwise.
///
/// ```no_run
/// use imks::client::{Balance, Client, ClientPool};
///
/// # async fn run() -> imks::client::ClientResult<()> {
/// let build = |_| Client::builder("https://chat.example").auth_token("…").retry_initial();
/// let pool = ClientPool::new(4, Balance::LeastLoaded, build)?;
/// pool.prewarm("/").await?;
/// pool.namespace("/").await?.emit("said", "hello").await?;
/// # Ok(()) }
/// ```
#[derive(Debug, Clone)]
pub struct ClientPool(Arc<Pool>);

#[derive(Debug)]
struct Pool {
    clients: Vec<Client>,
    balance: Balance,
    turn: AtomicUsize,
}

/// Which connection of a pool gets the next piece of work. One that is broken gets it only if all are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Balance {
    /// Each in turn.
    #[default]
    RoundRobin,
    /// The one for which the fewest bytes wait to be sent, and each in turn where they are equal.
    LeastLoaded,
}

impl ClientPool {
    /// Builds a pool of 1 to 256 clients, which do not connect yet. `build` gets the number of each, from 0, and says how
    /// it is built: an outbox in a file, for one, belongs to one client.
    ///
    /// # Errors
    /// [`ClientError::Config`] for another number; those of [`ClientBuilder::build`].
    pub fn new(
        connections: usize,
        balance: Balance,
        build: impl Fn(usize) -> ClientBuilder,
    ) -> ClientResult<Self> {
        if !(1..=CONNECTIONS_MAX).contains(&connections) {
            let reason = format!("a pool has 1 to {CONNECTIONS_MAX} connections, not {connections}");
            return Err(ClientError::Config(reason));
        }
        let clients = (0..connections).map(|number| build(number).build()).collect::<ClientResult<_>>()?;
        Ok(Self(Arc::new(Pool { clients, balance, turn: AtomicUsize::new(0) })))
    }

    /// Connects all clients at once and joins a namespace with each. Returns how many have joined: one that fails does
    /// not stop the others. It is tried again when it is its turn, and by itself with
    /// [`ClientBuilder::retry_initial`], for which this waits.
    ///
    /// # Errors
    /// The failure of the last one if all have failed.
    pub async fn prewarm(&self, path: &str) -> ClientResult<usize> {
        let joined = join_all(self.0.clients.iter().map(|client| client.namespace(path))).await;
        let mut failure = ClientError::Closed;
        let mut successes = 0;
        for result in joined {
            match result {
                Ok(_) => successes += 1,
                Err(error) => failure = error,
            }
        }
        if successes > 0 { Ok(successes) } else { Err(failure) }
    }

    /// Returns the namespace of the client whose turn it is, joined. If that fails, it is the next one's turn.
    ///
    /// # Errors
    /// The failure of the last one if all have failed.
    pub async fn namespace(&self, path: &str) -> ClientResult<Socket> {
        let mut failure = ClientError::Closed;
        for client in self.line_up() {
            match client.namespace(path).await {
                Ok(socket) => return Ok(socket),
                Err(error) => failure = error,
            }
        }
        Err(failure)
    }

    /// Returns all clients, in the order of their numbers, for handlers and events of each.
    pub fn clients(&self) -> &[Client] {
        &self.0.clients
    }

    /// Whether at least one client is connected.
    pub fn is_connected(&self) -> bool {
        self.0.clients.iter().any(Client::is_connected)
    }

    /// Returns how many clients are connected.
    pub fn connected(&self) -> usize {
        self.0.clients.iter().filter(|client| client.is_connected()).count()
    }

    /// Returns how much waits to be sent in all clients together.
    pub fn waiting(&self) -> Used {
        self.0.clients.iter().map(Client::waiting).fold(Used::default(), |sum, used| Used {
            events: sum.events + used.events,
            bytes: sum.bytes + used.bytes,
        })
    }

    /// Closes all clients at once, as [`Client::close`] does.
    pub async fn close(&self) {
        join_all(self.0.clients.iter().map(Client::close)).await;
    }

    /// Returns the clients in the order in which they should get the next piece of work.
    fn line_up(&self) -> impl Iterator<Item = &Client> {
        let Pool { clients, balance, turn } = &*self.0;
        let turn = turn.fetch_add(1, Ordering::Relaxed);
        let states: Vec<_> = clients.iter().map(|client| (client.status(), client.waiting().bytes)).collect();
        order(*balance, turn, &states).into_iter().map(|number| &clients[number])
    }
}

/// Returns the numbers of the clients, the best one first.
fn order(balance: Balance, turn: usize, states: &[(Status, usize)]) -> Vec<usize> {
    let mut numbers: Vec<usize> = (0..states.len()).map(|number| (turn + number) % states.len()).collect();
    numbers.sort_by_key(|&number| {
        let (status, bytes) = states[number];
        // One that is idle connects when it gets work, which is how a pool grows.
        let is_broken = !matches!(status, Status::Connected | Status::Idle);
        (is_broken, if balance == Balance::LeastLoaded { bytes } else { 0 })
    });
    numbers
}

/// The maximum number of connections of a pool.
const CONNECTIONS_MAX: usize = 256;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn states() -> impl Strategy<Value = Vec<(Status, usize)>> {
        let status = prop_oneof![Just(Status::Idle), Just(Status::Connected), Just(Status::Reconnecting)];
        proptest::collection::vec((status, 0usize..3), 1..8)
    }

    proptest! {
        #[test]
        fn every_client_is_in_the_line_once_and_the_broken_ones_are_last(states in states(), turn in 0usize..20) {
            for balance in [Balance::RoundRobin, Balance::LeastLoaded] {
                let line = order(balance, turn, &states);
                let is_broken = |number: &usize| states[*number].0 == Status::Reconnecting;
                prop_assert!(line.is_sorted_by_key(is_broken));
                let mut numbers = line;
                numbers.sort_unstable();
                prop_assert!(numbers.into_iter().eq(0..states.len()));
            }
        }

        #[test]
        fn the_work_goes_round_or_to_the_one_with_the_least(states in states(), turn in 0usize..20) {
            let whole: Vec<_> = states.iter().map(|(_, bytes)| (Status::Connected, *bytes)).collect();
            prop_assert_eq!(order(Balance::RoundRobin, turn, &whole)[0], turn % whole.len());
            let least = order(Balance::LeastLoaded, turn, &whole)[0];
            prop_assert_eq!(whole[least].1, whole.iter().map(|(_, bytes)| *bytes).min().unwrap());
        }
    }
}
