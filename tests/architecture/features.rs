//! Features: what each of them brings into a build, in docs/embedding.md and in the promise of the Socket.IO library.

use std::collections::BTreeSet;
use std::process::Command;

use super::{report, root, update_or_compare};

/// The features that can be built by themselves.
const FEATURES: [&str; 7] = ["wire", "client", "client-quic", "socketio", "admin", "server", "full"];

/// What somebody who embeds a Socket.IO server does not want to build.
const NOT_FOR_SOCKETS: [&str; 9] =
    ["async-nats", "clap", "fred", "jsonwebtoken", "opentelemetry", "prost", "sqlx", "tonic", "rusty-s3"];

#[test]
fn the_number_of_crates_of_each_feature_is_the_documented_one() {
    let row = |feature: &&str| format!("| `{feature}` | {} |\n", crates(feature).len());
    let rows: String = FEATURES.iter().map(row).collect();
    update_or_compare(
        "docs/embedding.md",
        "crates",
        &format!("| features | crates |\n| --- | ---: |\n{rows}"),
    );
}

#[test]
fn neither_library_brings_a_database_grpc_or_a_command_line() {
    let mut problems = Vec::new();
    for feature in ["wire", "client", "client-quic", "socketio"] {
        let built = crates(feature);
        let unwanted =
            NOT_FOR_SOCKETS.iter().filter(|name| built.iter().any(|it| it.starts_with(&format!("{name} "))));
        problems.extend(unwanted.map(|name| format!("{feature}: {name}")));
    }
    assert!(crates("server").iter().any(|it| it.starts_with("sqlx ")), "the names are still those of cargo");
    report(&problems, "Make the dependency optional, or move what needs it behind `server`.");
}

/// The crates of a build on Linux, each as `name v1.2.3`, without imks itself.
fn crates(feature: &str) -> BTreeSet<String> {
    let output = Command::new(env!("CARGO"))
        .args(["tree", "--offline", "--locked", "--edges", "normal", "--prefix", "none", "--format", "{p}"])
        .args(["--target", "x86_64-unknown-linux-gnu", "--no-default-features", "--features", feature])
        .current_dir(root())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    let names = text.lines().map(|line| line.split(' ').take(2).collect::<Vec<_>>().join(" "));
    names.filter(|name| !name.is_empty() && !name.starts_with("imks ")).collect()
}
