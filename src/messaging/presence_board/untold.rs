//! The order in which clients are told of presence: that of the changes, whichever tasks made them.

use parking_lot::Mutex;

use super::user::Presence;

/// What has changed and was not told yet.
#[derive(Debug, Default)]
pub(super) struct Untold(Mutex<Queue>);

#[derive(Debug, Default)]
struct Queue {
    waiting: Vec<Presence>,
    /// Whether a task is telling right now. It also tells what is added meanwhile.
    is_telling: bool,
}

impl Untold {
    /// Adds changes in their order. Returns whether there were any, so that [`Untold::tell`] has to be called.
    pub(super) fn add(&self, changes: impl IntoIterator<Item = Presence>) -> bool {
        let waiting = &mut self.0.lock().waiting;
        let before = waiting.len();
        waiting.extend(changes);
        waiting.len() > before
    }

    /// Tells with `send` what was added, unless another task is telling and does it. If two did it side by side, the earlier
    /// of two changes could arrive last, and replace the later one in the queue of a slow client.
    pub(super) fn tell(&self, mut send: impl FnMut(Presence)) {
        while let Some((_turn, told)) = self.next() {
            told.into_iter().for_each(&mut send);
        }
    }

    fn next(&self) -> Option<(Turn<'_>, Vec<Presence>)> {
        let mut queue = self.0.lock();
        if queue.is_telling || queue.waiting.is_empty() {
            return None;
        }
        queue.is_telling = true;
        Some((Turn(&self.0), std::mem::take(&mut queue.waiting)))
    }
}

/// The turn of the task that tells. It ends even if the task panics.
struct Turn<'a>(&'a Mutex<Queue>);

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.0.lock().is_telling = false;
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    #[test]
    fn what_changes_while_clients_are_told_is_told_after_that_although_another_task_wants_to_tell() {
        let (untold, told) = (Untold::default(), Mutex::new(Vec::new()));
        let change = |version| Presence { version, ..Presence::unknown(Uuid::nil()) };
        assert!(untold.add([change(1), change(2)]) && !untold.add([]));
        untold.tell(|first| {
            if first.version == 1 {
                untold.add([change(3)]);
                untold.tell(|late| told.lock().push(late.version));
            }
            told.lock().push(first.version);
        });
        assert_eq!(*told.lock(), [1, 2, 3]);
        untold.add([change(4)]);
        untold.tell(|next| told.lock().push(next.version));
        assert_eq!(*told.lock(), [1, 2, 3, 4]);
    }
}
