//! The server's budget of answer bytes, shared fairly: what one user may take depends on what is left.
//!
//! A user holds at most one [`USER_PART`]th of the bytes that are free or already theirs (the "dynamic
//! threshold" of shared packet buffers). Users who hold their share for long, because their lines are slow,
//! therefore leave a part of the budget to everybody else.

use std::collections::{BTreeMap, HashMap};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::oneshot;
use tokio::time::timeout;
use uuid::Uuid;

use crate::messaging::metrics;

/// The number of bytes that a request wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Wanted {
    /// The size of the whole answer.
    pub(super) most: usize,
    /// The size that the request settles for when it has waited for a while.
    pub(super) least: usize,
}

/// The bytes of all answers of the server. Clones share them.
#[derive(Debug, Clone)]
pub(super) struct FairBudget(Arc<Mutex<Ledger>>);

/// Bytes of the budget that one request holds until this is dropped.
#[derive(Debug)]
pub(super) struct Share {
    budget: FairBudget,
    user: Uuid,
    bytes: usize,
}

impl FairBudget {
    /// Creates a budget of `server_bytes`, of which one user may hold at most `user_bytes`.
    pub(super) fn new(server_bytes: usize, user_bytes: usize) -> Self {
        let user_bytes = user_bytes.min(server_bytes / USER_PART).max(1);
        let holdings = Holdings { user_bytes, free: server_bytes, held: HashMap::new() };
        Self(Arc::new(Mutex::new(Ledger { holdings, waiting: BTreeMap::new(), next_waiter: 0 })))
    }

    /// Waits until the user may hold `wanted.most` bytes, or after `patience` at least `wanted.least`.
    /// Requests are served in the order of their arrival, but one for which there is no room delays none of
    /// the others. Dropping the future ends the wait. Returns `None` only if the budget was dropped.
    pub(super) async fn take(&self, user: Uuid, wanted: Wanted, patience: Duration) -> Option<Share> {
        let (grant, granted) = oneshot::channel();
        let id = self.change(|ledger| ledger.queue(user, wanted, grant));
        let _waiting = Waiting { budget: self, id };
        let mut granted = pin!(granted);
        if let Ok(share) = timeout(patience, &mut granted).await {
            return share.ok();
        }
        self.change(|ledger| ledger.settle(id));
        granted.await.ok()
    }

    /// Changes the ledger, and then grants waiting requests what there is room for.
    fn change<T>(&self, change: impl FnOnce(&mut Ledger) -> T) -> T {
        let mut ledger = self.0.lock();
        let changed = change(&mut ledger);
        let grants = ledger.grant();
        drop(ledger);
        for Grant { waiter, bytes } in grants {
            metrics::ANSWER_BYTES.add(signed(bytes));
            // If the request gave up a moment ago, dropping its share gives the bytes back.
            drop(waiter.grant.send(Share { budget: self.clone(), user: waiter.user, bytes }));
        }
        changed
    }

    fn give_back(&self, user: Uuid, bytes: usize) {
        if bytes > 0 {
            metrics::ANSWER_BYTES.add(-signed(bytes));
            self.change(|ledger| ledger.holdings.give_back(user, bytes));
        }
    }

    /// Returns the number of bytes that nobody holds.
    #[cfg(test)]
    pub(super) fn free(&self) -> usize {
        self.0.lock().holdings.free
    }

    /// Whether nobody holds bytes or waits for some.
    #[cfg(test)]
    pub(super) fn is_idle(&self) -> bool {
        let ledger = self.0.lock();
        ledger.holdings.held.is_empty() && ledger.waiting.is_empty()
    }
}

impl Share {
    /// Returns the number of bytes.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Gives back everything above `bytes`.
    pub(super) fn shrink_to(&mut self, bytes: usize) {
        let spare = self.bytes.saturating_sub(bytes);
        self.bytes -= spare;
        self.budget.give_back(self.user, spare);
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.budget.give_back(self.user, self.bytes);
    }
}

/// A request that waits until this is dropped.
struct Waiting<'a> {
    budget: &'a FairBudget,
    id: u64,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.budget.0.lock().waiting.remove(&self.id);
    }
}

/// The holdings of all users, and the requests that wait.
#[derive(Debug)]
struct Ledger {
    holdings: Holdings,
    /// The waiting requests in the order of their arrival. Each belongs to a handler, and a connection runs a
    /// limited number of those.
    waiting: BTreeMap<u64, Waiter>,
    next_waiter: u64,
}

#[derive(Debug)]
struct Waiter {
    user: Uuid,
    wanted: Wanted,
    /// The fewest bytes that this request takes now.
    accepts: usize,
    grant: oneshot::Sender<Share>,
}

/// The bytes for a request that no longer waits.
struct Grant {
    waiter: Waiter,
    bytes: usize,
}

impl Ledger {
    fn queue(&mut self, user: Uuid, wanted: Wanted, grant: oneshot::Sender<Share>) -> u64 {
        // A request for more than a user may ever hold would wait for ever.
        let most = wanted.most.min(self.holdings.user_bytes);
        let wanted = Wanted { most, least: wanted.least.min(most) };
        let id = self.next_waiter;
        self.next_waiter += 1;
        self.waiting.insert(id, Waiter { user, wanted, accepts: most, grant });
        id
    }

    fn settle(&mut self, id: u64) {
        if let Some(waiter) = self.waiting.get_mut(&id) {
            waiter.accepts = waiter.wanted.least;
        }
    }

    /// Removes the requests for which there is room from the queue, and takes their bytes.
    fn grant(&mut self) -> Vec<Grant> {
        let Self { holdings, waiting, .. } = self;
        let mut taken = Vec::new();
        for (id, waiter) in &*waiting {
            if let Some(bytes) = holdings.take(waiter) {
                taken.push((*id, bytes));
            }
        }
        let grant = |(id, bytes)| waiting.remove(&id).map(|waiter| Grant { waiter, bytes });
        taken.into_iter().filter_map(grant).collect()
    }
}

/// The bytes that are free, and those of each user.
#[derive(Debug)]
struct Holdings {
    /// The most bytes of one user.
    user_bytes: usize,
    free: usize,
    /// The users who hold bytes.
    held: HashMap<Uuid, usize>,
}

impl Holdings {
    /// Returns the number of bytes that the user may take now.
    fn room(&self, user: Uuid) -> usize {
        let held = self.held.get(&user).copied().unwrap_or(0);
        ((self.free + held) / USER_PART).min(self.user_bytes).saturating_sub(held)
    }

    /// Takes as much as a request wants and may have, or nothing if that is less than it accepts.
    fn take(&mut self, waiter: &Waiter) -> Option<usize> {
        // Nobody may take more than this. Most waiters of a long queue end here, without a look-up.
        if waiter.accepts > self.free / USER_PART {
            return None;
        }
        let bytes = self.room(waiter.user).min(waiter.wanted.most);
        if bytes < waiter.accepts {
            return None;
        }
        self.free -= bytes;
        *self.held.entry(waiter.user).or_default() += bytes;
        Some(bytes)
    }

    fn give_back(&mut self, user: Uuid, bytes: usize) {
        self.free += bytes;
        if let Some(held) = self.held.get_mut(&user) {
            *held -= bytes;
            if *held == 0 {
                self.held.remove(&user);
            }
        }
    }
}

fn signed(bytes: usize) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

/// The divisor of a user's share: with 8, the first user may hold an eighth of the budget, and 30 users who
/// never give anything back leave 1 / 64 of it.
const USER_PART: usize = 8;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SERVER: usize = 64 << 20;
    const USER: usize = 8 << 20;
    const LEAST: usize = 128 << 10;

    fn user(number: u64) -> Uuid {
        Uuid::from_u128(number.into())
    }

    /// Makes a user hold all bytes that they may.
    async fn hold_all(budget: &FairBudget, number: u64) -> Vec<Share> {
        let mut shares = Vec::new();
        let wanted = Wanted { most: USER, least: LEAST };
        while let Ok(share) =
            timeout(Duration::from_secs(10), budget.take(user(number), wanted, PATIENCE)).await
        {
            shares.extend(share);
        }
        shares
    }

    const PATIENCE: Duration = Duration::from_secs(2);

    #[tokio::test(start_paused = true)]
    async fn thirty_slow_users_who_take_all_they_can_leave_room_for_others() {
        let budget = FairBudget::new(SERVER, USER);
        let mut slow = Vec::new();
        for number in 0..30 {
            slow.push(hold_all(&budget, number).await);
        }
        assert!(budget.free() >= SERVER / 64, "{} bytes are left", budget.free());
        let whole = Wanted { most: 2 << 20, least: LEAST };
        let share = budget.take(user(100), whole, PATIENCE).await.unwrap();
        assert!(share.bytes() >= LEAST, "{} bytes", share.bytes());
        let small = Wanted { most: LEAST / 2, least: LEAST / 2 };
        assert_eq!(budget.take(user(101), small, Duration::MAX).await.unwrap().bytes(), LEAST / 2);
        drop((slow, share));
        assert!(budget.is_idle() && budget.free() == SERVER);
    }

    #[tokio::test(start_paused = true)]
    async fn a_large_request_without_room_does_not_delay_a_small_one() {
        let budget = FairBudget::new(800, 100);
        let wanted = |most| Wanted { most, least: most };
        let all = budget.take(user(1), wanted(100), Duration::MAX).await.unwrap();
        let mut large = pin!(budget.take(user(2), wanted(100), Duration::MAX));
        assert!(timeout(PATIENCE, &mut large).await.is_err(), "700 bytes are free, so 87 is the most");
        budget.take(user(3), wanted(50), Duration::MAX).await.unwrap();
        drop(all);
        assert_eq!(large.await.unwrap().bytes(), 100);
    }

    /// One operation on the ledger.
    #[derive(Debug, Clone)]
    enum Step {
        Ask { user: u64, most: usize, least: usize },
        Settle { index: usize },
        GiveUp { index: usize },
        GiveBack { index: usize },
    }

    fn step() -> impl Strategy<Value = Step> {
        let ask = (0..6_u64, 1..200_usize, 1..50_usize);
        prop_oneof![
            4 => ask.prop_map(|(user, most, least)| Step::Ask { user, most, least }),
            1 => any::<usize>().prop_map(|index| Step::Settle { index }),
            1 => any::<usize>().prop_map(|index| Step::GiveUp { index }),
            2 => any::<usize>().prop_map(|index| Step::GiveBack { index }),
        ]
    }

    fn nth(ledger: &Ledger, index: usize) -> Option<u64> {
        ledger.waiting.keys().nth(index % ledger.waiting.len().max(1)).copied()
    }

    fn apply(ledger: &mut Ledger, held: &mut Vec<(Uuid, usize)>, step: Step) {
        match step {
            Step::Ask { user: number, most, least } => {
                ledger.queue(user(number), Wanted { most, least }, oneshot::channel().0);
            }
            Step::Settle { index } => {
                nth(ledger, index).into_iter().for_each(|id| ledger.settle(id));
            }
            Step::GiveUp { index } => {
                nth(ledger, index).into_iter().for_each(|id| drop(ledger.waiting.remove(&id)));
            }
            Step::GiveBack { index } if !held.is_empty() => {
                let (user, bytes) = held.swap_remove(index % held.len());
                ledger.holdings.give_back(user, bytes);
            }
            Step::GiveBack { .. } => {}
        }
    }

    proptest! {
        #[test]
        fn users_stay_within_their_part_and_nobody_waits_while_nothing_is_held(
            steps in proptest::collection::vec(step(), 1..200),
        ) {
            const TOTAL: usize = 1_000;
            let holdings = Holdings { user_bytes: 100, free: TOTAL, held: HashMap::new() };
            let mut ledger = Ledger { holdings, waiting: BTreeMap::new(), next_waiter: 0 };
            let mut held: Vec<(Uuid, usize)> = Vec::new();
            for step in steps {
                apply(&mut ledger, &mut held, step);
                for Grant { waiter, bytes } in ledger.grant() {
                    prop_assert!(bytes >= waiter.accepts && bytes <= waiter.wanted.most);
                    held.push((waiter.user, bytes));
                    let theirs: usize = held.iter().filter(|one| one.0 == waiter.user).map(|one| one.1).sum();
                    prop_assert!(theirs <= 100);
                }
                prop_assert_eq!(ledger.holdings.free + held.iter().map(|one| one.1).sum::<usize>(), TOTAL);
                prop_assert!(ledger.holdings.free > 0, "a part is always left");
                prop_assert!(!held.is_empty() || ledger.waiting.is_empty());
            }
        }
    }
}
