//! What a process logs and exports.

use std::{sync::Arc, time::Duration};

use anyhow::{Context as _, Result};
use axum::{Router, extract::Request as HttpRequest, response::IntoResponse as _, routing::post};
use chassis::listen;
use serde_json::Value;
use tokio::{sync::mpsc, time::timeout};
use tonic::{Request, Response, Status, server::UnaryService, transport::server::TcpIncoming};
use tonic_prost::ProstCodec;

use crate::{
    child::{Child, TRACEPARENT},
    echo::Text,
};

const SOON: Duration = Duration::from_secs(20);

fn trace_id() -> &'static str {
    &TRACEPARENT[3..35]
}

#[tokio::test]
async fn json_lines_carry_the_trace_id_where_there_is_one() -> Result<()> {
    let mut child = Child::start("json", &[])?;
    let line: Value = serde_json::from_str(&child.line("within").await?)?;
    assert_eq!(line["trace_id"], trace_id());
    assert_eq!(
        (&line["answer"], &line["span"]["part"]),
        (&42.into(), &7.into())
    );
    assert_eq!(
        (&line["level"], &line["message"]),
        (&"INFO".into(), &"within".into())
    );
    let line: Value = serde_json::from_str(&child.line("without").await?)?;
    assert_eq!(line.get("trace_id"), None);
    assert_eq!(child.ended().await?.code(), Some(0));
    Ok(())
}

#[tokio::test]
async fn a_quiet_log_does_not_cut_traces() -> Result<()> {
    let mut child = Child::start("quiet", &[])?;
    let first = child.line("").await?;
    let expected = format!("loud trace_id={}", trace_id());
    assert!(first.ends_with(&expected), "{first}");
    Ok(())
}

#[tokio::test]
async fn a_panic_is_logged_as_a_line_like_the_others() -> Result<()> {
    let mut child = Child::start("panics", &[])?;
    let line: Value = serde_json::from_str(&child.line("on purpose").await?)?;
    assert_eq!(line["level"], "ERROR");
    Ok(())
}

#[tokio::test]
async fn spans_reach_the_collector_before_the_process_ends() -> Result<()> {
    let (sender, mut exports) = mpsc::unbounded_channel();
    let collect = Collect(Arc::new(sender));
    let handler = async move |request: HttpRequest| {
        tonic::server::Grpc::new(ProstCodec::<Text, Export>::default())
            .unary(collect, request)
            .await
            .into_response()
    };
    let path = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";
    let routes: tonic::service::Routes = Router::new().route(path, post(handler)).into();
    let listener = listen::bind("collector", ([127, 0, 0, 1], 0).into()).await?;
    let endpoint = format!("http://{}", listener.local_addr()?);
    tokio::spawn(
        tonic::transport::Server::builder()
            .add_routes(routes)
            .serve_with_incoming(TcpIncoming::from(listener)),
    );

    let child = Child::start("json", &[("OTEL_EXPORTER_OTLP_ENDPOINT", &endpoint)])?;
    let bytes = timeout(SOON, exports.recv()).await?.context("no export")?;
    let holds = |part: &[u8]| bytes.windows(part.len()).any(|window| window == part);
    let id = u128::from_str_radix(trace_id(), 16)?.to_be_bytes();
    assert!(
        holds(b"child") && holds(b"work") && holds(&id),
        "{bytes:x?}"
    );
    assert_eq!(child.ended().await?.code(), Some(0));
    Ok(())
}

#[tokio::test]
async fn a_collector_that_is_not_there_is_told_and_does_not_fail_the_process() -> Result<()> {
    let taken = listen::bind("nobody", ([127, 0, 0, 1], 0).into()).await?;
    let endpoint = format!("http://{}", taken.local_addr()?);
    drop(taken);
    let mut child = Child::start("json", &[("OTEL_EXPORTER_OTLP_ENDPOINT", &endpoint)])?;
    let line: Value = serde_json::from_str(&child.line("ExportError").await?)?;
    assert_eq!(line["level"], "ERROR");
    assert_eq!(child.ended().await?.code(), Some(0));
    Ok(())
}

/// The first field of `ExportTraceServiceRequest`, not decoded any further.
#[derive(Clone, PartialEq, prost::Message)]
struct Export {
    #[prost(bytes = "vec", repeated, tag = "1")]
    spans: Vec<Vec<u8>>,
}

#[derive(Clone)]
struct Collect(Arc<mpsc::UnboundedSender<Vec<u8>>>);

impl UnaryService<Export> for Collect {
    type Response = Text;
    type Future = std::future::Ready<Result<Response<Text>, Status>>;

    fn call(&mut self, request: Request<Export>) -> Self::Future {
        let _ = self.0.send(request.into_inner().spans.concat());
        std::future::ready(Ok(Response::new(Text::default())))
    }
}
