//! A message, and a gRPC service of it that does as its path says: what the tests call.

use std::{
    pin::Pin,
    sync::{Arc, OnceLock},
    time::Instant,
};

use axum::{
    Router,
    extract::{Path, Request as HttpRequest},
    response::IntoResponse as _,
    routing::post,
};
use chassis::{admission::Admission, config, telemetry::Telemetry, trace};
use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;
use tonic::{Request, Response, Status, server::UnaryService, service::Routes};
use tonic_prost::ProstCodec;

#[derive(Clone, PartialEq, prost::Message, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Text {
    #[prost(string, tag = "1")]
    pub(crate) text: String,
}

impl prost::Name for Text {
    const NAME: &'static str = "Text";
    const PACKAGE: &'static str = "test.v1";
}

/// Who may call what.
pub(crate) const ACCESS: chassis::auth::Table = &[
    ("test.v1.Test/Echo", &["customer", "operator"]),
    ("test.v1.Test/Trace", &["operator"]),
    ("test.v1.Test/Hold", &["operator"]),
    ("test.v1.Test/Long", &["operator"]),
    ("test.v1.Test/Refuse", &["operator"]),
    ("test.v1.Test/Panic", &["operator"]),
    ("test.v1.Test/Missing", &["operator"]),
    ("test.v1.Test/Wait", &["operator"]),
];

/// What `Hold` waits for: one permit lets one call go.
pub(crate) type Gate = Arc<Semaphore>;

/// Telemetry of this test process; installed once, because it is global.
pub(crate) fn telemetry() -> &'static Telemetry {
    static TELEMETRY: OnceLock<Telemetry> = OnceLock::new();
    TELEMETRY.get_or_init(|| {
        let config = config::Telemetry {
            log_filter: "off".to_owned(),
            log_format: config::LogFormat::Text,
            otlp_endpoint: None,
        };
        chassis::telemetry::init(&config, "chassis-tests").unwrap()
    })
}

/// `/test.v1.Test/{operation}`; see [`perform`].
pub(crate) fn routes(gate: Gate) -> Routes {
    let handler = async move |Path(operation): Path<String>, request: HttpRequest| {
        tonic::server::Grpc::new(ProstCodec::<Text, Text>::default())
            .unary(Operation { operation, gate }, request)
            .await
            .into_response()
    };
    Router::new()
        .route("/test.v1.Test/{operation}", post(handler))
        .into()
}

struct Operation {
    operation: String,
    gate: Gate,
}

impl UnaryService<Text> for Operation {
    type Response = Text;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Text>, Status>> + Send>>;

    fn call(&mut self, request: Request<Text>) -> Self::Future {
        let (operation, gate) = (self.operation.clone(), Arc::clone(&self.gate));
        Box::pin(async move { perform(&operation, &gate, request).await })
    }
}

pub(crate) async fn perform(
    operation: &str,
    gate: &Gate,
    request: Request<Text>,
) -> Result<Response<Text>, Status> {
    let text = match operation {
        "Echo" => request.into_inner().text,
        "Trace" => trace::current_trace_id().map_or_else(String::new, |id| id.to_string()),
        "Hold" => {
            gate.acquire().await.unwrap().forget();
            "held".to_owned()
        }
        "Wait" => {
            let admission = Admission::of(&request);
            if request.get_ref().text != "not" {
                admission.give_up_place();
                gate.acquire().await.unwrap().forget();
            }
            "waited".to_owned()
        }
        "Left" => {
            let left = Admission::of(&request).answer_by() - Instant::now();
            left.as_millis().to_string()
        }
        "Long" => "x".repeat(2 << 20),
        "Refuse" => return Err(chassis::invalid::argument("text", "must not\nbe this")),
        "Panic" => panic!("a panic that a test asked for"),
        other => return Err(Status::not_found(format!("no operation {other}"))),
    };
    Ok(Response::new(Text { text }))
}
