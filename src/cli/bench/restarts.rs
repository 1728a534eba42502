//! Restarts of servers, as `--rolling` sees them: the times in which clients were away.

/// What `--rolling` has seen of restarts: the times in which clients were away.
#[derive(Debug, Default)]
pub(super) struct Restarts {
    away: u64,
    seen: u64,
}

impl Restarts {
    /// Takes how many clients are away, and returns what to tell when that begins or ends.
    pub(super) fn see(&mut self, away: u64) -> Option<String> {
        let before = std::mem::replace(&mut self.away, away);
        match (before, away) {
            (0, 1..) => {
                self.seen += 1;
                Some(format!("absence {}: {away} clients have lost their connection", self.seen))
            }
            (1.., 0) => Some(format!("absence {}: all are back", self.seen)),
            _ => None,
        }
    }

    /// Returns how often clients were away, in a sentence.
    pub(super) fn note(&self) -> String {
        match (self.seen, self.away) {
            (0, _) => "no connection was lost: nothing was restarted while this watched".into(),
            (seen, 0) => format!("{seen} times clients were away and came back"),
            (seen, away) => format!("{seen} times clients were away, and {away} still were at the last look"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn restarts_are_told_once_when_they_begin_and_once_when_all_are_back() {
        let mut restarts = Restarts::default();
        let told: Vec<bool> = [0, 3, 5, 1, 0, 0, 2, 0].map(|away| restarts.see(away).is_some()).to_vec();
        assert_eq!(told, [false, true, false, false, true, false, true, true]);
        assert_eq!(restarts.note(), "2 times clients were away and came back");
        restarts.see(1);
        assert_eq!(restarts.note(), "3 times clients were away, and 1 still were at the last look");
    }
}
