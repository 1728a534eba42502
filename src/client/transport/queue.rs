//! What waits to be sent on a transport, in pieces: the text of a packet, then its attachments.

use std::collections::VecDeque;

use bytes::Bytes;
use tungstenite::Utf8Bytes;

use crate::client::budget::Place;
use crate::client::core::Sending;
use crate::socket::codec::outgoing::Outgoing;

/// Packets that wait, the first of which may be sent in part.
#[derive(Debug, Default)]
pub(crate) struct SendQueue {
    packets: VecDeque<Sending>,
    /// The attachments of the packet whose text was taken, and its place until the last one is taken too.
    attachments: VecDeque<Bytes>,
    place: Option<Place>,
}

/// A part of a packet that is sent by itself.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Piece {
    Text(Utf8Bytes),
    Attachment(Bytes),
}

impl SendQueue {
    pub(super) fn push(&mut self, sending: Sending) {
        self.packets.push_back(sending);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.packets.is_empty() && self.attachments.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.packets.len()
    }

    /// Returns the next piece. It stays in the queue.
    pub(super) fn front(&self) -> Option<Piece> {
        if let Some(bytes) = self.attachments.front() {
            return Some(Piece::Attachment(bytes.clone()));
        }
        let Outgoing { text, attachments } = &self.packets.front()?.packet;
        match attachments.first() {
            // The packet is in its attachment.
            Some(bytes) if text.is_empty() => Some(Piece::Attachment(bytes.clone())),
            _ => Some(Piece::Text(text.clone())),
        }
    }

    /// Takes the next piece out of the queue. The bytes are shared, not copied.
    pub(super) fn pop(&mut self) -> Option<Piece> {
        let piece = match self.attachments.pop_front() {
            Some(bytes) => Piece::Attachment(bytes),
            None => {
                let Sending { packet, place } = self.packets.pop_front()?;
                (self.attachments, self.place) = (packet.attachments.into(), place);
                match self.attachments.pop_front() {
                    Some(bytes) if packet.text.is_empty() => Piece::Attachment(bytes),
                    first => {
                        first.into_iter().for_each(|bytes| self.attachments.push_front(bytes));
                        Piece::Text(packet.text)
                    }
                }
            }
        };
        if self.attachments.is_empty() {
            self.place = None;
        }
        Some(piece)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::budget::Budget;

    #[test]
    fn a_packet_leaves_in_pieces_and_its_place_is_free_after_the_last() {
        let budget = Budget::new(9, 99);
        let mut queue = SendQueue::default();
        let attachments = vec![Bytes::from_static(b"1"), Bytes::from_static(b"2")];
        let msgpack = vec![Bytes::from_static(b"3")];
        for (text, attachments) in [("4a", attachments), ("4b", Vec::new()), ("", msgpack)] {
            let packet = Outgoing { text: text.into(), attachments };
            queue.push(Sending { packet, place: budget.take(1) });
        }
        let (text, bytes) = (|text: &str| Piece::Text(text.into()), |bytes| Piece::Attachment(bytes));
        let pieces = [
            (text("4a"), 3),
            (bytes(Bytes::from_static(b"1")), 3),
            (bytes(Bytes::from_static(b"2")), 2),
            (text("4b"), 1),
            (bytes(Bytes::from_static(b"3")), 0),
        ];
        for (piece, waiting) in pieces {
            assert_eq!(queue.front(), Some(piece.clone()));
            assert_eq!(queue.pop(), Some(piece));
            assert_eq!(budget.used().events, waiting);
        }
        assert!(queue.is_empty() && queue.pop().is_none());
    }
}
