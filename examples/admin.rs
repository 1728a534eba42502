//! The stock Admin UI on a server of your own.
//!
//! ```text
//! cargo run --example admin
//! ```
//!
//! Then open <https://admin.socket.io>, choose "WebSocket only" among the advanced options, and sign in to
//! `http://localhost:3000` as `operator` with the password `changeit`. Connect somebody with Node.js
//! (`npm install socket.io-client`):
//!
//! ```text
//! node -e 'require("socket.io-client").io("http://localhost:3000").onAny(console.log).emit("hello", 1)'
//! ```
//!
//! What to see: the socket, the event it sends and the one it gets. Send it another one from the page, or disconnect it.

use imks::socket::Server;
use imks::socket::admin::{self, Auth, Mode};

#[tokio::main]
async fn main() -> imks::ImksResult<()> {
    tracing_subscriber::fmt().init();
    // A real program reads the hash from its configuration; `imks admin hash` makes one.
    let password_hash = admin::hash_password("changeit")?;
    let auth = Auth::Basic { username: "operator".into(), password_hash };
    let server = Server::builder(Default::default())
        .namespace("/", |ns| {
            ns.on_sync("hello", |event| {
                if let Err(error) = event.socket().emit_args("hello", event.args()) {
                    tracing::info!(%error, "not answered");
                }
            });
        })
        .instrument(admin::Config { mode: Mode::Development, ..admin::Config::new(auth) });
    server.listen(([127, 0, 0, 1], 3000))?.until(tokio::signal::ctrl_c()).await;
    Ok(())
}
