//! The stock page of the Admin UI under `/admin/`. Its files are read once at startup. Other files cannot be
//! reached. The page has the same origin as the server, so it needs no cross-origin rules.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{self, State};
use axum::http::{HeaderName, header};
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::get;

use crate::{ImksError, ImksResult};

/// Returns the routes of the page, whose files are in `directory` (`ui/dist` of npm `@socket.io/admin-ui`).
///
/// # Errors
/// [`ImksError::Config`] if `index.html` is missing or the directory is too large.
pub fn routes(directory: &Path) -> ImksResult<Router> {
    let mut page = Page::default();
    page.read(directory, "", DEPTH_MAX)?;
    if !page.files.contains_key(INDEX) {
        let hint = "no index.html there; name the directory `ui/dist` of the npm package @socket.io/admin-ui";
        return Err(wrong(directory, hint));
    }
    let index = async |State(page): State<Arc<Page>>| page.answer(INDEX);
    let file =
        async |State(page): State<Arc<Page>>, extract::Path(name): extract::Path<String>| page.answer(&name);
    Ok(Router::new()
        .route("/admin", get(async || Redirect::permanent("/admin/")))
        .route("/admin/", get(index))
        .route("/admin/{*name}", get(file))
        .with_state(Arc::new(page)))
}

#[derive(Default)]
struct Page {
    /// The content type and content of each file, by path below `/admin/`.
    files: HashMap<String, (&'static str, Bytes)>,
    bytes: usize,
}

impl Page {
    fn read(&mut self, directory: &Path, below: &str, depth: usize) -> ImksResult<()> {
        let broken = || ImksError::io("reading the files of the Admin UI");
        for entry in std::fs::read_dir(directory).map_err(broken())? {
            let entry = entry.map_err(broken())?;
            let (path, Ok(name)) = (entry.path(), entry.file_name().into_string()) else { continue };
            let name = format!("{below}{name}");
            if path.is_dir() && depth > 0 {
                self.read(&path, &format!("{name}/"), depth - 1)?;
            } else if let Some(content_type) = content_type(&name) {
                let content = std::fs::read(&path).map_err(broken())?;
                self.bytes += content.len();
                self.files.insert(name, (content_type, content.into()));
            }
            if self.bytes > BYTES_MAX {
                return Err(wrong(directory, "too many bytes for a page"));
            }
        }
        Ok(())
    }

    fn answer(&self, name: &str) -> Response {
        let Some((content_type, content)) = self.files.get(name) else {
            return super::failure(&ImksError::NotFound("page"));
        };
        let headers = [
            (header::CONTENT_TYPE, *content_type),
            (header::CACHE_CONTROL, "no-cache"),
            (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
            (header::REFERRER_POLICY, "no-referrer"),
            (HeaderName::from_static("content-security-policy"), POLICY),
        ];
        (headers, content.clone()).into_response()
    }
}

/// Returns the content type of a file. Types that the page does not use are not served.
fn content_type(name: &str) -> Option<&'static str> {
    match name.rsplit_once('.')?.1 {
        "html" => Some("text/html; charset=utf-8"),
        "js" => Some("text/javascript; charset=utf-8"),
        "css" => Some("text/css; charset=utf-8"),
        "svg" => Some("image/svg+xml"),
        "png" => Some("image/png"),
        _ => None,
    }
}

fn wrong(directory: &Path, what: &str) -> ImksError {
    ImksError::Config(format!("IMKS_ADMIN_UI_DIR {}: {what}", directory.display()))
}

const INDEX: &str = "index.html";
/// The content security policy. The page sets styles from scripts, loads fonts from these two places, and may
/// connect to other servers.
const POLICY: &str = "default-src 'none'; script-src 'self'; \
     style-src 'self' 'unsafe-inline' https://fonts.googleapis.com https://cdn.jsdelivr.net; \
     font-src https://fonts.gstatic.com https://cdn.jsdelivr.net; img-src 'self' data:; \
     connect-src 'self' http: https: ws: wss:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
/// The maximum depth of directories below `directory`.
const DEPTH_MAX: usize = 2;
/// The maximum size of all files together. Version 0.5 has two million bytes.
const BYTES_MAX: usize = 16_000_000;

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use axum::http::Request;
    use http_body_util::BodyExt;
    use tower::ServiceExt;

    use super::*;

    #[tokio::test]
    async fn the_page_and_nothing_else_of_its_directory_is_served() {
        let package = tempfile::tempdir().unwrap();
        let dist = package.path().join("dist");
        std::fs::create_dir_all(dist.join("js")).unwrap();
        std::fs::write(package.path().join("secret.js"), "secret").unwrap();
        std::fs::write(dist.join("key.pem"), "secret").unwrap();
        assert!(routes(&dist).unwrap_err().to_string().contains("index.html"));
        std::fs::write(dist.join("index.html"), "page").unwrap();
        std::fs::write(dist.join("js/app.js"), "script").unwrap();
        let router = routes(&dist).unwrap();
        let ask = async |path: &str| {
            let request = Request::get(path).body(Body::empty()).unwrap();
            let response = router.clone().oneshot(request).await.unwrap();
            let status = response.status().as_u16();
            (status, response.into_body().collect().await.unwrap().to_bytes())
        };
        assert_eq!(ask("/admin").await.0, 308);
        assert_eq!(ask("/admin/").await, (200, "page".into()));
        assert_eq!(ask("/admin/js/app.js").await, (200, "script".into()));
        for path in
            ["/admin/key.pem", "/admin/../secret.js", "/admin/%2e%2e/secret.js", "/admin/js", "/admin/js/"]
        {
            assert_eq!(ask(path).await.0, 404, "{path}");
        }
    }
}
