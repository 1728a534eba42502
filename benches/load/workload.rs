//! The workloads, by name.

use super::{Outcome, client::Via, echo::Echo, fanout::Fanout, idle, measure::Measured, server::Server};

/// Members of one room of 1,000, all rooms of 10 together, or one room of 9,900.
const MANY: usize = 9_900;
const IDLE: usize = 10_000;

/// One kind of load.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Workload {
    Echo,
    EchoPipelined,
    Echo4k,
    Fan,
    Fan8,
    Fan32,
    Fan4k,
    Fan10k,
    Rooms,
    Connect,
    ConnectUpgrade,
}

/// What the first running system must reach and where the project goes, as ratios to socketioxide in the same run.
pub struct Budget {
    pub first: f64,
    pub goal: f64,
}

impl Workload {
    pub const ALL: [Self; 11] = [
        Self::Echo,
        Self::EchoPipelined,
        Self::Echo4k,
        Self::Fan,
        Self::Fan8,
        Self::Fan32,
        Self::Fan4k,
        Self::Fan10k,
        Self::Rooms,
        Self::Connect,
        Self::ConnectUpgrade,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Self::Echo => "echo100",
            Self::EchoPipelined => "echo100w16",
            Self::Echo4k => "echo4k",
            Self::Fan => "fan1k",
            Self::Fan8 => "fan1k-w8",
            Self::Fan32 => "fan1k-w32",
            Self::Fan4k => "fan1k-4k",
            Self::Fan10k => "fan10k",
            Self::Rooms => "rooms",
            Self::Connect => "connect",
            Self::ConnectUpgrade => "connect-up",
        }
    }

    /// What it does, for the report.
    pub fn meaning(self) -> &'static str {
        match self {
            Self::Echo => "100 connections, window 1, 100 B; per ack",
            Self::EchoPipelined => "100 connections, window 16, 100 B; per ack",
            Self::Echo4k => "100 connections, window 1, 4 KiB; per ack",
            Self::Fan => "1,000 in one room, 1 under way, 100 B; per delivery",
            Self::Fan8 => "1,000 in one room, 8 under way, 100 B; per delivery",
            Self::Fan32 => "1,000 in one room, 32 under way, 100 B; per delivery",
            Self::Fan4k => "1,000 in one room, 1 under way, 4 KiB; per delivery",
            Self::Fan10k => "9,900 in one room, 1 under way, 100 B; per delivery",
            Self::Rooms => "990 rooms of 10, 64 under way in all, 100 B; per delivery",
            Self::Connect => "10,000 by WebSocket alone; per connection",
            Self::ConnectUpgrade => "10,000 by polling, then WebSocket; per connection",
        }
    }

    pub fn budget(self) -> Budget {
        let (first, goal) = match self {
            Self::Echo => (1.0, 0.70),
            Self::EchoPipelined => (0.5, 0.20),
            Self::Echo4k => (0.8, 0.55),
            Self::Fan => (0.85, 0.62),
            Self::Fan8 | Self::Fan32 => (0.8, 0.40),
            Self::Fan4k => (0.9, 0.72),
            Self::Fan10k => (0.75, 0.50),
            Self::Rooms => (0.75, 0.52),
            Self::Connect => (0.8, 0.45),
            Self::ConnectUpgrade => (0.8, 0.50),
        };
        Budget { first, goal }
    }

    /// How many connections it holds.
    pub fn connections(self) -> usize {
        match self {
            Self::Echo | Self::EchoPipelined | Self::Echo4k => 100,
            Self::Fan | Self::Fan8 | Self::Fan32 | Self::Fan4k => 1_000,
            Self::Fan10k | Self::Rooms => MANY,
            Self::Connect | Self::ConnectUpgrade => IDLE,
        }
    }

    pub fn run(self, server: &Server) -> Outcome<Measured> {
        let members = self.connections();
        match self {
            Self::Echo => Echo { window: 1, rate: None, bytes: 100 }.run(server, members),
            Self::EchoPipelined => Echo { window: 16, rate: None, bytes: 100 }.run(server, members),
            Self::Echo4k => Echo { window: 1, rate: None, bytes: 4096 }.run(server, members),
            Self::Fan | Self::Fan10k => {
                Fanout { rooms: 1, under_way: 1, rate: None, bytes: 100 }.run(server, members)
            }
            Self::Fan8 => Fanout { rooms: 1, under_way: 8, rate: None, bytes: 100 }.run(server, members),
            Self::Fan32 => Fanout { rooms: 1, under_way: 32, rate: None, bytes: 100 }.run(server, members),
            Self::Fan4k => Fanout { rooms: 1, under_way: 1, rate: None, bytes: 4096 }.run(server, members),
            Self::Rooms => {
                Fanout { rooms: members / 10, under_way: 64, rate: None, bytes: 100 }.run(server, members)
            }
            Self::Connect => idle::run(server, members, Via::WebSocket),
            Self::ConnectUpgrade => idle::run(server, members, Via::Upgrade),
        }
    }
}
