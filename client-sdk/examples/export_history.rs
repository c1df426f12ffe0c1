//! Writes a whole conversation as JSON lines, oldest first.
//!
//! `cargo run --example export_history -- alice@eu.example CONVERSATION [SERVER] > out.jsonl`
//! with `COMITY_PASSWORD` set. Memory does not grow with the conversation's length.

use std::io::Write;

use comity_sdk::{Body, Client, Error};
use futures::TryStreamExt;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let (Some(address), Some(id)) = (args.next(), args.next()) else {
        return Err("usage: export_history ADDRESS CONVERSATION [SERVER]".into());
    };
    let mut builder = Client::builder(address).password(std::env::var("COMITY_PASSWORD")?);
    if let Some(server) = args.next() {
        builder = builder.server(server);
    }
    let client = builder.connect().await?;
    let conversation = client.conversation(id.parse()?);
    let mut messages = conversation.history().oldest().limit(500).stream();
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    let mut lines = 0u64;
    while let Some(message) = messages.try_next().await? {
        let body = match message.body() {
            Body::Held(content) => serde_json::json!(content.text),
            Body::Gone => serde_json::json!({ "gone": true }),
            Body::Expired => serde_json::json!({ "expired": true }),
            _ => serde_json::Value::Null,
        };
        let line = serde_json::json!({
            "id": message.id().to_string(),
            "kind": message.act().kind(),
            "author": message.author().to_string(),
            "time_ms": message.time().0,
            "text": body,
            "reply_to": message.reply_to().iter().map(ToString::to_string).collect::<Vec<_>>(),
            "edited": message.edited().is_some(),
            "deleted": message.deleted().is_some(),
        });
        writeln!(out, "{line}")?;
        lines += 1;
    }
    out.flush()?;
    eprintln!("{lines} lines");
    client
        .close()
        .await
        .or_else(|e: Error| if e.is_retryable() { Ok(()) } else { Err(e) })?;
    Ok(())
}
