//! The way to a core of its own: TLS on both sides, several addresses, and files that change.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use imks::testing::cli::core;
use imks::testing::config::Config;
use imks::testing::pb::{Config as CoreConfig, CoreClient};
use tokio::sync::oneshot;
use tokio::time::timeout;
use uuid::Uuid;

use crate::support::authority::Authority;
use crate::support::core::FakeCore;

const SOON: Duration = Duration::from_secs(15);

/// Runs `imks core` while `client` runs.
async fn with_core<T>(edit: impl FnOnce(&mut Config), client: impl AsyncFnOnce(String) -> T) -> T {
    let directory = tempfile::tempdir().unwrap();
    let mut config = Config { listen: free_port(), ..Config::default() };
    config.database.data_dir = directory.path().into();
    edit(&mut config);
    let (stop, stopped) = oneshot::channel::<()>();
    let url = format!("https://localhost:{}", config.listen.port());
    let serve = core::run(&config, async { drop(stopped.await) });
    let client = async {
        let outcome = client(url).await;
        stop.send(()).unwrap();
        outcome
    };
    let (served, outcome) = tokio::join!(Box::pin(serve), Box::pin(client));
    served.unwrap();
    outcome
}

fn free_port() -> SocketAddr {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

fn client(url: &str, ca: Option<&Path>, own: Option<&(PathBuf, PathBuf)>) -> CoreClient {
    let (cert, key) = own.cloned().unzip();
    CoreClient::connect(url, CoreConfig { ca: ca.map(Path::to_owned), cert, key, ..CoreConfig::default() })
        .unwrap()
}

/// Whether the core answers within seconds.
async fn answers(client: &CoreClient) -> bool {
    timeout(SOON, async { while client.signing_keys("").await.is_err() {} }).await.is_ok()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_sides_show_a_certificate_and_whoever_has_none_is_not_heard() {
    let (files, authority, stranger) = (tempfile::tempdir().unwrap(), Authority::new(), Authority::new());
    let (ca, server, own) =
        (authority.write(&files, "ca"), authority.sign(&files, "server"), authority.sign(&files, "client"));
    let (foreign_ca, foreign) = (stranger.write(&files, "other"), stranger.sign(&files, "other"));
    let edit = |config: &mut Config| {
        (config.tls.cert, config.tls.key) = (Some(server.0.clone()), Some(server.1.clone()));
        config.directory.client_ca = Some(ca.clone());
    };
    with_core(edit, async |url| {
        assert!(answers(&client(&url, Some(&ca), Some(&own))).await);
        for (trusted, shown) in [(&ca, None), (&ca, Some(&foreign)), (&foreign_ca, Some(&own))] {
            let client = client(&url, Some(trusted), shown);
            let error = client.signing_keys("").await.unwrap_err();
            assert!(error.is_retryable(), "{error}");
        }
        let plain = client(&url.replace("https", "http"), None, None);
        assert!(plain.signing_keys("").await.is_err(), "no plain text");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn certificates_that_change_are_used_without_a_restart() {
    let (files, old, new) = (tempfile::tempdir().unwrap(), Authority::new(), Authority::new());
    let (ca, server) = (old.write(&files, "ca"), new.sign(&files, "server"));
    let edit = |config: &mut Config| {
        (config.tls.cert, config.tls.key) = (Some(server.0.clone()), Some(server.1.clone()));
    };
    with_core(edit, async |url| {
        let client = client(&url, Some(&ca), None);
        assert!(client.signing_keys("").await.is_err(), "signed by somebody else");
        new.write(&files, "ca");
        assert!(answers(&client).await, "the file was read again");
    })
    .await;
}

#[tokio::test]
async fn a_file_that_cannot_be_used_is_told_at_the_start() {
    let files = tempfile::tempdir().unwrap();
    let garbage = files.path().join("garbage");
    std::fs::write(&garbage, "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n").unwrap();
    for ca in [garbage, files.path().join("missing")] {
        let config = CoreConfig { ca: Some(ca), ..CoreConfig::default() };
        let error = CoreClient::connect("https://localhost:1", config).unwrap_err();
        assert_eq!(error.code(), imks::error::Code::Internal, "{error}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_are_spread_over_all_addresses_and_go_on_when_one_is_gone() {
    let (one, two) = (FakeCore::start().await, FakeCore::start().await);
    let authority = |core: &FakeCore| core.url().replace("http://", "");
    let url = format!("http://{},{}", authority(&one), authority(&two));
    let client = CoreClient::connect(&url, CoreConfig::default()).unwrap();
    let user = Uuid::now_v7();
    let both = async {
        while one.calls("list_user_channels") == 0 || two.calls("list_user_channels") == 0 {
            client.list_user_channels(user).await.unwrap();
        }
    };
    timeout(SOON, both).await.expect("both are asked");
    one.stop();
    // Until the check of its health finds out, further attempts help; after that no call fails.
    let failing = async {
        let mut in_a_row = 0;
        while in_a_row < 200 {
            in_a_row = if client.list_user_channels(user).await.is_ok() { in_a_row + 1 } else { 0 };
        }
    };
    timeout(SOON, failing).await.expect("the other one answers alone");
    one.restart().await;
    let before = one.calls("list_user_channels");
    let back = async {
        while one.calls("list_user_channels") == before {
            client.list_user_channels(user).await.unwrap();
        }
    };
    timeout(SOON, back).await.expect("it is asked again when it is back");
}
