//! Raw clients that come and go, in every way a client can. Each step has a deadline: a step that hangs is named.

mod link;
mod packet;

#[allow(dead_code, reason = "shared with the load generator")]
#[path = "../../load/frame.rs"]
mod frame;

use std::{error::Error, time::Duration};

use serde_json::{Value, json};

use self::{
    link::Link,
    packet::{ACK, CONNECT, CONNECT_ERROR, DISCONNECT, EVENT, Heard},
};
pub use self::{
    link::{Carrier, Dialer, Target, Version},
    packet::Parser,
};

/// Anything that went wrong, in words.
pub type Outcome<T> = Result<T, Box<dyn Error>>;

/// How a client leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Says so, and closes as the protocol asks.
    Leave,
    /// Its connection breaks while the server waits for an answer of it.
    Vanish,
    /// The server disconnects it.
    Disconnected,
    /// It is not let into the namespace, and closes.
    Refused,
    /// It does not say anything any more: the heartbeat ends it.
    Silent,
    /// It opens a session and never joins a namespace.
    Unjoined,
    /// Its connection breaks, it comes back to its session, and leaves.
    Return,
}

/// One way of coming and going.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kind {
    pub version: Version,
    pub carrier: Carrier,
    pub end: End,
}

impl Kind {
    /// All of them, of clients with this parser.
    pub fn all(parser: Parser) -> Vec<Self> {
        let versions = [Version::V4, Version::V3];
        let carriers = [Carrier::Polling, Carrier::WebSocket, Carrier::Upgrade, Carrier::WebTransport];
        let ends = [
            End::Leave,
            End::Vanish,
            End::Disconnected,
            End::Refused,
            End::Silent,
            End::Unjoined,
            End::Return,
        ];
        let kinds = versions.into_iter().flat_map(|version| {
            carriers.into_iter().flat_map(move |carrier| ends.map(|end| Self { version, carrier, end }))
        });
        kinds.filter(|kind| kind.exists(parser)).collect()
    }

    /// Clients of version 3 join the main namespace without asking, cannot recover and know neither WebTransport
    /// nor, here, the msgpack parser.
    fn exists(self, parser: Parser) -> bool {
        let Self { version, carrier, end } = self;
        let modern = carrier == Carrier::WebTransport
            || parser == Parser::MsgPack
            || matches!(end, End::Unjoined | End::Return);
        version == Version::V4 || !modern
    }

    /// Whether it waits for a deadline of the server: many of these can wait at once.
    pub fn waits(self) -> bool {
        matches!(self.end, End::Silent | End::Unjoined)
    }
}

/// One client comes and goes. `number` makes its names.
pub async fn visit(target: &Target, parser: Parser, kind: Kind, number: usize) -> Outcome<()> {
    let mut client = Client::open(target, parser, kind).await?;
    match kind.end {
        End::Unjoined => return step("the end of a session that joins nothing", client.link.outlive()).await,
        End::Refused => {
            client.say(CONNECT, "/refusing", None, None).await?;
            client.hear(CONNECT_ERROR).await?;
            return step("close", client.link.close()).await;
        }
        _ => {}
    }
    let session = client.join(None).await?;
    client.live(number).await?;
    match kind.end {
        End::Vanish => {
            client.say(EVENT, "/", None, Some(json!(["ask-me"]))).await?;
            client.hear_event("question").await?;
            step("vanish", client.link.vanish()).await
        }
        End::Disconnected => {
            client.say(EVENT, "/", None, Some(json!(["leave-me"]))).await?;
            step("the end by the server", client.link.outlive()).await
        }
        End::Silent => step("the end by the heartbeat", client.link.outlive()).await,
        End::Return => {
            step("vanish", client.link.vanish()).await?;
            let mut client = Client::open(target, parser, kind).await?;
            let again = client.join(Some(&session)).await?;
            if again["pid"] != session["pid"] {
                return Err("a new session for a client that came back".into());
            }
            client.leave().await
        }
        _ => client.leave().await,
    }
}

/// A session and how it speaks.
struct Client {
    link: Link,
    parser: Parser,
    version: Version,
}

impl Client {
    async fn open(target: &Target, parser: Parser, kind: Kind) -> Outcome<Self> {
        let mut link = step("open", Link::open(target, kind.carrier, kind.version)).await?;
        if kind.carrier == Carrier::Upgrade {
            step("upgrade", link.upgrade(target)).await?;
        }
        Ok(Self { link, parser, version: kind.version })
    }

    /// Joins the main namespace, going on with an earlier session if there is one; gives the session.
    async fn join(&mut self, earlier: Option<&Value>) -> Outcome<Value> {
        // Version 3 joins by itself.
        if self.version == Version::V4 {
            let auth = earlier.map(|session| json!({ "pid": session["pid"] }));
            self.say(CONNECT, "/", None, auth).await?;
        }
        self.hear(CONNECT).await
    }

    /// A namespace and a room of its own, and an answered event.
    async fn live(&mut self, number: usize) -> Outcome<()> {
        self.say(CONNECT, &format!("/own-{number}"), None, None).await?;
        self.hear(CONNECT).await?;
        self.say(EVENT, "/", Some(7), Some(json!(["enter", format!("room-{number}")]))).await?;
        self.hear(ACK).await.map(drop)
    }

    async fn leave(mut self) -> Outcome<()> {
        self.say(DISCONNECT, "/", None, None).await?;
        step("close", self.link.close()).await
    }

    async fn say(&mut self, kind: u64, namespace: &str, id: Option<u64>, data: Option<Value>) -> Outcome<()> {
        let packet = self.parser.write(kind, namespace, id, data)?;
        step("send", self.link.send(&packet)).await
    }

    /// The data of the next packet of this kind; what comes before is dropped.
    async fn hear(&mut self, kind: u64) -> Outcome<Value> {
        self.hear_that(|heard| heard.kind == kind).await
    }

    async fn hear_event(&mut self, name: &str) -> Outcome<Value> {
        self.hear_that(|heard| heard.kind == EVENT && heard.data[0] == name).await
    }

    async fn hear_that(&mut self, wanted: impl Fn(&Heard) -> bool) -> Outcome<Value> {
        loop {
            let packet = step("hear", self.link.next()).await?.ok_or("the session ended too early")?;
            let heard = self.parser.read(&packet)?;
            if wanted(&heard) {
                return Ok(heard.data);
            }
        }
    }
}

async fn step<T>(what: &str, future: impl Future<Output = Outcome<T>>) -> Outcome<T> {
    match tokio::time::timeout(STEP_TIMEOUT, future).await {
        Ok(done) => done.map_err(|error| format!("{what}: {error}").into()),
        Err(_) => Err(format!("{what}: nothing for {STEP_TIMEOUT:?}").into()),
    }
}

/// Far longer than any deadline of the server.
const STEP_TIMEOUT: Duration = Duration::from_secs(30);
