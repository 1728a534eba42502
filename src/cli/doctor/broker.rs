//! The checks of `imks doctor` of a broker: Redis or NATS.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_nats::ServerAddr;
use fred::clients::Client;
use fred::interfaces::{ClientLike, PubsubInterface};
use fred::types::config::Config;
use fred::types::{Builder, InfoKind};
use tokio::time::{Instant, timeout};

use super::report::{Fault, Outcome};
use super::{ANSWER_MAX, Doctor, advice, in_vain};
use crate::bus::Pipe;
use crate::cli::terminal;
use crate::cli::terminal::text::counted;
use crate::node::NodeId;
use crate::socket::adapter::{nats as nats_adapter, redis as redis_adapter};
use crate::{ImksError, ImksResult};

/// Examines a Redis server, and who of the cluster `prefix` is connected to it.
pub(super) async fn redis(doctor: &mut Doctor, url: &str, prefix: &str) -> ImksResult<()> {
    let config = redis_config(url)?;
    let reaching = async {
        // A single connection fails at once, where a pipe tries again.
        let asked = match open_redis(config).await {
            Ok(asked) => asked,
            Err(fault) => return (None, Outcome::Failed(fault)),
        };
        let (pipe, outcome) = connect(|node| redis_adapter::connect(url, prefix, node), "Redis").await;
        (pipe.map(|pipe| (pipe, asked)), outcome)
    };
    let Some((pipe, (client, version))) = doctor.check("reachable", reaching).await? else {
        return doctor.skip(&["probe", "version", "members", "clusters"], "there is no connection");
    };
    doctor.check("probe", probe(&*pipe)).await?;
    close(&*pipe).await;
    doctor.check("version", async { (Some(()), Outcome::Good(version)) }).await?;
    let Some(nodes) = doctor.check("members", nodes(&client, prefix)).await? else {
        return doctor.skip(&["clusters"], "the nodes could not be listed");
    };
    doctor.check("clusters", async { (Some(()), others(&nodes, prefix)) }).await?;
    // Dropping the client closes the connection as well.
    let _ = timeout(ANSWER_MAX, Box::pin(client.quit())).await;
    Ok(())
}

/// Examines NATS servers.
pub(super) async fn nats(doctor: &mut Doctor, url: &str, prefix: &str) -> ImksResult<()> {
    let servers = nats_servers(url)?;
    let reaching = async {
        let version = match nats_version(&servers).await {
            Ok(version) => version,
            Err(fault) => return (None, Outcome::Failed(fault)),
        };
        let (pipe, outcome) = connect(|node| nats_adapter::connect(url, None, prefix, node), "NATS").await;
        (pipe.map(|pipe| (pipe, version)), outcome)
    };
    let Some((pipe, version)) = doctor.check("reachable", reaching).await? else {
        return doctor.skip(&["probe", "version", "members", "clusters"], "there is no connection");
    };
    doctor.check("probe", probe(&*pipe)).await?;
    close(&*pipe).await;
    doctor.check("version", async { (Some(()), Outcome::Good(version)) }).await?;
    doctor.skip(&["members", "clusters"], "NATS tells only its system account who listens to what")
}

/// Closes a pipe. The program ends: a broker that does not answer any more need not be waited for.
async fn close(pipe: &dyn Pipe) {
    let _ = timeout(ANSWER_MAX, pipe.close()).await;
}

/// Connects as a server does.
async fn connect(
    open: impl Fn(NodeId) -> ImksResult<Arc<dyn Pipe>>,
    name: &str,
) -> (Option<Arc<dyn Pipe>>, Outcome) {
    let pipe = match NodeId::random().and_then(open) {
        Ok(pipe) => pipe,
        Err(error) => return (None, Outcome::Failed(unusable(&error.to_string()))),
    };
    let mut state = pipe.state();
    let is_up = timeout(ANSWER_MAX, state.wait_for(|state| state.up)).await.is_ok_and(|up| up.is_ok());
    if is_up {
        return (
            Some(pipe),
            Outcome::Good("connected as a server does: one publishes, one subscribes".into()),
        );
    }
    let found = match pipe.ping().await {
        Err(error) => terminal::causes(&error),
        Ok(()) => in_vain("no connection"),
    };
    close(&*pipe).await;
    (None, Outcome::Failed(unreachable(name, &found)))
}

fn unusable(found: &str) -> Fault {
    Fault::new(
        found,
        "the address cannot be used",
        "write it as redis://[user:password@]host:port or nats://host:port",
    )
}

fn unreachable(name: &str, found: &str) -> Fault {
    Fault::new(
        found,
        format!(
            "servers cannot reach {name}: each works alone, and clients of different nodes do not hear each other"
        ),
        "check host, port, password and TLS (rediss://, tls://), and the firewall between",
    )
}

/// Sends messages through the broker to itself.
async fn probe(pipe: &dyn Pipe) -> (Option<()>, Outcome) {
    let mut times = Vec::with_capacity(PROBES);
    for _ in 0..PROBES {
        let started = Instant::now();
        if let Err(error) = pipe.ping().await {
            let means = "messages that are published do not come back to subscribers";
            let todo = "check the rights of the user (Redis: ACL of channels; NATS: permissions of subjects)";
            return (None, Outcome::Failed(Fault::new(terminal::causes(&error), means, todo)));
        }
        times.push(started.elapsed());
    }
    times.sort_unstable();
    (Some(()), judge(&times))
}

/// Judges how long sorted probes took.
fn judge(times: &[Duration]) -> Outcome {
    let ms = |time: Option<&Duration>| time.map_or(0.0, |time| time.as_secs_f64() * 1_000.0);
    let (median, longest) = (times.get(times.len() / 2), times.last());
    let text = format!(
        "{} probes came back, median {:.1} ms, longest {:.1} ms",
        times.len(),
        ms(median),
        ms(longest)
    );
    match longest.is_some_and(|longest| *longest > PROBE_SLOW) {
        false => Outcome::Good(text),
        true => Outcome::Warned(Fault::new(
            text,
            "every event for clients of another node is late by as much",
            "put the broker near the servers, and look whether it is busy or swapping",
        )),
    }
}

/// Reads the address of a Redis server. The library takes any scheme.
fn redis_config(url: &str) -> ImksResult<Config> {
    let is_redis = |(scheme, _): (&str, &str)| scheme.starts_with("redis") || scheme.starts_with("valkey");
    if !url.split_once("://").is_some_and(is_redis) {
        let text =
            "--redis must be an address with redis://, rediss://, redis-cluster:// or redis-sentinel://";
        return Err(ImksError::Config(text.into()));
    }
    let mut config = Config::from_url(url)
        .map_err(|error| ImksError::Config(format!("--redis cannot be used: {}", error.details())))?;
    config.fail_fast = true;
    Ok(config)
}

/// Connects for questions, and asks for the version.
async fn open_redis(config: Config) -> Result<(Client, String), Fault> {
    match timeout(ANSWER_MAX, Box::pin(ask_redis(config))).await {
        Ok(Ok(asked)) => Ok(asked),
        Ok(Err(error)) => Err(unreachable("Redis", &plain(error.details()))),
        Err(_) => Err(unreachable("Redis", &in_vain("no answer"))),
    }
}

/// Returns what went wrong, without the form in which the library shows errors of the system.
fn plain(details: &str) -> String {
    let message = details.split_once("message: \"").and_then(|(_, rest)| rest.split_once('"'));
    advice::excerpt(message.map_or(details, |(message, _)| message))
}

async fn ask_redis(config: Config) -> Result<(Client, String), fred::error::Error> {
    let client = Builder::from_config(config).build()?;
    Box::pin(client.init()).await?;
    let info: String = Box::pin(client.info(Some(InfoKind::Server))).await?;
    Ok((client, version(&info)))
}

/// Returns the versions in an answer to `INFO server`.
fn version(info: &str) -> String {
    let field = |name: &str| {
        info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(advice::excerpt)
    };
    let version = match (field("valkey_version"), field("redis_version")) {
        (Some(version), _) => format!("Valkey {version}"),
        (None, Some(version)) => format!("Redis {version}"),
        (None, None) => "of unknown version".into(),
    };
    format!(
        "{version}, mode {}",
        field("redis_mode").or_else(|| field("server_mode")).unwrap_or_else(|| "unknown".into())
    )
}

/// Lists the nodes on this broker, by the prefix of their cluster.
async fn nodes(client: &Client, prefix: &str) -> (Option<BTreeMap<String, usize>>, Outcome) {
    let pattern = format!("*:{NODE_CHANNEL}*");
    let asked: Result<Vec<String>, _> = match client.is_clustered() {
        true => timeout(ANSWER_MAX, Box::pin(client.pubsub_shardchannels(pattern))).await,
        false => timeout(ANSWER_MAX, Box::pin(client.pubsub_channels(pattern))).await,
    }
    .unwrap_or_else(|_| Err(fred::error::Error::new(fred::error::ErrorKind::Timeout, "no answer")));
    match asked {
        Ok(channels) => {
            let nodes = by_prefix(&channels);
            let here = nodes.get(prefix).copied().unwrap_or_default();
            let text = match here {
                1 => format!("1 node of the cluster {prefix} is connected"),
                _ => format!("{here} nodes of the cluster {prefix} are connected"),
            };
            (Some(nodes), Outcome::Good(text))
        }
        Err(error) => {
            let fault = Fault::new(
                advice::excerpt(error.details()),
                "the user may not ask who subscribes to what, or this is no Redis",
                "allow PUBSUB to the user",
            );
            (None, Outcome::Failed(fault))
        }
    }
}

/// Counts the channels of single nodes by the prefix of their cluster.
fn by_prefix(channels: &[String]) -> BTreeMap<String, usize> {
    let mut nodes = BTreeMap::new();
    let separator = format!(":{NODE_CHANNEL}");
    for channel in channels {
        if let Some((prefix, _)) = channel.split_once(&separator) {
            *nodes.entry(advice::excerpt(prefix)).or_default() += 1;
        }
    }
    nodes
}

/// Judges whether other clusters on the broker could be the same one by mistake.
fn others(nodes: &BTreeMap<String, usize>, prefix: &str) -> Outcome {
    let others: Vec<String> = nodes
        .iter()
        .filter(|(name, _)| *name != prefix)
        .map(|(name, count)| format!("{name} ({})", counted(*count as u64, "node", "nodes")))
        .collect();
    let is_here = nodes.contains_key(prefix);
    match (others.is_empty(), is_here) {
        (true, _) => Outcome::Good("no other cluster uses this broker".into()),
        (false, true) => {
            Outcome::Good(format!("others are kept apart by their prefix: {}", others.join(", ")))
        }
        (false, false) => Outcome::Warned(Fault::new(
            format!("nobody is in {prefix}, and there are {}", others.join(", ")),
            "the servers have another IMKS_CLUSTER_PREFIX than the one that was asked for",
            "give all nodes of one cluster the same prefix, or name the right one with --prefix",
        )),
    }
}

/// Reads the addresses of NATS servers.
fn nats_servers(urls: &str) -> ImksResult<Vec<ServerAddr>> {
    let one = |url: &str| -> Option<ServerAddr> {
        // The library takes any word for a host.
        let (scheme, place) = url.split_once("://")?;
        (matches!(scheme, "nats" | "tls") && !place.is_empty()).then(|| url.parse().ok()).flatten()
    };
    let servers: Option<Vec<ServerAddr>> = urls.split(',').map(|url| one(url.trim())).collect();
    servers.ok_or_else(|| ImksError::Config("--nats must be addresses with nats:// or tls://".into()))
}

/// Connects for a question, and returns the version.
async fn nats_version(servers: &[ServerAddr]) -> Result<String, Fault> {
    match timeout(ANSWER_MAX, Box::pin(async_nats::connect(servers))).await {
        Ok(Ok(client)) => {
            let info = client.server_info();
            Ok(format!(
                "NATS {}, server {}, messages up to {} bytes",
                advice::excerpt(&info.version),
                advice::excerpt(&info.server_name),
                info.max_payload
            ))
        }
        Ok(Err(error)) => Err(unreachable("NATS", &advice::excerpt(&error.to_string()))),
        Err(_) => Err(unreachable("NATS", &in_vain("no answer"))),
    }
}

/// How many messages are sent to see how long they take.
const PROBES: usize = 5;
/// A longer way through the broker is worth a warning.
const PROBE_SLOW: Duration = Duration::from_millis(100);
/// The start of the channel of a single node, after the prefix.
const NODE_CHANNEL: &str = crate::bus::broker_pipe::NODE;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_that_is_none_is_no_fault_of_the_broker() {
        for wrong in ["http://cache:6379", "cache:6379", "redis"] {
            assert!(matches!(redis_config(wrong), Err(ImksError::Config(_))), "{wrong}");
        }
        for url in ["redis://cache", "redis://u:p@cache:6380", "redis-cluster://a:1"] {
            assert!(redis_config(url).is_ok(), "{url}");
        }
        assert!(nats_servers("nats://a, tls://b:1").is_ok());
        for wrong in ["http://a", "foo", "", "nats://", "nats://a,b", "nats://a:99999", "ws://a"] {
            assert!(nats_servers(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn an_error_of_the_system_is_told_in_its_own_words() {
        let told = r#"Os { code: 111, kind: ConnectionRefused, message: "Connection refused" }"#;
        assert_eq!((plain(told), plain("NOAUTH")), ("Connection refused".into(), "NOAUTH".into()));
    }

    #[test]
    fn the_version_is_read_of_redis_and_of_valkey() {
        assert_eq!(
            version("# Server\r\nredis_version:7.2.4\r\nredis_mode:standalone\r\n"),
            "Redis 7.2.4, mode standalone"
        );
        let valkey = "redis_version:7.2.4\r\nvalkey_version:8.0.1\r\nserver_mode:cluster\r\n";
        assert_eq!(version(valkey), "Valkey 8.0.1, mode cluster");
    }

    #[test]
    fn nodes_are_counted_by_their_cluster_and_a_wrong_prefix_is_told() {
        let channels = ["imks:node:a", "imks:node:b", "test:node:c"].map(String::from);
        let nodes = by_prefix(&channels);
        assert_eq!((nodes["imks"], nodes["test"]), (2, 1));
        assert!(matches!(others(&nodes, "imks"), Outcome::Good(_)));
        assert!(matches!(others(&nodes, "prod"), Outcome::Warned(_)));
        assert!(matches!(others(&BTreeMap::new(), "prod"), Outcome::Good(_)));
    }

    #[test]
    fn a_slow_broker_is_told() {
        assert!(matches!(judge(&[Duration::from_millis(1); 5]), Outcome::Good(_)));
        assert!(matches!(judge(&[Duration::from_millis(1), Duration::from_millis(300)]), Outcome::Warned(_)));
    }
}
