//! The servers that the clients can talk to, and where their programs are.

use std::path::{Path, PathBuf};
use std::process::Command;

/// Which server.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Host {
    Node,
    Imks,
}

impl Host {
    pub const ALL: [Self; 2] = [Self::Node, Self::Imks];

    pub fn name(self) -> &'static str {
        match self {
            Self::Node => "node",
            Self::Imks => "imks",
        }
    }

    pub fn is_built(self) -> bool {
        match self {
            Self::Node => peers().join("node/node_modules/socket.io").exists(),
            Self::Imks => conformance().exists(),
        }
    }

    pub fn command(self, port: u16) -> Command {
        let port = port.to_string();
        let mut command = match self {
            Self::Node => Command::new("node"),
            Self::Imks => Command::new(conformance()),
        };
        match self {
            Self::Node => command.arg(peers().join("node/server.js")).arg(port),
            Self::Imks => command.args(["load", "--port", &port]),
        };
        command.env("NODE_ENV", "production");
        command
    }
}

pub fn peers() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../peers")
}

/// What `cargo build --release --example conformance` has made.
fn conformance() -> PathBuf {
    let target = std::env::var_os("CARGO_TARGET_DIR")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target"), PathBuf::from);
    target.join("release/examples/conformance")
}
