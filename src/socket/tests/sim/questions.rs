//! Questions to all nodes of a simulated cluster: each ends in time, and names exactly those that nobody reaches.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::Instant;

use super::scenario::{Kind, Question};
use super::world::{Node, QUESTION_MAX, World};
use crate::node::NodeId;
use crate::socket::codec::parser::RawArgs;
use crate::socket::tests::recovery::main;

/// The answers to a question.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    /// The sockets or clients that answered, or that there are.
    pub(super) sockets: BTreeSet<String>,
    /// The clients that did not answer.
    pub(super) silent_clients: BTreeSet<String>,
    /// The nodes that answered, as far as they are known.
    pub(super) nodes: BTreeSet<NodeId>,
    pub(super) silent: BTreeSet<NodeId>,
    /// Something that was there twice.
    double: Option<String>,
}

impl World {
    /// Lets the application on a node ask all others, and checks what it learns.
    pub(super) fn ask_later(self: &Arc<Self>, slot: usize, question: Question) {
        let Some(node) = self.node(slot).filter(|_| !self.slots.lock()[slot].is_asking) else { return };
        self.slots.lock()[slot].is_asking = true;
        let world = self.clone();
        self.passing.spawn(async move {
            world.ask(&node, question).await;
            let mut slots = world.slots.lock();
            if slots[slot].node.as_ref().is_some_and(|now| now.process == node.process) {
                slots[slot].is_asking = false;
            }
        });
    }

    /// Asks all other nodes. The answer is checked against what this node can know.
    pub(super) async fn ask(&self, node: &Node, question: Question) -> Outcome {
        let (began, changes) = (Instant::now(), self.changes.load(Ordering::Relaxed));
        let members: BTreeSet<NodeId> = main(&node.server).cluster().others().into_iter().collect();
        let reached = self.reached(node);
        let outcome = put(node, question).await;
        let still = changes == self.changes.load(Ordering::Relaxed) && !self.is_rough();
        // With a log, the question is put a while later, and members may have gone until then.
        let stayed = main(&node.server).cluster().others().into_iter().filter(|it| members.contains(it));
        let stayed: BTreeSet<NodeId> = stayed.collect();
        let (steady, lost) = match still {
            true => (&reached & &self.reached(node), &stayed - &(&reached | &self.reached(node))),
            false => Default::default(),
        };
        let mut observer = self.observer.lock();
        let names = |nodes: &BTreeSet<NodeId>| nodes.iter().map(ToString::to_string).collect::<Vec<_>>();
        let sockets: BTreeSet<String> = outcome.sockets.iter().map(|sid| observer.name(sid)).collect();
        let silent: BTreeSet<String> = outcome.silent_clients.iter().map(|sid| observer.name(sid)).collect();
        observer.note(format!(
            "p{} asked {question:?}: {sockets:?}, not {silent:?}, nodes {:?}, not {:?}",
            node.process,
            names(&outcome.nodes),
            names(&outcome.silent)
        ));
        let took = began.elapsed();
        let late = match self.scenario.kind {
            Kind::Plain => Duration::ZERO,
            Kind::Logged => SETTLE_MAX,
        };
        let rules = [
            (took <= QUESTION_MAX + late + Duration::from_millis(2), "it took too long"),
            (outcome.double.is_none(), "somebody is there twice"),
            (outcome.nodes.is_disjoint(&outcome.silent), "a node answered and is silent"),
            (
                late > Duration::ZERO || outcome.silent.is_subset(&members),
                "a node is silent that was not asked",
            ),
            (outcome.silent.is_disjoint(&steady), "a node is silent that was within reach"),
            (lost.is_subset(&outcome.silent), "a node is not silent that was out of reach"),
        ];
        for (_, wrong) in rules.into_iter().filter(|(is_right, _)| !is_right) {
            observer.object(format!(
                "p{} asked {question:?}, and after {took:?}: {wrong} {outcome:?}",
                node.process
            ));
        }
        outcome
    }

    /// Whether answers may be lost or late.
    fn is_rough(&self) -> bool {
        let weather = self.scenario.weather;
        !self.faults_over.is_cancelled() && (weather.lost_percent > 0 || weather.direct_lost_percent > 0)
    }

    /// Returns the other nodes that a node reaches.
    fn reached(&self, node: &Node) -> BTreeSet<NodeId> {
        let slots = self.slots.lock();
        let others = slots.iter().filter_map(|slot| slot.node.as_ref());
        others
            .filter(|other| other.process != node.process && self.bus.reaches(node.pipe, other.pipe))
            .map(|other| other.server.node())
            .collect()
    }
}

async fn put(node: &Node, question: Question) -> Outcome {
    let (namespace, mut outcome) = (main(&node.server), Outcome::default());
    match question {
        Question::Sockets => {
            let found = namespace.fetch_sockets().await.unwrap();
            // A session may move from one node to another one while they are asked, so it may be there twice.
            for socket in &found.sockets {
                outcome.sockets.insert(socket.id().to_owned());
                if socket.node() != node.server.node() {
                    outcome.nodes.insert(socket.node());
                }
            }
            outcome.silent = found.silent.into_iter().collect();
        }
        Question::Servers => {
            let args = RawArgs { json: "1,2", attachments: &[] };
            let answers = namespace.server_side_emit_with_ack("sum", &args, QUESTION_MAX).await.unwrap();
            for (other, args) in answers.answers {
                assert_eq!(args.json(), "3");
                if !outcome.nodes.insert(other) {
                    outcome.double = Some(other.to_string());
                }
            }
            outcome.silent = answers.silent.into_iter().collect();
        }
        Question::Clients => {
            let answers = namespace.emit_with_ack("vote", &(), QUESTION_MAX).await.unwrap();
            for answer in answers.answers {
                if !outcome.sockets.insert(answer.socket.to_string()) {
                    outcome.double = Some(answer.socket.to_string());
                }
            }
            outcome.silent_clients = answers.silent.iter().map(ToString::to_string).collect();
            outcome.silent = answers.silent_nodes.into_iter().collect();
        }
    }
    outcome
}

/// How long a question waits for what was sent before it.
const SETTLE_MAX: Duration = Duration::from_secs(2);
