//! AsyncAPI 3.0: the events of Socket.IO.

use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};

use super::schemas::{Schemas, envelope, reference};
use super::{CREDENTIALS, Contract, Push, Request, type_name};

/// Writes the document. The application is the server: it receives what clients send.
pub(super) fn write(contract: &Contract) -> String {
    let mut schemas = Schemas::new(SchemaSettings::draft07(), contract);
    let (mut messages, mut operations) = (Map::new(), Map::new());
    for request in &contract.requests {
        add_request(request, &mut schemas, &mut messages, &mut operations);
    }
    for push in &contract.pushes {
        add_push(push, &mut schemas, &mut messages, &mut operations);
    }
    if let Some(credentials) = contract.credentials {
        schemas.read(CREDENTIALS.into(), credentials);
    }
    let names = messages
        .keys()
        .map(|name| (name.clone(), json!({ "$ref": format!("#/components/messages/{name}") })));
    let of_channel: Map<String, Value> = names.collect();
    let document = json!({
        "asyncapi": "3.0.0",
        "info": {
            "title": "imks",
            "version": env!("CARGO_PKG_VERSION"),
            "license": { "name": "MIT OR Apache-2.0" },
            "description": "Events over Socket.IO protocol 5, in the namespace `/`. The name of a message is the name of \
                            its event, its payload the first argument. The answer to an event is its acknowledgement.",
        },
        "defaultContentType": "application/json",
        "channels": { "root": { "address": "/", "messages": of_channel, "x-auth": reference(CREDENTIALS) } },
        "operations": operations,
        "components": { "schemas": schemas.finish(), "messages": messages },
    });
    format!("{document:#}\n")
}

fn add_request(
    request: &Request,
    schemas: &mut Schemas,
    messages: &mut Map<String, Value>,
    operations: &mut Map<String, Value>,
) {
    let name = request.name;
    let (asked, answered) = (type_name(name, "Request"), type_name(name, "Answer"));
    schemas.read(asked.clone(), request.payload);
    let data = schemas.written(answered.clone(), request.answer);
    let answer = json!({ "oneOf": [envelope(&data), reference("Failure")] });
    messages.insert(asked.clone(), json!({ "name": name, "payload": reference(&asked) }));
    messages.insert(answered.clone(), json!({ "name": format!("{name} (answer)"), "payload": answer }));
    let operation = json!({
        "action": "receive",
        "channel": { "$ref": "#/channels/root" },
        "messages": [{ "$ref": format!("#/channels/root/messages/{asked}") }],
        "reply": {
            "channel": { "$ref": "#/channels/root" },
            "messages": [{ "$ref": format!("#/channels/root/messages/{answered}") }],
        },
    });
    operations.insert(type_name(name, ""), operation);
}

fn add_push(
    push: &Push,
    schemas: &mut Schemas,
    messages: &mut Map<String, Value>,
    operations: &mut Map<String, Value>,
) {
    let name = type_name(push.name, "Event");
    let payload = schemas.written(name.clone(), push.payload);
    messages.insert(name.clone(), json!({ "name": push.name, "payload": payload }));
    let operation = json!({
        "action": "send",
        "channel": { "$ref": "#/channels/root" },
        "messages": [{ "$ref": format!("#/channels/root/messages/{name}") }],
    });
    operations.insert(name, operation);
}
