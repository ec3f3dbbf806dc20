//! Status codes by the names of gRPC's specification (tonic has them as `InvalidArgument`), and the HTTP
//! statuses that google.rpc maps them to.

use tonic::Code;

/// The code's name in the specification: `INVALID_ARGUMENT`.
pub fn name(code: Code) -> &'static str {
    name_and_http_status(code).0
}

/// The code of that name.
pub fn named(name: &str) -> Option<Code> {
    const LAST: i32 = Code::Unauthenticated as i32;
    let mut all = (0..=LAST).map(Code::from);
    all.find(|code| self::name(*code) == name)
}

/// The HTTP status that `google/rpc/code.proto` maps the code to.
pub(crate) fn http_status(code: Code) -> usize {
    name_and_http_status(code).1
}

fn name_and_http_status(code: Code) -> (&'static str, usize) {
    match code {
        Code::Ok => ("OK", 200),
        Code::Cancelled => ("CANCELLED", 499),
        Code::Unknown => ("UNKNOWN", 500),
        Code::InvalidArgument => ("INVALID_ARGUMENT", 400),
        Code::DeadlineExceeded => ("DEADLINE_EXCEEDED", 504),
        Code::NotFound => ("NOT_FOUND", 404),
        Code::AlreadyExists => ("ALREADY_EXISTS", 409),
        Code::PermissionDenied => ("PERMISSION_DENIED", 403),
        Code::ResourceExhausted => ("RESOURCE_EXHAUSTED", 429),
        Code::FailedPrecondition => ("FAILED_PRECONDITION", 400),
        Code::Aborted => ("ABORTED", 409),
        Code::OutOfRange => ("OUT_OF_RANGE", 400),
        Code::Unimplemented => ("UNIMPLEMENTED", 501),
        Code::Internal => ("INTERNAL", 500),
        Code::Unavailable => ("UNAVAILABLE", 503),
        Code::DataLoss => ("DATA_LOSS", 500),
        Code::Unauthenticated => ("UNAUTHENTICATED", 401),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_is_found_by_its_name() {
        for number in 0..=16 {
            let code = Code::from(number);
            assert_eq!(named(name(code)), Some(code));
        }
        assert_eq!(name(Code::InvalidArgument), "INVALID_ARGUMENT");
        for none in ["", "InvalidArgument", "NONSENSE"] {
            assert_eq!(named(none), None);
        }
    }
}
