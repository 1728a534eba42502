//! The check of `imks doctor` whether a web page of another origin may connect.

use http::{Method, StatusCode, header};

use super::advice;
use super::http::{Answer, ask};
use super::network::Route;
use super::report::{Fault, Outcome};

/// Asks as a browser does for a page of `origin`.
pub(super) async fn examine(route: &Route, origin: &str) -> (Option<()>, Outcome) {
    let scheme = if route.tls.is_some() { "https" } else { "http" };
    if origin == format!("{scheme}://{}", route.address.authority) {
        return (Some(()), Outcome::Good("the page is of the server itself, so browsers do not ask".into()));
    }
    let target = route.address.target("polling", None);
    match ask(route, Method::GET, &target, &[(header::ORIGIN, origin)], "").await {
        Err(error) => {
            let fault = Fault::new(advice::excerpt(&error.to_string()), "no answer", "see the line `http`");
            (None, Outcome::Failed(fault))
        }
        Ok(answer) => (Some(()), judge(origin, &answer)),
    }
}

fn judge(origin: &str, answer: &Answer) -> Outcome {
    let allowed = answer.header(header::ACCESS_CONTROL_ALLOW_ORIGIN);
    match (answer.status, allowed) {
        (StatusCode::OK, Some(allowed)) if allowed == origin || allowed == "*" => {
            Outcome::Good(format!("pages of {origin} may connect"))
        }
        (status, allowed) => {
            Outcome::Failed(advice::cors(origin, status.as_u16(), allowed.map(advice::excerpt).as_deref()))
        }
    }
}
