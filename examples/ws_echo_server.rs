//! A WebSocket server without Socket.IO, which says everything back.
//!
//! ```text
//! cargo run --example ws_echo_server                    # 127.0.0.1:3001
//! cargo run --example ws_echo_client -- hello world     # in another terminal
//! ```
//!
//! What to see: who comes and goes, and in the other terminal the words that were sent.

use imks::client::ClientResult;
use imks::client::raw::{Message, RawConnection, RawServer};
use tokio_util::task::TaskTracker;

#[tokio::main]
#[allow(clippy::print_stdout, reason = "it talks to a person")]
async fn main() -> ClientResult<()> {
    let server = RawServer::bind(([127, 0, 0, 1], 3001)).await?;
    println!("listening on ws://{}", server.local_addr());
    serve(server).await;
    Ok(())
}

/// Serves everybody, each in a task.
#[allow(clippy::print_stdout, reason = "it talks to a person")]
pub async fn serve(mut server: RawServer) {
    let tasks = TaskTracker::new();
    while let Some((connection, address)) = server.accept().await {
        tasks.spawn(async move {
            println!("{address} is here");
            match echo(connection).await {
                Ok(()) => println!("{address} is gone"),
                Err(error) => println!("{address} is lost: {error}"),
            }
        });
    }
}

async fn echo(mut connection: RawConnection) -> ClientResult<()> {
    while let Some(message) = connection.receive().await? {
        match message {
            Message::Text(text) => connection.send_text(&text).await?,
            Message::Binary(bytes) => connection.send_binary(bytes).await?,
            // They were answered already.
            Message::Ping(_) | Message::Pong(_) | Message::Close(..) => {}
        }
    }
    Ok(())
}
