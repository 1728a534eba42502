//! The Socket.IO state machine of one connection: the namespaces it has joined, and what each packet means
//! there.
//!
//! It does no I/O: packets and times go in, [`Output`]s come out. `S` is the caller's value for a joined
//! namespace.

use std::borrow::Cow;
use std::collections::VecDeque;

use smallvec::SmallVec;
use tokio::time::Instant;

use crate::engine::Message;
use crate::error::{ImksError, ImksResult};
use crate::socket::codec::packet::{Args, MAIN_NAMESPACE, Packet, PacketBody, Payload};
use crate::socket::codec::parser::Decoder;

/// A joined namespace, as the caller represents it.
pub trait Joined: Clone {
    /// Whether the server side is still joined. If not, packets that the client sent before it knew are
    /// dropped.
    fn is_connected(&self) -> bool;
}

/// The next action of the caller.
#[derive(Debug, PartialEq)]
pub enum Output<S> {
    /// Ask the namespace whether the client may join; then call [`Client::accepted`] or [`Client::refused`].
    Connect {
        /// The path as the client sent it.
        namespace: Cow<'static, str>,
        /// The JSON object of the `auth` option.
        auth: Option<Payload>,
    },
    /// Send the CONNECT reply again: the client asked for a namespace that it has joined.
    Connected(S),
    /// Refuse the client with a CONNECT_ERROR, without asking the namespace.
    Refuse {
        /// The path as the client sent it.
        namespace: Cow<'static, str>,
        /// The message for the client.
        reason: &'static str,
    },
    /// Run the handler of an event.
    Event {
        /// The socket that the packet is for.
        socket: S,
        /// The ack id, if the client waits for an ack.
        id: Option<u64>,
        /// The name and arguments.
        args: Args,
    },
    /// Refuse an event that exceeds a limit of this server.
    Refused {
        /// The socket that the packet is for.
        socket: S,
        /// The ack id, if the client waits for an ack.
        id: Option<u64>,
        /// The limit.
        reason: &'static str,
    },
    /// Resolve a pending ack.
    Ack {
        /// The socket that the packet is for.
        socket: S,
        /// The id of the event that it answers.
        id: u64,
        /// The arguments of the ack.
        args: Args,
    },
    /// The client left this namespace.
    Leave(S),
}

impl<S> Output<S> {
    /// Returns the number of bytes that the output occupies while it waits.
    pub fn bytes(&self) -> usize {
        OVERHEAD_BYTES
            + match self {
                Self::Event { args, .. } | Self::Ack { args, .. } => args.bytes(),
                Self::Connect { namespace, auth } => {
                    namespace.len() + auth.as_ref().map_or(0, |auth| auth.json.len())
                }
                _ => 0,
            }
    }
}

/// The state machine of one connection.
#[derive(Debug)]
pub struct Client<S> {
    decoder: Decoder,
    namespaces: SmallVec<[(Cow<'static, str>, State<S>); 1]>,
    namespaces_max: usize,
    /// The packets to process now that their namespace has accepted the client.
    replay: VecDeque<Packet>,
    /// The size of the packets that wait for a namespace to accept the client.
    waiting_bytes: usize,
    /// The time by which the first namespace must be joined. Cleared for good once one is.
    connect_deadline: Option<Instant>,
}

#[derive(Debug)]
enum State<S> {
    /// The connect hook is running, and packets wait for it.
    Joining(Vec<Packet>),
    Joined(S),
    /// The client left. Packets for the namespace are dropped.
    Left,
}

impl<S: Joined> Client<S> {
    /// Creates the state of a connection that must join a namespace by `connect_deadline`, and at most
    /// `namespaces_max` in total.
    pub fn new(decoder: Decoder, connect_deadline: Instant, namespaces_max: usize) -> Self {
        Self {
            decoder,
            namespaces: SmallVec::new(),
            namespaces_max,
            replay: VecDeque::new(),
            waiting_bytes: 0,
            connect_deadline: Some(connect_deadline),
        }
    }

    /// Processes the next message of the connection. An error ends the connection.
    pub fn handle_message(&mut self, message: Message) -> ImksResult<Option<Output<S>>> {
        match self.decoder.add(message)? {
            Some(packet) => self.handle_packet(packet),
            None => Ok(None),
        }
    }

    /// Joins the main namespace, which clients of Socket.IO v2 do without a CONNECT packet.
    pub fn handle_open(&mut self) -> ImksResult<Option<Output<S>>> {
        self.handle_connect(Cow::Borrowed(MAIN_NAMESPACE), None)
    }

    /// Records that the namespace accepted the client. [`Client::poll_output`] then returns the packets that
    /// waited.
    pub fn accepted(&mut self, namespace: &str, socket: S) {
        self.connect_deadline = None;
        let Some(state) = self.state_mut(namespace) else { return };
        if let State::Joining(waiting) = std::mem::replace(state, State::Joined(socket)) {
            self.waiting_bytes -= waiting.iter().map(packet_bytes).sum::<usize>();
            self.replay.extend(waiting);
        }
    }

    /// Records that the namespace refused the client, which may try again on the same connection.
    pub fn refused(&mut self, namespace: &str) {
        let Some(place) = self.namespaces.iter().position(|(path, _)| path == namespace) else { return };
        if let (_, State::Joining(waiting)) = self.namespaces.swap_remove(place) {
            self.waiting_bytes -= waiting.iter().map(packet_bytes).sum::<usize>();
        }
    }

    /// Returns the output of packets that no longer have to wait for their namespace.
    pub fn poll_output(&mut self) -> Option<ImksResult<Output<S>>> {
        while let Some(packet) = self.replay.pop_front() {
            if let Some(output) = self.handle_packet(packet).transpose() {
                return Some(output);
            }
        }
        None
    }

    /// Returns the time at which [`Client::handle_timeout`] must be called.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.connect_deadline
    }

    /// Checks the deadline. An error means that no namespace was joined in time.
    pub fn handle_timeout(&mut self, now: Instant) -> ImksResult<()> {
        match self.connect_deadline {
            Some(deadline) if now >= deadline => Err(ImksError::Timeout("no namespace joined in time")),
            _ => Ok(()),
        }
    }

    /// Removes and returns all joined namespaces, for the end of the connection.
    pub fn drain(&mut self) -> impl Iterator<Item = S> + '_ {
        self.replay.clear();
        self.waiting_bytes = 0;
        self.namespaces.drain(..).filter_map(|(_, state)| match state {
            State::Joined(socket) => Some(socket),
            State::Joining(_) | State::Left => None,
        })
    }

    /// Returns all joined namespaces.
    pub fn joined(&self) -> impl Iterator<Item = &S> + '_ {
        self.namespaces.iter().filter_map(|(_, state)| match state {
            State::Joined(socket) => Some(socket),
            State::Joining(_) | State::Left => None,
        })
    }

    /// Returns the size of the packets that wait for a namespace to accept the client. The caller must limit
    /// it.
    pub fn waiting_bytes(&self) -> usize {
        self.waiting_bytes
    }

    fn handle_packet(&mut self, packet: Packet) -> ImksResult<Option<Output<S>>> {
        let bytes = packet_bytes(&packet);
        let Packet { namespace, body } = packet;
        let body = match body {
            PacketBody::Connect(auth) => return self.handle_connect(namespace, auth),
            PacketBody::ConnectRefused(reason) => return self.handle_refused_connect(namespace, reason),
            other => other,
        };
        match self.state_mut(&namespace) {
            // The peer is out of step if it uses a namespace that it has not joined. The reference closes
            // here too.
            None => Err(malformed("packet for a namespace that was not joined")),
            Some(State::Left) => Ok(None),
            Some(State::Joining(waiting)) => {
                waiting.push(Packet { namespace, body });
                self.waiting_bytes += bytes;
                Ok(None)
            }
            Some(State::Joined(socket)) => {
                let socket = socket.clone();
                self.handle_joined(&namespace, socket, body)
            }
        }
    }

    fn handle_connect(
        &mut self,
        namespace: Cow<'static, str>,
        auth: Option<Payload>,
    ) -> ImksResult<Option<Output<S>>> {
        match self.state_mut(&namespace) {
            // The reply to the first CONNECT answers this one too, so that the client gets only one socket.
            Some(State::Joining(_)) => return Ok(None),
            Some(State::Joined(socket)) if socket.is_connected() => {
                return Ok(Some(Output::Connected(socket.clone())));
            }
            _ => {}
        }
        self.refused(&namespace);
        if self.namespaces.len() >= self.namespaces_max {
            self.namespaces.retain(|(_, state)| !matches!(state, State::Left));
        }
        if self.namespaces.len() >= self.namespaces_max {
            return Ok(Some(Output::Refuse { namespace, reason: TOO_MANY_NAMESPACES }));
        }
        self.namespaces.push((namespace.clone(), State::Joining(Vec::new())));
        Ok(Some(Output::Connect { namespace, auth }))
    }

    fn handle_refused_connect(
        &mut self,
        namespace: Cow<'static, str>,
        reason: &'static str,
    ) -> ImksResult<Option<Output<S>>> {
        match self.state_mut(&namespace) {
            // The payload of a repeated CONNECT does not matter.
            Some(State::Joining(_) | State::Joined(_)) => self.handle_connect(namespace, None),
            _ => Ok(Some(Output::Refuse { namespace, reason })),
        }
    }

    fn handle_joined(
        &mut self,
        namespace: &str,
        socket: S,
        body: PacketBody,
    ) -> ImksResult<Option<Output<S>>> {
        Ok(match body {
            PacketBody::Connect(_) | PacketBody::ConnectRefused(_) | PacketBody::ConnectError(_) => {
                return Err(malformed("CONNECT_ERROR from a client"));
            }
            PacketBody::Disconnect => {
                if let Some(state) = self.state_mut(namespace) {
                    *state = State::Left;
                }
                Some(Output::Leave(socket))
            }
            _ if !socket.is_connected() => None,
            PacketBody::Event(_, args) if !args.has_name() => None,
            PacketBody::Event(id, args) => Some(Output::Event { socket, id, args }),
            PacketBody::Refused { id, reason } => Some(Output::Refused { socket, id, reason }),
            PacketBody::Ack(Some(id), args) => Some(Output::Ack { socket, id, args }),
            PacketBody::Ack(None, _) => None,
        })
    }

    fn state_mut(&mut self, namespace: &str) -> Option<&mut State<S>> {
        self.namespaces.iter_mut().find(|(path, _)| path == namespace).map(|(_, state)| state)
    }
}

fn packet_bytes(packet: &Packet) -> usize {
    let args = match &packet.body {
        PacketBody::Event(_, args) | PacketBody::Ack(_, args) => args.bytes(),
        _ => 0,
    };
    OVERHEAD_BYTES + packet.namespace.len() + args
}

fn malformed(rule: &'static str) -> ImksError {
    ImksError::InvalidSocketPacketFormat(rule)
}

/// The approximate cost of a queued packet in addition to its payload.
const OVERHEAD_BYTES: usize = 256;

/// The message for a client that joins more than the maximum number of namespaces.
pub const TOO_MANY_NAMESPACES: &str = "Too many namespaces";

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tungstenite::Utf8Bytes;

    use super::*;

    #[derive(Debug, Clone, PartialEq)]
    struct Fake(&'static str, bool);

    impl Joined for Fake {
        fn is_connected(&self) -> bool {
            self.1
        }
    }

    fn client() -> Client<Fake> {
        Client::new(Decoder::new(Default::default()), Instant::now() + Duration::from_secs(45), 3)
    }

    fn say(client: &mut Client<Fake>, text: &str) -> ImksResult<Option<Output<Fake>>> {
        client.handle_message(Message::Text(Utf8Bytes::from(text)))
    }

    fn joined() -> Client<Fake> {
        let mut client = client();
        say(&mut client, "0").unwrap();
        client.accepted("/", Fake("a", true));
        client
    }

    #[test]
    fn a_client_joins_speaks_and_leaves() {
        let mut client = client();
        let Some(Output::Connect { namespace, auth }) = say(&mut client, r#"0{"token":"x"}"#).unwrap() else {
            panic!("no connect")
        };
        assert_eq!((&*namespace, &*auth.unwrap().json), ("/", r#"{"token":"x"}"#));
        client.accepted("/", Fake("a", true));
        let Some(Output::Event { id, args, .. }) = say(&mut client, r#"27["hi",1]"#).unwrap() else {
            panic!("no event")
        };
        assert_eq!((id, args.name(), args.json()), (Some(7), "hi", "1"));
        assert_eq!(say(&mut client, "1").unwrap(), Some(Output::Leave(Fake("a", true))));
        for late in [r#"2["hi"]"#, "1", "3[]"] {
            assert_eq!(say(&mut client, late).unwrap(), None, "sent before it knew: {late}");
        }
        assert!(matches!(say(&mut client, "0").unwrap(), Some(Output::Connect { .. })));
    }

    #[test]
    fn events_sent_while_the_connect_hook_runs_arrive_after_it_in_order() {
        let mut client = client();
        say(&mut client, "0").unwrap();
        assert_eq!(say(&mut client, r#"2["one"]"#).unwrap(), None);
        assert_eq!(say(&mut client, r#"2["two"]"#).unwrap(), None);
        assert!(client.poll_output().is_none());
        client.accepted("/", Fake("a", true));
        let mut names = Vec::new();
        while let Some(output) = client.poll_output() {
            let Output::Event { args, .. } = output.unwrap() else { panic!("not an event") };
            names.push(args.name().to_owned());
        }
        assert_eq!(names, ["one", "two"]);
    }

    #[test]
    fn packets_that_wait_for_a_connect_hook_are_counted_until_they_are_due() {
        let mut client = client();
        say(&mut client, "0").unwrap();
        say(&mut client, "0/x,").unwrap();
        say(&mut client, r#"2["hi"]"#).unwrap();
        let one = client.waiting_bytes();
        say(&mut client, &format!("2/x,[{:?}]", "x".repeat(1_000))).unwrap();
        assert!(one > 0 && client.waiting_bytes() > one + 1_000);
        client.refused("/x");
        assert_eq!(client.waiting_bytes(), one);
        client.accepted("/", Fake("a", true));
        assert_eq!(client.waiting_bytes(), 0);
    }

    #[test]
    fn a_second_connect_is_merged_while_joining_and_answered_once_joined() {
        let mut client = client();
        say(&mut client, "0").unwrap();
        assert_eq!(say(&mut client, "0").unwrap(), None);
        client.accepted("/", Fake("a", true));
        assert_eq!(say(&mut client, "0").unwrap(), Some(Output::Connected(Fake("a", true))));
    }

    #[test]
    fn one_namespace_too_many_is_refused_and_the_others_stay() {
        let mut client = client();
        for path in ["/1", "/2", "/3"] {
            say(&mut client, &format!("0{path},")).unwrap();
            client.accepted(path, Fake("a", true));
        }
        let refused = Output::Refuse { namespace: "/4".into(), reason: TOO_MANY_NAMESPACES };
        assert_eq!(say(&mut client, "0/4,").unwrap(), Some(refused));
        assert!(matches!(say(&mut client, r#"2/3,["hi"]"#).unwrap(), Some(Output::Event { .. })));
        say(&mut client, "1/2,").unwrap();
        assert!(matches!(say(&mut client, "0/4,").unwrap(), Some(Output::Connect { .. })));
    }

    #[test]
    fn an_event_that_breaks_a_bound_is_refused_and_the_next_one_is_not() {
        let mut client = joined();
        let deep = format!("{}{}", "[".repeat(200), "]".repeat(200));
        let refused = say(&mut client, &format!(r#"27["a",{deep}]"#)).unwrap();
        assert!(matches!(refused, Some(Output::Refused { id: Some(7), .. })));
        assert!(matches!(say(&mut client, r#"2["hi"]"#).unwrap(), Some(Output::Event { .. })));
    }

    #[test]
    fn a_refused_client_may_try_again_and_reaches_its_deadline_otherwise() {
        let mut client = client();
        say(&mut client, "0").unwrap();
        client.refused("/");
        assert!(say(&mut client, "0").unwrap().is_some());
        client.refused("/");
        let deadline = client.poll_timeout().unwrap();
        assert!(client.handle_timeout(deadline - Duration::from_millis(1)).is_ok());
        assert!(client.handle_timeout(deadline).is_err());
    }

    #[test]
    fn leaving_the_only_namespace_does_not_start_the_deadline_again() {
        let mut client = joined();
        say(&mut client, "1").unwrap();
        assert_eq!(client.poll_timeout(), None);
    }

    #[test]
    fn packets_that_cross_a_disconnect_by_the_server_are_dropped_and_a_new_connect_is_taken() {
        let mut client = client();
        say(&mut client, "0").unwrap();
        client.accepted("/", Fake("gone", false));
        assert_eq!(say(&mut client, r#"2["hi"]"#).unwrap(), None);
        assert!(matches!(say(&mut client, "0").unwrap(), Some(Output::Connect { .. })));
    }

    #[test]
    fn what_the_reference_ignores_is_ignored_and_what_it_closes_on_closes() {
        for ignored in ["2", "3", "3[1]", "5-"].iter().take(3) {
            assert_eq!(say(&mut joined(), ignored).unwrap(), None, "{ignored}");
        }
        let fatal = [
            "",
            "7",
            "9",
            "abc",
            "2[]",
            "2[null]",
            "2{}",
            "2[\"connect\"]",
            "1{}",
            "4{}",
            "4\"x\"",
            "0[1]",
            "0null",
            "0\"a\"",
            "2-1[\"a\"]",
            "21.5[\"a\"]",
            "2abc[\"a\"]",
            "50-[\"a\"]",
            "5-[\"a\"]",
            "5abc-[\"a\"]",
            "51.5-[\"a\"]",
            "51[\"a\"]",
            "2/other,[\"a\"]",
            "3{}",
        ];
        for text in fatal {
            assert!(say(&mut joined(), text).is_err(), "{text}");
        }
        assert!(joined().handle_message(Message::Binary("x".into())).is_err(), "attachment without a packet");
    }
}
