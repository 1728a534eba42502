//! Random conversations on SQLite, on PostgreSQL, and on two nodes of one PostgreSQL.

use std::time::Duration;

use imks::testing::config::{ClusterAdapter, Config};
use proptest::test_runner::{Config as Runs, FileFailurePersistence, TestRunner};
use tokio::runtime::Runtime;

use crate::operation::{Operation, conversation};
use crate::play::Play;
use crate::server::{Kind, TestServer};

/// A number from the environment.
pub fn number(name: &str, otherwise: usize) -> usize {
    std::env::var(name).map_or(otherwise, |text| text.parse().expect(name))
}

fn holds(runtime: &Runtime, nodes: &[TestServer]) {
    let runs = Runs {
        cases: number("IMKS_MODEL_CASES", 2) as u32,
        max_shrink_iters: 200,
        failure_persistence: Some(Box::new(FileFailurePersistence::SourceParallel("proptest-regressions"))),
        source_file: Some(file!()),
        ..Runs::default()
    };
    let steps = number("IMKS_MODEL_STEPS", 120);
    let outcome = TestRunner::new(runs).run(&conversation(steps), |operations| {
        runtime.block_on(Box::pin(play(nodes, &operations)));
        Ok(())
    });
    outcome.unwrap_or_else(|failure| panic!("{failure}"));
}

async fn play(nodes: &[TestServer], operations: &[Operation]) {
    let mut play = Play::begin(nodes).await;
    for operation in operations {
        play.step(operation).await;
    }
    play.end().await;
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

fn on_one(kind: Kind) {
    let runtime = runtime();
    let server = runtime.block_on(Box::pin(TestServer::start(kind)));
    let nodes = [server];
    holds(&runtime, &nodes);
    let [server] = nodes;
    runtime.block_on(server.stop());
}

#[test]
fn whatever_users_do_the_server_and_every_device_agree_with_a_plain_model_on_sqlite() {
    on_one(Kind::Sqlite);
}

#[test]
fn whatever_users_do_the_server_and_every_device_agree_with_a_plain_model_on_postgres() {
    on_one(Kind::Postgres);
}

#[test]
fn whatever_users_do_the_server_and_every_device_agree_with_a_plain_model_on_two_nodes() {
    let runtime = runtime();
    let nodes = runtime.block_on(Box::pin(two_nodes()));
    holds(&runtime, &nodes);
    for node in nodes {
        runtime.block_on(node.stop());
    }
}

/// Two servers with one database, which reach each other by it.
pub async fn two_nodes() -> [TestServer; 2] {
    let database = crate::postgres::create().await;
    let configure = |config: &mut Config| {
        config.database.url = Some(database.clone().into());
        config.database.max_connections = 8;
        let patience = Duration::from_secs(10);
        (config.database.statement_timeout, config.database.acquire_timeout) = (patience, patience);
        config.cluster.adapter = Some(ClusterAdapter::Postgres);
    };
    [
        TestServer::start_with(Kind::Sqlite, configure).await,
        TestServer::start_with(Kind::Sqlite, configure).await,
    ]
}
