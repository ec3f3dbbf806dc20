//! Refusals of requests that are right by themselves, but not for the state that they meet, in the form
//! that gRPC clients can read by program.

use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

/// `FAILED_PRECONDITION` with `why` as the message, and `google.rpc.PreconditionFailure` details:
/// `kind` is a fixed word such as `RESERVED`, `subject` the resource, such as `customers/{id}`.
pub fn failed(kind: &str, subject: &str, why: &str) -> Status {
    let details = ErrorDetails::with_precondition_failure_violation(kind, subject, why);
    Status::with_error_details(Code::FailedPrecondition, why, details)
}
