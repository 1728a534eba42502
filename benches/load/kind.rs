//! The servers that are compared, and where their programs are.

use std::{path::PathBuf, process::Command};

/// Which server.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Node,
    Socketioxide,
    Imks,
    /// imks with a single worker thread.
    ImksOneWorker,
}

impl Kind {
    pub const ALL: [Self; 4] = [Self::Node, Self::Socketioxide, Self::Imks, Self::ImksOneWorker];
    /// What is compared unless others are named.
    pub const COMPARED: [Self; 3] = [Self::Node, Self::Socketioxide, Self::Imks];

    pub fn name(self) -> &'static str {
        match self {
            Self::Node => "node",
            Self::Socketioxide => "socketioxide",
            Self::Imks => "imks",
            Self::ImksOneWorker => "imks-1",
        }
    }

    /// Says how to build it where it is not.
    pub fn is_built(self) -> bool {
        let (file, how) = match self {
            Self::Node => (peers().join("node/node_modules/socket.io"), "npm ci in benches/peers/node"),
            Self::Socketioxide => (socketioxide(), "cargo build --release in benches/peers/socketioxide"),
            Self::Imks | Self::ImksOneWorker => (imks(), "cargo build --release --example conformance"),
        };
        let built = file.exists();
        if !built {
            println!("{}: not built, left out ({how})", self.name());
        }
        built
    }

    pub fn command(self, port: u16) -> Command {
        let port = port.to_string();
        let mut command = match self {
            Self::Node => Command::new("node"),
            Self::Socketioxide => Command::new(socketioxide()),
            Self::Imks | Self::ImksOneWorker => Command::new(imks()),
        };
        match self {
            Self::Node => command.arg(peers().join("node/server.js")).arg(port),
            Self::Socketioxide => command.arg(port),
            Self::Imks | Self::ImksOneWorker => command.args(["load", "--port", &port]),
        };
        if self == Self::ImksOneWorker {
            command.env("TOKIO_WORKER_THREADS", "1");
        }
        command.env("NODE_ENV", "production");
        command
    }
}

fn peers() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("benches/peers")
}

fn socketioxide() -> PathBuf {
    peers().join("socketioxide/target/release/imks-peer-socketioxide")
}

/// Beside this program: `target/release/deps/load-…` and `target/release/examples/conformance`.
fn imks() -> PathBuf {
    let mut path = std::env::current_exe().unwrap_or_default();
    path.pop();
    path.pop();
    path.join("examples/conformance")
}
