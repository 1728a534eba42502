//! The real `curl`, as the documents show it.

use std::process::Command;

use serde_json::Value;

/// An API for back ends, and the options with which curl is let in.
pub(crate) struct Curl {
    api: String,
    options: Vec<String>,
}

impl Curl {
    /// With an API key.
    pub(crate) fn with_key(api: &str, key: &str) -> Self {
        Self::with(api, &["-H", &format!("Authorization: Bearer {key}")])
    }

    pub(crate) fn with(api: &str, options: &[&str]) -> Self {
        Self { api: api.to_owned(), options: options.iter().map(|&option| option.to_owned()).collect() }
    }

    /// The data of a good answer.
    pub(crate) fn ask(&self, method: &str, path: &str, body: &Value) -> Value {
        let answer = self.answer(method, path, body);
        assert_eq!(answer["ok"], true, "{method} {path} {body}: {answer}");
        answer["data"].clone()
    }

    /// The code of a bad answer.
    pub(crate) fn refused(&self, method: &str, path: &str, body: &Value) -> String {
        let answer = self.answer(method, path, body);
        answer["error"]["code"]
            .as_str()
            .unwrap_or_else(|| panic!("{method} {path} {body}: {answer}"))
            .to_owned()
    }

    /// The answer. A body that is null is not sent.
    pub(crate) fn answer(&self, method: &str, path: &str, body: &Value) -> Value {
        let url = format!("{}{path}", self.api);
        let mut command = Command::new("curl");
        command.args(["-sS", "-X", method, &url]).args(&self.options);
        if !body.is_null() {
            command.args(["-d", &body.to_string()]);
        }
        let output = command.output().expect("curl; tests/run installs it");
        serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"))
    }
}
