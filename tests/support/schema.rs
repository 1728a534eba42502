//! A check of JSON against JSON Schema, as far as the contract uses it. A keyword that it does not know is an error, so that
//! nothing passes unseen.

use serde_json::Value;

/// The schemas of a document.
pub struct Schemas(pub Value);

impl Schemas {
    /// Whether a value is what a schema describes; otherwise, what is wrong and where.
    pub fn check(&self, schema: &Value, value: &Value) -> Result<(), String> {
        self.at("$", schema, value)
    }

    fn at(&self, place: &str, schema: &Value, value: &Value) -> Result<(), String> {
        let Value::Object(keywords) = schema else {
            return if schema == &Value::Bool(true) {
                Ok(())
            } else {
                Err(format!("{place}: nothing is allowed"))
            };
        };
        for (keyword, rule) in keywords {
            if !self.holds(place, schema, (keyword, rule), value)? {
                return Err(format!("{place}: {value} breaks {keyword}: {rule}"));
            }
        }
        Ok(())
    }

    fn holds(
        &self,
        place: &str,
        schema: &Value,
        (keyword, rule): (&String, &Value),
        value: &Value,
    ) -> Result<bool, String> {
        let number = || rule.as_f64().unwrap();
        let length = || value.as_str().map(|text| text.chars().count() as f64);
        let items = || value.as_array().map(|items| items.len() as f64);
        let forms = || rule.as_array().unwrap().iter();
        let fits = |form: &&Value| self.at(place, form, value).is_ok();
        Ok(match keyword.as_str() {
            "$ref" => {
                let pointer = rule.as_str().unwrap().strip_prefix('#').unwrap();
                self.at(place, self.0.pointer(pointer).expect(pointer), value).map(|()| true)?
            }
            "type" => match rule {
                Value::Array(kinds) => kinds.iter().any(|kind| is(kind, value)),
                kind => is(kind, value),
            },
            "const" => value == rule,
            "enum" => rule.as_array().unwrap().contains(value),
            "anyOf" => forms().any(|form| fits(&form)),
            // An answer says by `ok` which of its forms it has: then that one is what is wrong.
            "oneOf" if value["ok"] == true => self.at(place, &rule[0], value).map(|()| true)?,
            "oneOf" => forms().filter(fits).count() == 1,
            "allOf" => forms().all(|form| fits(&form)),
            "required" => {
                value.as_object().is_none_or(|it| forms().all(|name| it.contains_key(name.as_str().unwrap())))
            }
            "properties" | "additionalProperties" => {
                self.fields(place, schema, keyword, value).map(|()| true)?
            }
            "items" | "prefixItems" => {
                for (index, item) in value.as_array().into_iter().flatten().enumerate() {
                    let rule = rule.as_array().map_or(rule, |rules| &rules[index]);
                    self.at(&format!("{place}[{index}]"), rule, item)?;
                }
                true
            }
            "minItems" => items().is_none_or(|count| count >= number()),
            "maxItems" => items().is_none_or(|count| count <= number()),
            "minLength" => length().is_none_or(|count| count >= number()),
            "maxLength" => length().is_none_or(|count| count <= number()),
            "minimum" => value.as_f64().is_none_or(|it| it >= number()),
            "maximum" => value.as_f64().is_none_or(|it| it <= number()),
            "format" => value.as_str().is_none_or(|text| is_of_format(rule.as_str().unwrap(), text)),
            "description" | "title" | "default" | "pattern" | "readOnly" | "writeOnly" => true,
            other => return Err(format!("{place}: unknown keyword {other}")),
        })
    }

    /// Checks the fields that `properties` names, or all others.
    fn fields(&self, place: &str, schema: &Value, keyword: &str, value: &Value) -> Result<(), String> {
        let known = schema["properties"].as_object();
        for (name, field) in value.as_object().into_iter().flatten() {
            let known = known.and_then(|known| known.get(name));
            let rule = if keyword == "properties" {
                known
            } else {
                Some(&schema[keyword]).filter(|_| known.is_none())
            };
            if let Some(rule) = rule {
                self.at(&format!("{place}.{name}"), rule, field)?;
            }
        }
        Ok(())
    }
}

fn is(kind: &Value, value: &Value) -> bool {
    match kind.as_str().unwrap() {
        "null" => value.is_null(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        "string" => value.is_string(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        other => panic!("no kind {other}"),
    }
}

fn is_of_format(format: &str, text: &str) -> bool {
    match format {
        "uuid" => text.parse::<uuid::Uuid>().is_ok(),
        "date-time" => imks::testing::clock::parse_rfc3339(text).is_some(),
        "uri" => text.starts_with("http"),
        other => panic!("no format {other}"),
    }
}
