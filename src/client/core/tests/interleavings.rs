//! Everything that can happen to a client, in any order: it is cut off, slow, put out, forgotten, it leaves and comes
//! back, while both sides send, ask and answer.

use super::*;

/// What can happen, beside what [`Step`] has.
#[derive(Debug, Clone)]
enum Happening {
    Plain(Step),
    Volatile,
    Join,
    Leave,
    Close,
    /// The server puts the client out.
    Kick,
    /// The server forgets all sessions that are not connected.
    Forget,
    /// The network takes nothing any more, or everything again.
    Slow(bool),
    Question,
    Reply,
    Ping,
}

fn happening() -> impl Strategy<Value = Happening> {
    prop_oneof![
        40 => step().prop_map(Happening::Plain),
        2 => Just(Happening::Volatile),
        3 => Just(Happening::Join),
        1 => Just(Happening::Leave),
        1 => Just(Happening::Close),
        1 => Just(Happening::Kick),
        1 => Just(Happening::Forget),
        2 => any::<bool>().prop_map(Happening::Slow),
        2 => Just(Happening::Question),
        2 => Just(Happening::Reply),
        1 => Just(Happening::Ping),
    ]
}

/// The ticket of the join that is step `number`.
fn join_ticket(number: u64) -> Ticket {
    2_000_000 + number
}

fn happens(world: &mut World, happening: &Happening, number: u64) {
    match happening {
        Happening::Plain(step) => take(world, step, number),
        Happening::Volatile => {
            let args = args(&json!(number));
            let place = world.budget.take_anyway(args.bytes());
            let emit = Emit { event: "plain".into(), args, answer: None, is_volatile: true, place };
            world.core.emit(world.now, &"/".into(), emit, world.is_slow);
        }
        Happening::Join => world.core.join(world.now, &"/".into(), join_ticket(number)),
        Happening::Leave => world.core.leave(world.now, &"/".into()),
        Happening::Close => world.core.close(world.now),
        Happening::Kick => world.says("1", |server| {
            server.current.take().and_then(|pid| server.sessions.remove(&pid));
        }),
        Happening::Forget => {
            let current = world.server.current.clone();
            world.server.sessions.retain(|pid, _| Some(pid) == current.as_ref());
        }
        Happening::Slow(is_slow) => {
            world.is_slow = *is_slow;
            if !is_slow {
                world.held.clear();
            }
        }
        Happening::Question => world.says(&format!(r#"2{number}["ask"]"#), |server| {
            server.questions.insert(number, server.connections);
        }),
        Happening::Reply => {
            if let Some(to) = world.owed.pop_front() {
                let place = world.budget.take_anyway(1);
                world.core.reply(world.now, &"/".into(), to, &args(&json!("yes")), place);
            }
        }
        Happening::Ping => {
            if let Some((_, back)) = &mut world.wire {
                back.push_back(Packet::Ping("".into()));
            }
        }
    }
    world.act();
}

impl World {
    /// The server sends a packet to the client that is in its namespace, and notes that.
    fn says(&mut self, packet: &str, note: impl FnOnce(&mut Server)) {
        if let (Some((_, back)), Some(_)) = (&mut self.wire, &self.server.current) {
            back.push_back(text(packet.into()));
            note(&mut self.server);
        }
    }
}

impl World {
    /// The sessions that the client has had: with which event each began, and the events that were delivered in it. What
    /// was still on its way from the session before is not its own.
    fn sessions(&self) -> Vec<(u64, Vec<u64>)> {
        let joins = self.notified.iter().enumerate().filter_map(|(at, event)| match event {
            ClientEvent::Joined { sid, recovered: false, .. } => Some((at, self.server.began[sid])),
            _ => None,
        });
        let joins: Vec<(usize, u64)> = joins.collect();
        let in_session = |at: usize| {
            let (from, began) = joins[at];
            let to = joins.get(at + 1).map_or(usize::MAX, |(to, _)| *to);
            let events = self.delivered.iter().zip(&self.told_before);
            let own = events.filter(|(number, told)| (from + 1..=to).contains(*told) && **number >= began);
            (began, own.map(|(number, _)| *number).collect())
        };
        (0..joins.len()).map(in_session).collect()
    }
}

/// What the application is told, as a machine that knows what can follow what.
#[derive(Default)]
struct Told {
    is_connected: bool,
    has_been_connected: bool,
    is_joined: bool,
    /// Whether another transport is in the place of the one on which it joined, so that it joins once more.
    has_switched: bool,
    attempts: u32,
}

impl Told {
    fn take(&mut self, event: &ClientEvent) {
        match event {
            ClientEvent::Connected { .. } => {
                assert!(!self.is_connected, "connected twice");
                (self.is_connected, self.has_been_connected) = (true, true);
            }
            ClientEvent::Reconnected { .. } => {
                assert!(!self.is_connected && self.has_been_connected, "connected again without a loss");
                self.is_connected = true;
            }
            ClientEvent::Disconnected { .. } => {
                assert!(self.is_connected, "the loss of no connection");
                self.is_connected = false;
            }
            ClientEvent::Reconnecting { attempt, .. } => {
                assert!(!self.is_connected && !self.is_joined, "an attempt without a loss");
                assert!(*attempt == self.attempts + 1 || *attempt == 1, "{attempt} after {}", self.attempts);
                self.attempts = *attempt;
            }
            ClientEvent::Joined { .. } => {
                let may_join = !self.is_joined || self.has_switched;
                assert!(self.is_connected && may_join, "joined twice, or without a connection");
                (self.is_joined, self.has_switched, self.attempts) = (true, false, 0);
            }
            ClientEvent::Left { .. } => {
                assert!(self.is_joined, "left without having joined");
                (self.is_joined, self.has_switched) = (false, false);
            }
            ClientEvent::TransportSwitched { .. } => self.has_switched = true,
            ClientEvent::Heartbeat { .. } => assert!(self.is_connected, "a heartbeat without a connection"),
            _ => {}
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_everybody_gets_one_answer_and_the_outbox_its_order(
        happenings in prop::collection::vec(happening(), 0..200),
    ) {
        let mut world = World::new(settings(), Budget::new(1_000, 1_000_000));
        world.join();
        let (mut sent, mut asked) = (Vec::new(), vec![CONNECT, JOIN]);
        for (number, happening) in happenings.iter().enumerate() {
            let number = number as u64;
            happens(&mut world, happening, number);
            match happening {
                Happening::Plain(Step::Send) => sent.push(number),
                Happening::Plain(Step::EmitWithAck) => asked.push(number),
                Happening::Join => asked.push(join_ticket(number)),
                _ => {}
            }
        }
        world.is_slow = false;
        world.held.clear();
        // Whoever is put out by what is still on its way comes back only because it is told to.
        world.settle();
        asked.push(join_ticket(u64::MAX / 2));
        world.core.join(world.now, &"/".into(), join_ticket(u64::MAX / 2));
        world.act();
        world.settle();
        world.pass(11 * SECOND);

        prop_assert_eq!(&world.server.applied, &sent, "the outbox: each once, in its order");
        let ids: Vec<_> = sent.iter().map(|number| uuid::Uuid::from_u128((*number).into())).collect();
        prop_assert_eq!(&world.forgotten, &ids);
        for ticket in asked.iter().chain(&sent) {
            prop_assert!(world.answers.contains_key(ticket), "{} waits for ever", ticket);
        }
        prop_assert!(is_sorted_and_unique(&world.server.plain), "at most once: {:?}", world.server.plain);
        prop_assert!(is_sorted_and_unique(&world.delivered), "{:?}", world.delivered);
        let mut told = Told::default();
        world.notified.iter().for_each(|event| told.take(event));
        prop_assert!(told.is_connected && told.is_joined, "it is back in the end");
        prop_assert_eq!(world.core.status(), Status::Connected);
        prop_assert_eq!(world.budget.used(), crate::client::budget::Used::default());
    }

    #[test]
    fn a_session_has_every_event_from_its_beginning_on_wherever_it_is_cut(
        happenings in prop::collection::vec(happening(), 0..200),
    ) {
        let mut world = World::new(settings(), Budget::new(1_000, 1_000_000));
        world.join();
        for (number, happening) in happenings.iter().enumerate() {
            happens(&mut world, happening, number as u64);
        }
        world.is_slow = false;
        world.held.clear();
        world.settle();
        for (began, events) in world.sessions() {
            let expected: Vec<u64> = (began..began + events.len() as u64).collect();
            prop_assert_eq!(events, expected);
        }
    }
}
