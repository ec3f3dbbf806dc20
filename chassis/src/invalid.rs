//! Refusals of bad input that name the field, in the form that gRPC clients can read by program.

use std::fmt::Display;

use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

/// `INVALID_ARGUMENT` with the message `{field}: {why}` and `google.rpc.BadRequest` details.
/// `field` is the path in the request: `total.minor_units`.
pub fn argument(field: &str, why: impl Display) -> Status {
    let why = why.to_string();
    let message = format!("{field}: {why}");
    let details = ErrorDetails::with_bad_request_violation(field, why);
    Status::with_error_details(Code::InvalidArgument, message, details)
}
