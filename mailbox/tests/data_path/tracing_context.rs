//! One trace from the request over the outbox to the consumer, and on to the events it causes.

use anyhow::Result;
use mailbox::envelope::{self, TRACEPARENT, TraceContext};
use mailbox::inbox::claim;
use mailbox::outbox;
use opentelemetry::trace::TracerProvider;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::SdkTracerProvider;
use tracing::info_span;
use tracing_subscriber::layer::SubscriberExt;

use crate::outbox::event;
use crate::world::{World, subscriber_beside};

/// The second field of a traceparent.
fn trace_id(context: &TraceContext) -> &str {
    let traceparent = context.traceparent().expect("a trace");
    traceparent.split('-').nth(1).expect("a trace id")
}

#[tokio::test]
async fn a_trace_goes_from_request_to_effect() -> Result<()> {
    opentelemetry::global::set_text_map_propagator(TraceContextPropagator::new());
    let provider = SdkTracerProvider::builder().build();
    let _company = subscriber_beside();
    let layer = tracing_opentelemetry::layer().with_tracer(provider.tracer("test"));
    let _subscriber = tracing::subscriber::set_default(tracing_subscriber::registry().with(layer));

    let cause = info_span!("request").in_scope(|| event("cause"));
    let world = World::shared().await?;
    let mut client = world.pool.get().await?;
    let tx = client.transaction().await?;
    outbox::append(&tx, std::slice::from_ref(&cause)).await?;
    tx.commit().await?;
    let row = world
        .column("SELECT headers ->> 'traceparent' FROM outbox")
        .await?;
    assert_eq!(row, [cause.trace.traceparent().expect("a trace")]);

    let mut headers = async_nats::HeaderMap::new();
    headers.insert(envelope::EVENT_ID, cause.id.to_string());
    headers.insert(envelope::EVENT_TYPE, cause.event_type.as_str());
    headers.insert(TRACEPARENT, row[0].as_str());
    let delivery = envelope::decode(Some(&headers), Default::default())?;
    let tx = client.transaction().await?;
    let claimed = claim(&tx, "x", vec![delivery]).await?;
    tx.commit().await?;
    let applying = TraceContext::of(claimed[0].span());
    assert_eq!(trace_id(&applying), trace_id(&cause.trace));
    let effect = event("effect").caused_by(&claimed[0]);
    assert_eq!(
        effect.trace, applying,
        "the effect's parent is the span that applies the cause"
    );
    Ok(())
}
