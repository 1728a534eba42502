//! Embeds: cards that a message shows below its text, from its sender or made of the pages that its text links to.

use std::sync::Arc;

use schemars::JsonSchema;
use serde::de::Deserializer;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::append::{LockedChannel, Mutation, References};
use super::channel_change::ChangeKind;
use super::message::{FLAG_SUPPRESS_EMBEDS, MessageDetail};
use super::message_edit::MessageUpdate;
use super::stored_json::{from_column, to_column};
use super::text::{ShortText, described, refusal};
use crate::ImksResult;
use crate::clock::Timestamp;

/// What an embed shows first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum EmbedKind {
    /// Text and fields.
    #[default]
    Rich,
    /// A web page.
    Link,
    /// A picture.
    Image,
    /// A video.
    Video,
}

/// Who made an embed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum EmbedSource {
    /// The sender of the message.
    #[default]
    Sender,
    /// This server, from a page that the text links to.
    Preview,
}

/// The address of a web page: `http://` or `https://` with a host, and no user or password.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct WebAddress(String);

impl WebAddress {
    /// Validates an address; `None` if it is none.
    pub fn new(text: &str) -> Option<Self> {
        let printable =
            text.len() <= ADDRESS_BYTES_MAX && text.bytes().all(|byte| matches!(byte, b'!'..=b'~'));
        let uri: http::Uri = text.parse().ok().filter(|_| printable)?;
        let of_web = matches!(uri.scheme_str(), Some("http" | "https"));
        let authority = uri.authority()?;
        (of_web && !authority.host().is_empty() && !authority.as_str().contains('@'))
            .then(|| Self(text.into()))
    }

    /// Returns the text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

described!([] WebAddress, _ => { "type": "string", "format": "uri", "maxLength": ADDRESS_BYTES_MAX, "pattern": "^https?://" });
described!([] Embeds, generator => {
    "type": "array", "items": generator.subschema_for::<Embed>(), "maxItems": EMBEDS_MAX,
});

impl<'de> Deserialize<'de> for WebAddress {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::new(&text).ok_or_else(|| refusal("must be an address like https://example.com/"))
    }
}

/// An embed.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
#[allow(missing_docs, reason = "the wire contract in docs/protocol.md explains each field")]
pub struct Embed {
    pub kind: EmbedKind,
    pub url: Option<WebAddress>,
    pub title: Option<ShortText<1, 256>>,
    pub description: Option<ShortText<1, 4096>>,
    #[serde(deserialize_with = "color")]
    #[schemars(range(max = 0x00ff_ffff))]
    pub color: Option<u32>,
    pub site_name: Option<ShortText<1, 256>>,
    pub author: Option<EmbedAuthor>,
    pub image_url: Option<WebAddress>,
    pub thumbnail_url: Option<WebAddress>,
    pub video_url: Option<WebAddress>,
    pub footer: Option<ShortText<1, 2048>>,
    pub published_at: Option<Timestamp>,
    #[serde(deserialize_with = "few_fields")]
    #[schemars(length(max = FIELDS_MAX))]
    pub fields: Vec<EmbedField>,
    /// Set by the server.
    #[serde(skip_deserializing)]
    pub source: EmbedSource,
}

/// The author of what an embed shows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct EmbedAuthor {
    /// The name.
    pub name: ShortText<1, 256>,
    /// The author's page.
    #[serde(default)]
    pub url: Option<WebAddress>,
}

/// A field of an embed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct EmbedField {
    /// The name.
    pub name: ShortText<1, 256>,
    /// The value.
    pub value: ShortText<1, 1024>,
    /// Whether it may stand beside others.
    #[serde(default)]
    pub inline: bool,
}

fn color<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u32>, D::Error> {
    let color = Option::<u32>::deserialize(deserializer)?;
    if color.is_some_and(|color| color > 0x00ff_ffff) {
        return Err(refusal("must be a number up to 16777215 (0xffffff)"));
    }
    Ok(color)
}

fn few_fields<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<EmbedField>, D::Error> {
    let fields = Vec::deserialize(deserializer)?;
    if fields.len() > FIELDS_MAX {
        return Err(refusal(format_args!("has more than {FIELDS_MAX} items")));
    }
    Ok(fields)
}

impl Embed {
    /// Returns the number of characters of all texts.
    fn chars(&self) -> usize {
        let count = |text: &str| text.chars().count();
        let of_fields: usize =
            self.fields.iter().map(|field| count(field.name.as_str()) + count(field.value.as_str())).sum();
        of_fields
            + self.title.as_ref().map_or(0, |text| count(text.as_str()))
            + self.description.as_ref().map_or(0, |text| count(text.as_str()))
            + self.site_name.as_ref().map_or(0, |text| count(text.as_str()))
            + self.footer.as_ref().map_or(0, |text| count(text.as_str()))
            + self.author.as_ref().map_or(0, |author| count(author.name.as_str()))
    }

    /// Returns the number of bytes of all addresses.
    fn address_bytes(&self) -> usize {
        let of_author = self.author.as_ref().and_then(|author| author.url.as_ref());
        let own = [&self.url, &self.image_url, &self.thumbnail_url, &self.video_url];
        own.into_iter().flatten().chain(of_author).map(|address| address.as_str().len()).sum()
    }

    /// Whether there is nothing to show.
    pub fn is_empty(&self) -> bool {
        self.chars() == 0
            && self.image_url.is_none()
            && self.thumbnail_url.is_none()
            && self.video_url.is_none()
    }
}

/// The embeds of a message: at most [`EMBEDS_MAX`], with at most [`EMBED_CHARS_MAX`] characters and
/// [`EMBED_ADDRESS_BYTES_MAX`] bytes of addresses together.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
#[serde(transparent)]
pub struct Embeds(Vec<Embed>);

impl Embeds {
    /// Validates embeds.
    ///
    /// # Errors
    /// A sentence that says which limit they break.
    pub fn new(embeds: Vec<Embed>) -> Result<Self, String> {
        if embeds.len() > EMBEDS_MAX {
            return Err(format!("has more than {EMBEDS_MAX} items"));
        }
        if embeds.iter().any(Embed::is_empty) {
            return Err("has an item that shows nothing".into());
        }
        if embeds.iter().map(Embed::chars).sum::<usize>() > EMBED_CHARS_MAX {
            return Err(format!("has more than {EMBED_CHARS_MAX} characters"));
        }
        if embeds.iter().map(Embed::address_bytes).sum::<usize>() > EMBED_ADDRESS_BYTES_MAX {
            return Err(format!("has more than {EMBED_ADDRESS_BYTES_MAX} bytes of addresses"));
        }
        Ok(Self(embeds))
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the value for the column of the message's row; `None` without embeds.
    pub(super) fn stored(&self) -> ImksResult<Option<String>> {
        (!self.is_empty()).then(|| to_column(&self.0)).transpose()
    }
}

impl<'de> Deserialize<'de> for Embeds {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::new(Vec::deserialize(deserializer)?).map_err(refusal)
    }
}

/// The embeds that this server made of the pages that a message links to. They replace those that it made before.
#[derive(Debug, Clone)]
pub struct SetPreviews {
    /// The message.
    pub message_id: Uuid,
    /// The version of the text with the links. After a later edit, nothing is changed.
    pub version: i64,
    /// The embeds.
    pub previews: Vec<Embed>,
}

impl Mutation for SetPreviews {
    /// Whether the message was changed.
    type Done = bool;

    fn refers(&self, references: &mut References<'_>) {
        references.message(self.message_id);
    }

    fn decide(&self, channel: &mut LockedChannel<'_>) -> ImksResult<bool> {
        let row = channel.message(self.message_id)?;
        let suppressed = row.flags & FLAG_SUPPRESS_EMBEDS != 0;
        if row.deleted_at.is_some() || row.version != self.version || suppressed {
            return Ok(false);
        }
        let embeds = self.beside(row.embeds.as_deref())?.stored()?;
        if row.embeds == embeds {
            return Ok(false);
        }
        let rev = channel.change(self.message_id, ChangeKind::Embeds, |row| row.embeds = embeds)?.rev;
        let message: Arc<MessageDetail> = channel.detail(self.message_id)?;
        channel.tell_change("message:updated", rev, MessageUpdate { message, kind: "embeds" })?;
        Ok(true)
    }
}

impl SetPreviews {
    /// Returns the embeds of the sender, followed by as many previews as the limits allow.
    fn beside(&self, stored: Option<&str>) -> ImksResult<Embeds> {
        let mut all: Vec<Embed> = stored_embeds(stored)?;
        all.retain(|embed| embed.source == EmbedSource::Sender);
        for preview in &self.previews {
            all.push(Embed { source: EmbedSource::Preview, ..preview.clone() });
            if Embeds::new(all.clone()).is_err() {
                all.pop();
            }
        }
        Ok(Embeds(all))
    }
}

/// Parses the column of a message's row, with the source of each embed.
fn stored_embeds(text: Option<&str>) -> ImksResult<Vec<Embed>> {
    #[derive(Deserialize)]
    struct Stored {
        #[serde(flatten)]
        embed: Embed,
        source: EmbedSource,
    }
    let stored: Vec<Stored> = from_column(text)?.unwrap_or_default();
    Ok(stored.into_iter().map(|stored| Embed { source: stored.source, ..stored.embed }).collect())
}

/// The most embeds of one message.
pub const EMBEDS_MAX: usize = 10;
/// The most characters of all embeds of one message.
pub const EMBED_CHARS_MAX: usize = 6_000;
/// The most bytes of all addresses in the embeds of one message.
pub const EMBED_ADDRESS_BYTES_MAX: usize = 16 * 1024;
/// The most fields of one embed.
const FIELDS_MAX: usize = 25;
/// The longest address in an embed, in bytes.
const ADDRESS_BYTES_MAX: usize = 2_048;

#[cfg(test)]
mod tests {
    use serde_json::{Value, from_value, json};

    use super::*;

    fn parse(value: Value) -> Result<Embeds, String> {
        from_value::<Embeds>(value).map_err(|error| error.to_string())
    }

    #[test]
    fn embeds_keep_their_limits() {
        let field = |value: &str| json!({ "name": "n", "value": value });
        assert!(parse(json!([{ "title": "t", "fields": vec![field("v"); 25], "color": 0xff_ffff }])).is_ok());
        for wrong in [
            json!([{ "title": "t", "fields": vec![field("v"); 26] }]),
            json!([{ "title": "t", "color": 0x100_0000 }]),
            json!([{ "title": "x".repeat(257) }]),
            json!([{ "title": "t", "url": "javascript:alert(1)" }]),
            json!([{ "title": "t", "url": "https://user:secret@example.com/" }]),
            json!([{ "kind": "link", "url": "https://example.com/" }]),
            json!(vec![json!({ "title": "t" }); 11]),
            json!(vec![json!({ "description": "x".repeat(3_001) }); 2]),
            json!(vec![json!({ "image_url": format!("https://a.example/{}", "x".repeat(2_000)) }); 9]),
        ] {
            assert!(parse(wrong.clone()).unwrap_err().starts_with("refused "), "{wrong}");
        }
    }

    #[test]
    fn a_sender_cannot_claim_that_the_server_made_an_embed() {
        let embeds = parse(json!([{ "title": "t", "source": "preview" }])).unwrap();
        let stored = embeds.stored().unwrap().unwrap();
        assert_eq!(stored_embeds(Some(&stored)).unwrap()[0].source, EmbedSource::Sender);
        let title = from_value(json!({ "title": "page" })).unwrap();
        let set = SetPreviews { message_id: Uuid::nil(), version: 1, previews: vec![title] };
        let both = set.beside(Some(&stored)).unwrap();
        assert_eq!(
            both.0.iter().map(|embed| embed.source).collect::<Vec<_>>(),
            [EmbedSource::Sender, EmbedSource::Preview]
        );
        let again = set.beside(both.stored().unwrap().as_deref()).unwrap();
        assert_eq!(again, both, "earlier previews are replaced");
        let none = SetPreviews { previews: vec![], ..set }.beside(both.stored().unwrap().as_deref());
        assert_eq!(none.unwrap(), embeds);
    }
}
