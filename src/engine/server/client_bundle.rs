//! The browser builds of the client, served beside the engine (`<path>/socket.io.js` and its siblings). They
//! are read and compressed once at startup. Other files of their directory cannot be reached.

use std::collections::HashMap;
use std::path::Path;

use bytes::Bytes;
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};

use crate::engine::server::reply::{self, Reply};
use crate::{ImksError, ImksResult};

/// The browser builds of one version of the client.
pub(crate) struct ClientBundle {
    files: HashMap<&'static str, File>,
    etag: HeaderValue,
}

/// A file, uncompressed and compressed.
struct File {
    content_type: &'static str,
    plain: Bytes,
    gzip: Option<Bytes>,
    deflate: Option<Bytes>,
}

impl ClientBundle {
    /// Reads `dist` of the npm package `socket.io-client`. Missing files are not served.
    ///
    /// # Errors
    /// [`ImksError::Config`] if all files are missing, or their version cannot be determined.
    pub(crate) fn read(directory: &Path) -> ImksResult<Self> {
        let mut files = HashMap::new();
        for name in NAMES {
            if let Ok(content) = std::fs::read(directory.join(name)) {
                files.insert(name, File::new(name, content));
            }
        }
        let wrong =
            |what: &str| ImksError::Config(format!("client bundle in {}: {what}", directory.display()));
        if files.is_empty() {
            return Err(wrong(
                "no socket.io.js there; name the directory `dist` of the npm package socket.io-client",
            ));
        }
        let version = version(directory, &files).ok_or_else(|| wrong("its version is unknown"))?;
        let etag =
            HeaderValue::try_from(format!("\"{version}\"")).map_err(|_| wrong("its version is no text"))?;
        Ok(Self { files, etag })
    }

    /// Whether `name` is a file that a bundle may contain.
    pub(crate) fn has(name: &str) -> bool {
        NAMES.contains(&name)
    }

    /// Returns the response to a request for `name`, or `None` if the bundle has no such file.
    pub(crate) fn answer(&self, name: &str, parts: &Parts) -> Option<Reply> {
        let file = self.files.get(name).filter(|_| matches!(parts.method, Method::GET | Method::HEAD))?;
        let mut reply = match self.is_known(&parts.headers) {
            true => reply::empty(StatusCode::NOT_MODIFIED),
            false => file.reply(&parts.headers),
        };
        let headers = reply.headers_mut();
        headers.insert(header::ETAG, self.etag.clone());
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("public, max-age=0"));
        headers.append(header::VARY, HeaderValue::from_static("Accept-Encoding"));
        Some(reply)
    }

    /// Whether the client has this version already. Strong and weak tags are treated alike, because a version
    /// never changes.
    fn is_known(&self, request: &HeaderMap) -> bool {
        let known = request.get_all(header::IF_NONE_MATCH).iter();
        known.filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(',')).any(|tag| {
            let tag = tag.trim();
            tag.strip_prefix("W/").unwrap_or(tag).as_bytes() == self.etag.as_bytes()
        })
    }
}

impl File {
    fn new(name: &str, content: Vec<u8>) -> Self {
        let content_type = match name.ends_with(".map") {
            true => "application/json; charset=utf-8",
            false => "application/javascript; charset=utf-8",
        };
        let packed = |coding| reply::compress(coding, &content).map(Bytes::from);
        Self { content_type, gzip: packed("gzip"), deflate: packed("deflate"), plain: content.into() }
    }

    fn reply(&self, request: &HeaderMap) -> Reply {
        let coding = reply::accepted_coding(request);
        let packed = match coding {
            Some("gzip") => self.gzip.clone(),
            Some("deflate") => self.deflate.clone(),
            _ => None,
        };
        let coding = coding.filter(|_| packed.is_some());
        let mut reply = reply::text(StatusCode::OK, self.content_type, packed.unwrap_or(self.plain.clone()));
        if let Some(coding) = coding {
            reply.headers_mut().insert(header::CONTENT_ENCODING, HeaderValue::from_static(coding));
        }
        reply
    }
}

/// Reads the version from the package's description, or from the first line of a file: `Socket.IO v4.8.4`.
fn version(directory: &Path, files: &HashMap<&'static str, File>) -> Option<String> {
    let package = std::fs::read(directory.join("../package.json")).ok();
    let package = package.and_then(|text| serde_json::from_slice::<serde_json::Value>(&text).ok());
    if let Some(version) = package.as_ref().and_then(|package| package["version"].as_str()) {
        return Some(version.to_owned());
    }
    files.values().find_map(|file| {
        let head = String::from_utf8_lossy(&file.plain[..file.plain.len().min(BANNER_BYTES)]);
        let version = head.split_once("Socket.IO v")?.1.split_whitespace().next()?;
        Some(version.to_owned())
    })
}

/// The files that the reference server serves.
const NAMES: [&str; 8] = [
    "socket.io.js",
    "socket.io.js.map",
    "socket.io.min.js",
    "socket.io.min.js.map",
    "socket.io.esm.min.js",
    "socket.io.esm.min.js.map",
    "socket.io.msgpack.min.js",
    "socket.io.msgpack.min.js.map",
];

/// The number of bytes at the start of a file in which its version is searched.
const BANNER_BYTES: usize = 200;

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;

    use super::*;

    fn bundle() -> (tempfile::TempDir, ClientBundle) {
        let package = tempfile::tempdir().unwrap();
        let dist = package.path().join("dist");
        std::fs::create_dir(&dist).unwrap();
        std::fs::write(dist.join("socket.io.js"), "hello ".repeat(100)).unwrap();
        std::fs::write(dist.join("socket.io.js.map"), "{}").unwrap();
        std::fs::write(dist.join("secret.js"), "secret").unwrap();
        std::fs::write(package.path().join("package.json"), r#"{"version":"4.8.4"}"#).unwrap();
        let bundle = ClientBundle::read(&dist).unwrap();
        (package, bundle)
    }

    fn ask(bundle: &ClientBundle, name: &str, headers: &[(&str, &str)]) -> Option<Reply> {
        let mut request = http::Request::get("/");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        bundle.answer(name, &request.body(()).unwrap().into_parts().0)
    }

    #[tokio::test]
    async fn a_file_comes_with_its_version_and_as_the_client_can_read_it() {
        let (_package, bundle) = bundle();
        let reply = ask(&bundle, "socket.io.js", &[]).unwrap();
        assert_eq!(reply.headers()["etag"], "\"4.8.4\"");
        assert_eq!(reply.headers()["cache-control"], "public, max-age=0");
        assert_eq!(reply.headers()["content-type"], "application/javascript; charset=utf-8");
        assert_eq!(reply.into_body().collect().await.unwrap().to_bytes().len(), 600);
        for coding in ["gzip", "deflate"] {
            let reply = ask(&bundle, "socket.io.js", &[("accept-encoding", coding)]).unwrap();
            assert_eq!(reply.headers()["content-encoding"], coding);
            assert!(reply.into_body().collect().await.unwrap().to_bytes().len() < 100);
        }
        let map = ask(&bundle, "socket.io.js.map", &[]).unwrap();
        assert_eq!(map.headers()["content-type"], "application/json; charset=utf-8");
    }

    #[test]
    fn a_client_that_has_the_version_gets_nothing() {
        let (_package, bundle) = bundle();
        for tag in ["\"4.8.4\"", "W/\"4.8.4\"", "\"x\", \"4.8.4\""] {
            let reply = ask(&bundle, "socket.io.js", &[("if-none-match", tag)]).unwrap();
            assert_eq!(reply.status(), StatusCode::NOT_MODIFIED, "{tag}");
        }
        assert_eq!(ask(&bundle, "socket.io.js", &[("if-none-match", "\"4.8.3\"")]).unwrap().status(), 200);
    }

    #[test]
    fn nothing_else_of_the_directory_is_served() {
        let (package, bundle) = bundle();
        for name in ["secret.js", "../package.json", "socket.io.min.js", "", "socket.io.js/", "SOCKET.IO.JS"]
        {
            assert!(ask(&bundle, name, &[]).is_none(), "{name}");
        }
        assert!(ClientBundle::read(package.path()).is_err());
    }

    #[test]
    fn the_version_may_stand_in_the_file() {
        let dist = tempfile::tempdir().unwrap();
        std::fs::write(dist.path().join("socket.io.min.js"), "/*!\n * Socket.IO v4.8.3\n */").unwrap();
        assert_eq!(ClientBundle::read(dist.path()).unwrap().etag, "\"4.8.3\"");
    }
}
