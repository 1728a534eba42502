//! Restarts of servers, as `--rolling` sees them: the times in which clients were away.

use crate::cli::terminal::text::counted;

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
                let clients =
                    counted(away, "client has lost its connection", "clients have lost their connections");
                Some(format!("absence {}: {clients}", self.seen))
            }
            (1.., 0) => Some(format!("absence {}: all are back", self.seen)),
            _ => None,
        }
    }

    /// Returns how often clients were away, in a sentence.
    pub(super) fn note(&self) -> String {
        let times = if self.seen == 1 { "once".to_owned() } else { format!("{} times", self.seen) };
        match (self.seen, self.away) {
            (0, _) => "no connection was lost: nothing was restarted while this watched".into(),
            (_, 0) => format!("clients were away {times}, and came back"),
            (_, 1) => format!("clients were away {times}, and 1 still was at the last look"),
            (_, away) => format!("clients were away {times}, and {away} still were at the last look"),
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
        assert_eq!(restarts.note(), "clients were away 2 times, and came back");
        restarts.see(1);
        assert_eq!(restarts.note(), "clients were away 3 times, and 1 still was at the last look");
    }
}
