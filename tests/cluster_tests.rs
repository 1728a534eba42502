//! Several nodes that reach each other through real brokers, and brokers that fail.

#![cfg(feature = "server")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    clippy::large_futures,
    missing_docs,
    reason = "tests"
)]

#[path = "../examples/conformance/cluster.rs"]
mod application;
#[path = "cluster/balancer.rs"]
mod balancer;
#[path = "cluster/broker.rs"]
mod broker;
#[path = "cluster/classic.rs"]
mod classic;
#[path = "support/client.rs"]
#[allow(dead_code, reason = "other tests need more of it")]
mod client;
#[path = "support/collector.rs"]
#[allow(dead_code, reason = "other tests need more of it")]
mod collector;
#[allow(dead_code, reason = "these nodes pass on no requests")]
#[path = "../examples/conformance/contacts.rs"]
mod contacts;
#[path = "cluster/deployed.rs"]
mod deployed;
#[path = "cluster/everywhere.rs"]
mod everywhere;
#[path = "support/npm.rs"]
#[allow(dead_code, reason = "other tests need more of it")]
mod npm;
#[path = "cluster/outages.rs"]
mod outages;
#[path = "cluster/pipe.rs"]
mod pipe;
#[path = "support/postgres.rs"]
mod postgres;
#[path = "cluster/presence.rs"]
mod presence;
#[path = "cluster/process.rs"]
mod process;
#[path = "cluster/proxy.rs"]
mod proxy;
#[path = "cluster/recovery.rs"]
mod recovery;
#[path = "cluster/recovery_log.rs"]
mod recovery_log;
#[path = "cluster/relay.rs"]
mod relay;
#[path = "cluster/rolling.rs"]
mod rolling;
#[path = "client/script.rs"]
#[allow(dead_code, reason = "other tests need more of it")]
mod script;
#[path = "cluster/serve.rs"]
mod serve;
#[path = "cluster/serve_resume.rs"]
mod serve_resume;
#[path = "support/server.rs"]
#[allow(dead_code, reason = "other tests need more of it")]
mod server;
#[path = "cluster/suite.rs"]
mod suite;
#[path = "dialect/server.rs"]
#[allow(dead_code, reason = "other tests need more of it")]
mod talker;
#[path = "cluster/upgrade.rs"]
mod upgrade;
