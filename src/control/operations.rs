//! The table of operations: one line for each call.

use std::sync::LazyLock;

use super::caller::Scope::{Compliance, Moderate, Publish, Read, Users};
use super::operation::Operation;
use super::{broadcast, ephemeral, holds, messages, purge, queries, stream, sync, users, watch};
use crate::messaging::api::Method::{Get, Post};

/// All operations.
pub(super) static OPERATIONS: LazyLock<Vec<Operation>> = LazyLock::new(|| {
    let channel_messages = "/channels/{channel_id}/messages";
    vec![
        Operation::unary("SendMessageAs", (Post, channel_messages, Publish), messages::send_as),
        Operation::unary("SendMessages", (Post, "/messages", Publish), messages::send_many),
        Operation::unary(
            "AppendText",
            (Post, "/channels/{channel_id}/messages/{message_id}/stream", Publish),
            stream::append,
        ),
        Operation::unary(
            "EndStream",
            (Post, "/channels/{channel_id}/messages/{message_id}/stream/end", Publish),
            stream::end,
        ),
        Operation::unary(
            "SendSystemMessage",
            (Post, "/channels/{channel_id}/system-messages", Publish),
            messages::send_system,
        ),
        Operation::once(
            "SendEphemeral",
            (Post, "/users/{user_id}/ephemeral-messages", Publish),
            |request| &request.request_id,
            ephemeral::send,
        ),
        Operation::large("GetMessages", (Get, channel_messages, Read), messages::size, messages::get),
        Operation::unary("GetPresence", (Get, "/presence", Read), queries::presence),
        Operation::unary("GetUnreadCounts", (Get, "/users/{user_id}/unread", Read), queries::unread),
        Operation::unary("GetSessions", (Get, "/sessions", Read), queries::sessions),
        Operation::unary("PurgeChannel", (Post, "/channels/{channel_id}/purge", Moderate), purge::channel),
        Operation::unary("PurgeUser", (Post, "/users/{user_id}/purge", Moderate), purge::user),
        Operation::unary("ListPurges", (Get, "/purges", Compliance), purge::list),
        Operation::once(
            "SetLegalHold",
            (Post, "/legal-holds", Compliance),
            |request| &request.request_id,
            holds::set,
        ),
        Operation::once(
            "ReleaseLegalHold",
            (Post, "/legal-holds/release", Compliance),
            |request| &request.request_id,
            holds::release,
        ),
        Operation::unary("ListLegalHolds", (Get, "/legal-holds", Compliance), holds::list),
        Operation::once(
            "DeleteMessages",
            (Post, "/channels/{channel_id}/messages/delete", Moderate),
            |request| &request.request_id,
            messages::delete,
        ),
        Operation::once(
            "Broadcast",
            (Post, "/broadcast", Publish),
            |request| &request.request_id,
            broadcast::broadcast,
        ),
        Operation::unary(
            "InvalidatePermissions",
            (Post, "/permissions/invalidate", Users),
            users::invalidate,
        ),
        Operation::each("SyncMembership", (Post, "/memberships/sync", Users), sync::membership),
        Operation::once(
            "SetChannelPolicy",
            (Post, "/channels/{channel_id}/policy", Users),
            |request| &request.request_id,
            users::set_policy,
        ),
        Operation::once(
            "KickUser",
            (Post, "/users/{user_id}/kick", Moderate),
            |request| &request.request_id,
            users::kick,
        ),
        Operation::once(
            "RevokeSession",
            (Post, "/sessions/revoke", Moderate),
            |request| &request.request_id,
            users::revoke,
        ),
        Operation::once(
            "DisconnectAll",
            (Post, "/sessions/disconnect", Moderate),
            |request| &request.request_id,
            users::disconnect,
        ),
        Operation::unary("NotifyKeyRotation", (Post, "/signing-keys/refresh", Users), users::keys_changed),
        Operation::stream("Watch", (Get, "/events", Read), watch::watch, watch::poll),
    ]
});

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use prost::Message;

    use super::super::api::WITHOUT_KEY;
    use super::super::operation::KEY_FIELD;
    use super::*;
    use crate::pb::control::DESCRIPTORS;

    /// The parts of `google/protobuf/descriptor.proto` that name the fields of messages and the calls of a service.
    #[derive(Clone, PartialEq, Message)]
    struct Files {
        #[prost(message, repeated, tag = "1")]
        files: Vec<File>,
    }

    #[derive(Clone, PartialEq, Message)]
    struct File {
        #[prost(message, repeated, tag = "4")]
        messages: Vec<Type>,
        #[prost(message, repeated, tag = "6")]
        services: Vec<Service>,
    }

    #[derive(Clone, PartialEq, Message)]
    struct Type {
        #[prost(string, tag = "1")]
        name: String,
        #[prost(message, repeated, tag = "2")]
        fields: Vec<Field>,
    }

    #[derive(Clone, PartialEq, Message)]
    struct Field {
        #[prost(string, tag = "1")]
        name: String,
    }

    #[derive(Clone, PartialEq, Message)]
    struct Service {
        #[prost(message, repeated, tag = "2")]
        calls: Vec<Call>,
    }

    #[derive(Clone, PartialEq, Message)]
    struct Call {
        #[prost(string, tag = "1")]
        name: String,
        #[prost(string, tag = "2")]
        request: String,
        #[prost(string, tag = "3")]
        answer: String,
    }

    #[test]
    fn every_call_of_the_contract_is_an_operation_with_its_messages_and_a_route() {
        let files = Files::decode(DESCRIPTORS).unwrap();
        let services = files.files.into_iter().flat_map(|file| file.services);
        let contract: BTreeMap<String, (String, String)> = services
            .flat_map(|service| service.calls)
            .map(|call| (call.name, (call.request, call.answer)))
            .collect();
        let dotted = |(request, answer): &(String, String)| (format!(".{request}"), format!(".{answer}"));
        let served: BTreeMap<String, (String, String)> = OPERATIONS
            .iter()
            .filter_map(|operation| {
                Some((operation.name.to_owned(), dotted(&operation.grpc.as_ref()?.messages)))
            })
            .collect();
        assert_eq!(served, contract);
    }

    #[test]
    fn the_header_of_a_key_is_ignored_exactly_where_the_request_has_no_field_for_it() {
        let files = Files::decode(DESCRIPTORS).unwrap();
        let types: Vec<Type> = files.files.into_iter().flat_map(|file| file.messages).collect();
        for operation in OPERATIONS.iter().filter(|operation| operation.method != Get) {
            let request = &operation.grpc.as_ref().unwrap().messages.0;
            let known = types.iter().find(|known| request.ends_with(&format!(".{}", known.name))).unwrap();
            let has_field = known.fields.iter().any(|field| field.name == KEY_FIELD);
            assert_eq!(has_field, !WITHOUT_KEY.contains(&operation.name), "{}", operation.name);
        }
    }

    #[test]
    fn no_two_operations_share_a_name_or_a_route() {
        let names: BTreeSet<_> = OPERATIONS.iter().map(|operation| operation.name).collect();
        let route = |operation: &Operation| format!("{:?} {}", operation.method, operation.path);
        let routes: BTreeSet<_> = OPERATIONS.iter().map(route).collect();
        assert_eq!((names.len(), routes.len()), (OPERATIONS.len(), OPERATIONS.len()));
    }
}
