//! One user: what the devices of this node and the other nodes say, and the status that follows.

use std::collections::HashMap;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use uuid::Uuid;

use super::wire::{Devices, Record};
use crate::clock::{Micros, Timestamp};
use crate::models::user_presence::StoredChoice;
use crate::node::NodeId;

/// What others see of a user.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(rename = "PresenceStatus")]
pub(in crate::messaging) enum Status {
    Online,
    Idle,
    Dnd,
    Offline,
}

impl Status {
    /// Returns the name on the wire.
    pub(in crate::messaging) fn name(self) -> &'static str {
        match self {
            Self::Online => "online",
            Self::Idle => "idle",
            Self::Dnd => "dnd",
            Self::Offline => "offline",
        }
    }
}

/// What a user has chosen to show.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(rename = "PresenceChoice")]
pub(in crate::messaging) enum Choice {
    /// What the devices say.
    Online,
    /// Away, whatever the devices say.
    Idle,
    /// Not to be disturbed.
    Dnd,
    /// Offline, whatever the devices say.
    Invisible,
}

impl Choice {
    /// Returns the number under which it is stored.
    pub(in crate::messaging) fn number(self) -> i32 {
        self as i32
    }

    /// Returns the choice with a number. One that only a newer version knows is taken for `Online`.
    pub(super) fn from_number(number: i32) -> Self {
        let all = [Self::Online, Self::Idle, Self::Dnd, Self::Invisible];
        all.into_iter().find(|choice| choice.number() == number).unwrap_or(Self::Online)
    }
}

/// The presence of a user: the payload of `presence:update`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
pub(in crate::messaging) struct Presence {
    pub user_id: Uuid,
    pub status: Status,
    /// When a device was last active, to the minute; `None` if that is not known.
    pub last_active_at: Option<Timestamp>,
    /// Grows with each change; greater after a restart too.
    pub version: i64,
}

impl Presence {
    pub(super) fn unknown(user_id: Uuid) -> Self {
        Self { user_id, status: Status::Offline, last_active_at: None, version: 0 }
    }
}

/// A moment on two clocks: one for deadlines, one for people.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Moment {
    pub(super) instant: Instant,
    pub(super) micros: Micros,
}

impl Moment {
    /// Returns the moment that is later by a duration.
    pub(super) fn after(self, duration: Duration) -> Self {
        let micros = i64::try_from(duration.as_micros()).unwrap_or(i64::MAX);
        Self { instant: self.instant + duration, micros: self.micros.saturating_add(micros) }
    }

    /// Returns the moment at which the clock for people shows, or showed, `micros`.
    pub(super) fn at(self, micros: Micros) -> Self {
        let distance = Duration::from_micros(micros.abs_diff(self.micros));
        let instant = match micros > self.micros {
            true => self.instant.checked_add(distance),
            false => self.instant.checked_sub(distance),
        };
        Self { instant: instant.unwrap_or(self.instant), micros }
    }
}

/// What another node has reported last.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reported {
    pub(super) node: NodeId,
    /// The number of its reports.
    pub(super) number: u64,
    is_active: bool,
    /// How many devices are connected there, as far as it says so.
    count: u16,
}

/// A short absence, which is not shown.
#[derive(Debug, Clone, Copy)]
struct Absence {
    /// Whether it was active that has left.
    is_active: bool,
    until: Moment,
}

#[derive(Debug)]
pub(super) struct User {
    /// Until when each device of this node is active.
    devices: HashMap<Box<str>, Moment>,
    /// The absence of devices of this node.
    left: Option<Absence>,
    /// The other nodes with devices of the user.
    nodes: Vec<Reported>,
    /// The absence of other nodes.
    nodes_left: Option<Absence>,
    chosen: Option<StoredChoice>,
    choice: Choice,
    choice_ends: Option<Moment>,
    /// Until when this node has to tell the others of a choice that was made here, also when the device has left.
    chose_here: Option<Moment>,
    active_at: Option<Micros>,
    /// What the devices of this node said last, and since when.
    own: (Devices, Micros),
    /// How many devices of this node there were when the other nodes were told last.
    own_count: u16,
    pub(super) look_at: Option<Moment>,
    pub(super) shown: Presence,
}

impl User {
    pub(super) fn new(user: Uuid) -> Self {
        Self {
            devices: HashMap::new(),
            left: None,
            // Few users are connected to more than one node.
            nodes: Vec::with_capacity(1),
            nodes_left: None,
            chosen: None,
            choice: Choice::Online,
            choice_ends: None,
            chose_here: None,
            active_at: None,
            own: (Devices::Gone, 0),
            own_count: 0,
            look_at: None,
            shown: Presence::unknown(user),
        }
    }

    pub(super) fn chosen(&self) -> Option<StoredChoice> {
        self.chosen
    }

    fn has_devices(&self) -> bool {
        !self.devices.is_empty()
    }

    /// Whether this node has to tell the others of the user.
    pub(super) fn is_ours(&self) -> bool {
        self.has_devices() || self.chose_here.is_some()
    }

    /// Whether no device is known to be anywhere.
    pub(super) fn is_nowhere(&self) -> bool {
        self.devices.is_empty() && self.nodes.is_empty()
    }

    /// Notes that a device of this node is there, and until when it is active.
    pub(super) fn has(&mut self, device: &str, active_until: Moment) {
        self.devices.insert(device.into(), active_until);
    }

    /// Notes that a device of this node is active.
    pub(super) fn is_active_on(&mut self, device: &str, now: Moment) {
        self.has(device, now.after(ACTIVE_LEASE));
        self.was_active(now.micros);
    }

    /// Notes that a device of this node has left. Its absence is not shown until `until`.
    pub(super) fn lost(&mut self, device: &str, now: Moment, until: Moment) {
        let Some(active_until) = self.devices.remove(device) else { return };
        let is_active = active_until.instant > now.instant || self.has_just_been_active(now);
        self.left = Some(Absence { is_active, until });
    }

    /// Returns what another node has reported last.
    pub(super) fn reported_by(&self, node: NodeId) -> Option<&Reported> {
        self.nodes.iter().find(|reported| reported.node == node)
    }

    /// Notes that there are devices on another node.
    pub(super) fn is_on(&mut self, (node, number): (NodeId, u64), record: &Record) {
        let (is_active, count) = (record.devices == Devices::Active, record.count);
        let reported = Reported { node, number, is_active, count };
        match self.nodes.iter_mut().find(|known| known.node == node) {
            Some(known) => *known = reported,
            None => self.nodes.push(reported),
        }
    }

    /// Returns how many devices other nodes have reported. One that does not say how many has at least one.
    pub(super) fn elsewhere(&self) -> usize {
        self.nodes.iter().map(|reported| usize::from(reported.count.max(1))).sum()
    }

    /// Notes that there is no device on another node any more. The absence is not shown until `until`.
    pub(super) fn is_off(&mut self, node: NodeId, now: Moment, until: Moment) {
        let Some(place) = self.nodes.iter().position(|known| known.node == node) else { return };
        let is_active = self.nodes.swap_remove(place).is_active;
        // Another node may have left a moment ago.
        self.nodes_left = match self.nodes_left.filter(|left| left.until.instant > now.instant) {
            Some(left) => {
                Some(Absence { is_active: is_active || left.is_active, until: until.max(left.until) })
            }
            None => Some(Absence { is_active, until }),
        };
    }

    /// Notes a choice, unless a later one is known. Returns whether it is news.
    pub(super) fn choose(&mut self, chosen: StoredChoice, now: Moment) -> bool {
        let is_news = self.chosen.is_none_or(|known| known.set_at < chosen.set_at);
        if is_news {
            (self.chosen, self.chose_here) = (Some(chosen), None);
            self.choice = Choice::from_number(chosen.choice);
            self.choice_ends = chosen.until.map(|until| now.at(until));
        }
        is_news
    }

    /// Notes that the choice was made on this node.
    pub(super) fn has_chosen_here(&mut self, now: Moment) {
        self.chose_here = Some(now.after(CHOICE_KEPT));
    }

    /// Notes when a device was active.
    pub(super) fn was_active(&mut self, at: Micros) {
        self.active_at = self.active_at.max(Some(to_the_minute(at)));
    }

    /// Returns what others see now. Another node does not report each sign of an active device, but there was one within
    /// the last minute.
    pub(super) fn seen(&self, now: Micros) -> Presence {
        let mut seen = self.shown;
        if seen.status != Status::Offline && self.nodes.iter().any(|reported| reported.is_active) {
            seen.last_active_at = seen.last_active_at.max(Some(Timestamp(to_the_minute(now - MINUTE))));
        }
        seen
    }

    /// Returns what the other nodes have to know.
    pub(super) fn record(&self) -> Record {
        let Presence { user_id, last_active_at, version, .. } = self.shown;
        let ((devices, since), count) = (self.own, self.own_count);
        let last_active = last_active_at.map(|at| at.0);
        Record { user: user_id, devices, count, since, last_active, version, chosen: self.chosen }
    }

    /// Returns the status at `now`, and when it may change by itself.
    pub(super) fn aggregate(&mut self, now: Moment) -> (Status, Option<Moment>) {
        let lasts = |end: &Moment| end.instant > now.instant;
        if self.choice_ends.is_some_and(|end| !lasts(&end)) {
            (self.choice, self.choice_ends) = (Choice::Online, None);
        }
        self.left = self.left.filter(|left| lasts(&left.until));
        self.nodes_left = self.nodes_left.filter(|left| lasts(&left.until));
        self.chose_here = self.chose_here.filter(lasts);
        let absences = || self.left.iter().chain(&self.nodes_left);
        let is_connected = !self.is_nowhere();
        let is_known = is_connected || absences().next().is_some();
        let is_active = self.devices_say(now) == Devices::Active
            || self.nodes.iter().any(|reported| reported.is_active)
            || absences().any(|left| left.is_active);
        if self.choice != Choice::Invisible {
            // Who is invisible is not shown as active either.
            self.shown.last_active_at = self.shown.last_active_at.max(self.active_at.map(Timestamp));
        }
        let status = match self.choice {
            _ if !is_known => Status::Offline,
            // Somebody who was not seen is not shown because they have left.
            _ if !is_connected && self.shown.status == Status::Offline => Status::Offline,
            Choice::Invisible => Status::Offline,
            Choice::Dnd => Status::Dnd,
            Choice::Online if is_active => Status::Online,
            Choice::Online | Choice::Idle => Status::Idle,
        };
        let ends = absences().map(|left| left.until).chain(self.active_until(now));
        (status, ends.chain(self.choice_ends.filter(|_| is_known)).chain(self.chose_here).min())
    }

    /// Notes what the devices of this node say now. Returns whether it is news.
    pub(super) fn listen_to_devices(&mut self, now: Moment) -> bool {
        let (was, is) = (self.own.0, self.devices_say(now));
        if was != is {
            self.own = (is, now.micros);
        }
        let count = u16::try_from(self.devices.len()).unwrap_or(u16::MAX);
        let had = std::mem::replace(&mut self.own_count, count);
        was != is || had != count
    }

    fn devices_say(&self, now: Moment) -> Devices {
        match self.has_devices() {
            false => Devices::Gone,
            true if self.has_just_been_active(now) || self.active_until(now).is_some() => Devices::Active,
            true => Devices::Idle,
        }
    }

    /// Whether a device of this node was active that left a moment ago.
    fn has_just_been_active(&self, now: Moment) -> bool {
        self.left.is_some_and(|left| left.is_active && left.until.instant > now.instant)
    }

    /// Returns when the last active device of this node stops to be active, unless it gives a further sign.
    fn active_until(&self, now: Moment) -> Option<Moment> {
        self.devices.values().max().copied().filter(|until| until.instant > now.instant)
    }
}

/// How long a device counts as active after its last sign.
pub(in crate::messaging) const ACTIVE_LEASE: Duration = Duration::from_secs(60);
/// How long a node remembers a choice that was made there, for others who have missed it.
const CHOICE_KEPT: Duration = Duration::from_secs(600);
const MINUTE: Micros = 60_000_000;

fn to_the_minute(at: Micros) -> Micros {
    at.saturating_sub(at.rem_euclid(MINUTE))
}
