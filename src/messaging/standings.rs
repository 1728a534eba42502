//! The states of channels that connecting users need, for many users with one query.

use std::collections::HashMap;

use uuid::Uuid;

use super::shared_query::SharedQuery;
use super::timed::timed;
use crate::error::ImksResult;
use crate::models::Db;
use crate::models::message_read_state::{Standing, standings};

/// The states of the channels of a user. Channels without a read position are missing.
pub(super) type ChannelStates = HashMap<Uuid, Standing>;

/// The reader of states. Cheap to clone.
#[derive(Clone)]
pub(super) struct Standings(SharedQuery<Question, ChannelStates>);

/// A user, and the channels that they ask for.
type Question = (Uuid, Vec<Uuid>);

impl Default for Standings {
    fn default() -> Self {
        Self(SharedQuery::new(QUERIES_AT_ONCE, PAIRS_MAX))
    }
}

impl Standings {
    /// Returns the states of the channels of a user.
    ///
    /// # Errors
    /// `Database`.
    pub(super) async fn of(&self, db: &Db, user: Uuid, channels: Vec<Uuid>) -> ImksResult<ChannelStates> {
        if channels.is_empty() {
            return Ok(ChannelStates::new());
        }
        let (db, weight) = (db.clone(), channels.len());
        self.0.ask(((user, channels), weight), move |questions| read(db.clone(), questions)).await
    }
}

/// Answers questions with one query.
async fn read(db: Db, questions: Vec<Question>) -> ImksResult<Vec<ChannelStates>> {
    let pairs: Vec<(Uuid, Uuid)> = questions
        .iter()
        .flat_map(|(user, channels)| channels.iter().map(|channel| (*user, *channel)))
        .collect();
    let found = timed("standings", standings(&db, &pairs)).await?;
    let all: HashMap<(Uuid, Uuid), Standing> =
        found.into_iter().map(|state| ((state.user_id, state.head.channel_id), state)).collect();
    let of = |(user, channels): Question| {
        let own = channels.into_iter().filter_map(|channel| Some((channel, *all.get(&(user, channel))?)));
        own.collect()
    };
    Ok(questions.into_iter().map(of).collect())
}

/// The number of queries that run at the same time.
const QUERIES_AT_ONCE: usize = 4;
/// The number of pairs of user and channel in one query, unless one user alone has more.
const PAIRS_MAX: usize = 2_000;

#[cfg(test)]
mod tests {
    use futures_util::future::join_all;
    use tokio::time::timeout;

    use super::*;
    use crate::models::db::Config;
    use crate::models::message_read_state::baseline;

    #[tokio::test]
    async fn each_of_many_users_gets_their_own_states_whoever_else_has_gone() {
        let config = Config { url: Some("sqlite::memory:".into()), ..Config::default() };
        let db = Db::connect(&config).await.unwrap();
        db.migrate().await.unwrap();
        let (standings, users) = (Standings::default(), [(); 300].map(|()| Uuid::now_v7()));
        let channels = [(); 10].map(|()| Uuid::now_v7());
        for (number, user) in users.iter().enumerate() {
            let own: Vec<(Uuid, Option<i64>)> =
                channels.iter().take(number % 10).map(|channel| (*channel, None)).collect();
            baseline(&db, *user, &own).await.unwrap();
        }
        let ask = async |number: usize, user: Uuid| {
            let question = standings.of(&db, user, channels.to_vec());
            match number % 3 {
                // Asks, and does not wait for the answer.
                0 => drop(timeout(std::time::Duration::ZERO, question).await),
                _ => {
                    let states = question.await.unwrap();
                    assert_eq!(states.len(), number % 10, "user {number}");
                    assert!(states.values().all(|state| state.user_id == user));
                }
            }
        };
        join_all(users.iter().enumerate().map(|(number, user)| ask(number, *user))).await;
        assert!(standings.0.is_idle());
        let Db::Sqlite(sqlite) = &db else { panic!("not SQLite") };
        sqlite.reader.close().await;
        let failed = join_all(users.iter().map(|user| standings.of(&db, *user, channels.to_vec()))).await;
        assert!(failed.iter().all(Result::is_err), "each hears the reason of a query of their own");
    }
}
