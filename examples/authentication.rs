//! Who a client is: the application's own check at connect, and handlers that know the user.
//!
//! ```text
//! cargo run --example authentication
//! ```
//!
//! Then with Node.js (`npm install socket.io-client`):
//!
//! ```text
//! node -e '
//!   const { io } = require("socket.io-client");
//!   for (const token of ["alice-key", "wrong", "busy"]) {
//!     const socket = io("http://localhost:3000", { auth: { token }, forceNew: true });
//!     socket.on("connect_error", (error) => console.log(token, error.message, error.data));
//!     socket.on("connect", () => console.log(token, "connected"));
//!     socket.emit("whoami", (name) => console.log(token, "is", name));
//!   }
//! '
//! ```
//!
//! What to see: `alice-key` is Alice. `wrong` is refused for good. `busy` is not let in for the first ten seconds, and then
//! is, without code in the client: a refusal that passes ends the transport, and a stock client comes back.

use std::time::{Duration, Instant};

use imks::socket::{Authenticator, ConnectError, Credentials, Reply, Server, Socket};

struct User {
    name: &'static str,
}

/// Knows two keys. A real one would ask a database, and `imks::authenticators` has ready ones: for JSON Web Tokens, and
/// for an HTTP hook.
struct Keys {
    started: Instant,
}

impl Authenticator for Keys {
    type Identity = User;

    async fn authenticate(&self, credentials: Credentials) -> Result<User, ConnectError> {
        match credentials.token().as_deref() {
            Some("alice-key") => Ok(User { name: "Alice" }),
            Some("busy") if self.started.elapsed() < BUSY => Err(ConnectError::reconnect("not yet")),
            Some("busy") => Ok(User { name: "Bob" }),
            _ => Err(ConnectError::unauthenticated()),
        }
    }
}

#[tokio::main]
#[allow(clippy::disallowed_methods, reason = "an application may read the clock")]
async fn main() -> imks::ImksResult<()> {
    tracing_subscriber::fmt().init();
    let server = Server::builder(Default::default()).namespace("/", |ns| {
        ns.authenticate(Keys { started: Instant::now() });
        ns.on_typed("whoami", |socket: Socket, ()| async move {
            Reply(socket.data::<User>().map(|user| user.name))
        });
    });
    server.listen(([127, 0, 0, 1], 3000))?.until(tokio::signal::ctrl_c()).await;
    Ok(())
}

const BUSY: Duration = Duration::from_secs(10);
