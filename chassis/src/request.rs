//! What gRPC and NATS requests have in common: their metrics.

use std::time::Instant;

use metrics::{
    Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram,
};
use tonic::Code;

pub(crate) use crate::code::{http_status, name};

/// Tells the metrics' meanings to who scrapes them.
pub(crate) fn describe() {
    describe_gauge!("rpc_requests_in_flight", "Requests in progress");
    describe_gauge!("grpc_connections", "Connections of gRPC clients");
    describe_counter!(
        "grpc_connections_refused_total",
        "Connections that were closed because all places were taken"
    );
    describe_counter!("rpc_requests_total", "Requests finished, by status code");
    describe_histogram!(
        "rpc_request_duration_seconds",
        Unit::Seconds,
        "Time from a request's arrival to the end of its answer"
    );
}

/// One request in progress. Counts it by its code and takes its time when it is finished, or as
/// `CANCELLED` when it is dropped before: the caller went away.
#[derive(Debug)]
pub(crate) struct Request {
    transport: &'static str,
    method: &'static str,
    started: Instant,
    finished: bool,
}

impl Request {
    pub(crate) fn started(transport: &'static str, method: &'static str) -> Self {
        gauge!("rpc_requests_in_flight", "transport" => transport).increment(1.0);
        Self {
            transport,
            method,
            started: Instant::now(),
            finished: false,
        }
    }

    /// Only the first call counts.
    pub(crate) fn finish(&mut self, code: Code) {
        if std::mem::replace(&mut self.finished, true) {
            return;
        }
        let (transport, method) = (self.transport, self.method);
        gauge!("rpc_requests_in_flight", "transport" => transport).decrement(1.0);
        counter!("rpc_requests_total", "transport" => transport, "method" => method,
                 "code" => name(code))
        .increment(1);
        histogram!("rpc_request_duration_seconds", "transport" => transport, "method" => method)
            .record(self.started.elapsed().as_secs_f64());
    }
}

impl Drop for Request {
    fn drop(&mut self) {
        self.finish(Code::Cancelled);
    }
}

/// Whether the fault is ours, so that a person of ours should see it.
pub(crate) fn is_our_fault(code: Code) -> bool {
    matches!(code, Code::Unknown | Code::Internal | Code::DataLoss)
}
