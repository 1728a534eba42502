//! The schemas of a document, by name. What is read and what is written are described apart, because they differ: a field
//! with a default may be left out of a request, and is always in an answer.

use schemars::Schema;
use schemars::generate::{SchemaGenerator, SchemaSettings};
use schemars::transform::transform_subschemas;
use serde_json::{Map, Value, json};

use super::{Contract, Describe};
use crate::envelope::{Failure, Meta};

/// The schemas of one document, while it is written.
pub(super) struct Schemas {
    read: Side,
    written: Side,
}

/// The types that are read, or those that are written.
struct Side {
    generator: SchemaGenerator,
    /// The types of requests, answers and events, which get their names from those.
    named: Map<String, Value>,
}

impl Schemas {
    /// Creates a collection, in a dialect of JSON Schema, of what all answers share and what types refer to by name.
    pub(super) fn new(dialect: SchemaSettings, contract: &Contract) -> Self {
        let settings = dialect.with(|it| it.definitions_path = PATH.into()).with_transform(plain);
        let (read, written) = (settings.clone().for_deserialize(), settings.for_serialize());
        let mut schemas = Self { read: Side::new(read), written: Side::new(written) };
        let generator = &mut schemas.written.generator;
        for describe in
            [SchemaGenerator::subschema_for::<Failure>, SchemaGenerator::subschema_for::<Meta<'_>>]
        {
            describe(generator);
        }
        contract.parts.iter().for_each(|describe| drop(describe(generator)));
        schemas
    }

    /// Adds a type that is read, under a name. Returns its schema.
    pub(super) fn read(&mut self, name: String, describe: Describe) -> Value {
        self.read.add(name, describe)
    }

    /// Adds a type that is written, under a name. Returns a reference to it.
    pub(super) fn written(&mut self, name: String, describe: Describe) -> Value {
        let reference = reference(&name);
        self.written.add(name, describe);
        reference
    }

    /// Returns all schemas by name. A type that differs where it is read has `Input` after its name there.
    pub(super) fn finish(self) -> Map<String, Value> {
        let Side { generator: mut written, named: mut all } = self.written;
        let Side { generator: mut read, named } = self.read;
        let (mut written, mut read) = (written.take_definitions(true), read.take_definitions(true));
        // One that refers to others may differ by them.
        let differs = |name: &String| {
            let other = written.get(name)?;
            (read[name] != *other || other.to_string().contains("$ref")).then(|| name.clone())
        };
        let renamed: Vec<String> = read.keys().filter_map(differs).collect();
        let mut here: Map<String, Value> = named;
        for name in &renamed {
            let schema = read.remove(name).unwrap_or_default();
            here.insert(format!("{name}{READ}"), schema);
        }
        here.append(&mut read);
        here.values_mut().for_each(|schema| rename(schema, &renamed));
        alias(&mut all, &written);
        all.append(&mut written);
        all.append(&mut here);
        all
    }
}

/// Makes names of types that have another name already refer to that.
fn alias(named: &mut Map<String, Value>, types: &Map<String, Value>) {
    for schema in named.values_mut() {
        if let Some((name, _)) = types.iter().find(|(_, other)| *other == schema) {
            *schema = reference(name);
        }
    }
}

impl Side {
    fn new(settings: SchemaSettings) -> Self {
        Self { generator: settings.into_generator(), named: Map::new() }
    }

    fn add(&mut self, name: String, describe: Describe) -> Value {
        let mut schema = describe(&mut self.generator);
        self.generator.transforms_mut().for_each(|transform| transform.transform(&mut schema));
        let schema = schema.to_value();
        // An event may have two forms.
        let schema = match self.named.remove(&name) {
            Some(other) if other != schema => json!({ "anyOf": [other, schema] }),
            _ => schema,
        };
        self.named.insert(name, schema.clone());
        schema
    }
}

/// Returns a reference to a schema.
pub(super) fn reference(name: &str) -> Value {
    json!({ "$ref": format!("#{PATH}/{name}") })
}

/// Returns the name in a reference.
pub(super) fn referred(schema: &Value) -> Option<&str> {
    schema.get("$ref")?.as_str()?.rsplit('/').next()
}

/// Returns the schema of an answer with this data.
pub(super) fn envelope(data: &Value) -> Value {
    json!({
        "type": "object",
        "properties": { "ok": { "const": true }, "data": data, "meta": reference("Meta") },
        "required": ["ok", "data", "meta"],
    })
}

/// Removes what means nothing to readers of a document: the sizes of numbers, and links between comments.
fn plain(schema: &mut Schema) {
    if schema.get("format").and_then(Value::as_str).is_some_and(|format| format.contains("int")) {
        schema.remove("format");
    }
    if let Some(Value::String(text)) = schema.get_mut("description") {
        *text = text.replace("[`", "`").replace("`]", "`");
    }
    transform_subschemas(&mut plain, schema);
}

/// Makes references to these names those to the types as they are read.
fn rename(schema: &mut Value, names: &[String]) {
    match schema {
        Value::Object(fields) => {
            if let Some(Value::String(reference)) = fields.get_mut("$ref")
                && names.iter().any(|name| reference.rsplit('/').next() == Some(name))
            {
                reference.push_str(READ);
            }
            fields.values_mut().for_each(|value| rename(value, names));
        }
        Value::Array(items) => items.iter_mut().for_each(|item| rename(item, names)),
        _ => {}
    }
}

const PATH: &str = "/components/schemas";
/// What follows the name of a type as it is read.
const READ: &str = "Input";
