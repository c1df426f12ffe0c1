//! Answers `!echo text` with `text`, in every conversation it is invited to.
//!
//! `COMITY_TOKEN=... cargo run --example echo_bot -- echo-bot@eu.example [SERVER]`

use comity_sdk::{Client, Event};

#[tokio::main]
async fn main() -> comity_sdk::Result<()> {
    let address = std::env::args()
        .nth(1)
        .unwrap_or_else(|| "echo-bot@eu.example".to_owned());
    let mut builder = Client::builder(address)
        .token(std::env::var("COMITY_TOKEN")?)
        .store("./echo-bot"); // outbox and place of reading; omit for memory only
    if let Some(server) = std::env::args().nth(2) {
        builder = builder.server(server);
    }
    let client = builder.connect().await?; // finds the server, QUIC then WebSocket
    let mut events = client.events(); // never ends on a lost network
    while let Some(event) = events.next().await {
        match event {
            Event::Message(m) if !m.is_own() => {
                if let Some(text) = m.text().strip_prefix("!echo ") {
                    let _ = m.reply(text).await?; // Ok = safe in the outbox
                }
            }
            Event::Connection(state) => eprintln!("{state}"),
            _ => {}
        }
    }
    Ok(())
}
