//! What the core says about channels, cached, for writes that no user's permission stands for.

use std::collections::HashMap;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;
use uuid::Uuid;

use crate::auth::{ChannelInfo, CoreClient};
use crate::{ImksError, ImksResult};

/// A bounded cache of channels. A change that the core reports removes its channel.
#[derive(Debug, Default)]
pub(super) struct Channels(Mutex<Cached>);

#[derive(Debug, Default)]
struct Cached {
    channels: HashMap<Uuid, (ChannelInfo, Instant)>,
    /// Counts the removals, so that an answer from before a change is not stored after it.
    epoch: u64,
}

impl Channels {
    /// Returns a channel. The core is asked unless its answer is cached; what does not exist is never cached.
    ///
    /// # Errors
    /// [`ImksError::NotFound`]; [`ImksError::Unavailable`] or [`ImksError::Timeout`] when the core does not answer.
    pub(super) async fn get(&self, core: &CoreClient, id: Uuid) -> ImksResult<ChannelInfo> {
        let now = Instant::now();
        let epoch = {
            let cached = self.0.lock();
            if let Some((channel, until)) = cached.channels.get(&id)
                && now < *until
            {
                return Ok(channel.clone());
            }
            cached.epoch
        };
        let channel = core.channels(&[id]).await?.into_iter().find(|channel| channel.id == id);
        let channel = channel.ok_or(ImksError::NotFound("channel"))?;
        self.0.lock().store(channel.clone(), epoch, now);
        Ok(channel)
    }

    /// Removes a channel that has changed.
    pub(super) fn forget(&self, id: Uuid) {
        let mut cached = self.0.lock();
        cached.epoch += 1;
        cached.channels.remove(&id);
    }

    /// Removes all channels, because changes may have been missed.
    pub(super) fn forget_all(&self) {
        let mut cached = self.0.lock();
        cached.epoch += 1;
        cached.channels.clear();
    }
}

impl Cached {
    fn store(&mut self, channel: ChannelInfo, epoch: u64, now: Instant) {
        if epoch != self.epoch {
            return;
        }
        if self.channels.len() >= CHANNELS_MAX {
            self.channels.retain(|_, (_, until)| now < *until);
        }
        // All are fresh: better to ask again for a few than to remember without bound.
        if self.channels.len() < CHANNELS_MAX {
            self.channels.insert(channel.id, (channel, now + FRESH));
        }
    }
}

/// How long an answer is used.
const FRESH: Duration = Duration::from_secs(60);
/// The most cached channels.
const CHANNELS_MAX: usize = 65_536;
