//! Events as they stand in the streams.

use anyhow::{Context, Result};
use harness::{Side, System};

/// A message of a stream.
#[derive(Debug)]
pub(crate) struct Event {
    pub(crate) event_type: String,
    pub(crate) traceparent: String,
    pub(crate) payload: bytes::Bytes,
}

/// How many events a side's stream holds.
pub(crate) async fn count(system: &System, side: Side) -> Result<usize> {
    let jetstream = async_nats::jetstream::new(system.nats().client().await?);
    let stream = jetstream.get_stream(side.stream()).await?;
    Ok(usize::try_from(stream.cached_info().state.messages)?)
}

/// All events of a side's stream, in its order.
pub(crate) async fn read(system: &System, side: Side) -> Result<Vec<Event>> {
    let jetstream = async_nats::jetstream::new(system.nats().client().await?);
    let stream = jetstream.get_stream(side.stream()).await?;
    let state = &stream.cached_info().state;
    let mut events = Vec::new();
    for sequence in state.first_sequence..=state.last_sequence {
        let message = stream.get_raw_message(sequence).await?;
        let header = |name: &str| {
            let value = message.headers.get(name).map(|value| value.as_str());
            value.unwrap_or_default().to_owned()
        };
        events.push(Event {
            event_type: header("Event-Type"),
            traceparent: header("traceparent"),
            payload: message.payload.clone(),
        });
    }
    Ok(events)
}

/// The first event of a type whose message fits.
pub(crate) async fn find<M: prost::Message + prost::Name + Default>(
    system: &System,
    side: Side,
    fits: impl Fn(&M) -> bool,
) -> Result<Event> {
    let found = read(system, side).await?.into_iter().find(|event| {
        event.event_type == M::full_name() && M::decode(&*event.payload).is_ok_and(|m| fits(&m))
    });
    found.with_context(|| format!("{} holds no such {}", side.stream(), M::full_name()))
}
