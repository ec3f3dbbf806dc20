//! Why a command failed, and what to do. Refused: the service has answered. Unanswered: it has not, for as
//! long as we tried.

use std::io;
use std::process::ExitCode;

use chassis::code::name;
use clap::error::ErrorKind;
use tonic::Code;
use uuid::Uuid;

/// A command that did not come to its end.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// The service's own words.
    #[error("refused ({}): {message}", name(*code))]
    Refused { code: Code, message: String },
    #[error("{0}")]
    Unanswered(String),
    /// Nobody knows whether a change was made.
    #[error(
        "{why}\nWhether it took effect is not known. To find out, repeat the command with --request-id \
         {request_id}: it takes effect once"
    )]
    UnknownOutcome { why: String, request_id: Uuid },
    /// Something in the command itself.
    #[error("{0}")]
    Usage(String),
    #[error("cannot print: {0}")]
    Output(#[from] io::Error),
    #[error(transparent)]
    Other(#[from] anyhow::Error),
}

impl Failure {
    /// The same, of a change that may have been made.
    pub(crate) fn of_unknown_outcome(self, request_id: Uuid) -> Self {
        // With the causes, where it has any.
        let why = format!("{self:#}");
        Self::UnknownOutcome { why, request_id }
    }

    /// Says it on standard error.
    #[expect(clippy::print_stderr, reason = "that is where a person looks")]
    pub(crate) fn report(self) -> ExitCode {
        match self {
            Self::Usage(why) => crate::cli::command()
                .error(ErrorKind::ValueValidation, why)
                .exit(),
            // Who reads has seen enough, as `head` has.
            Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
            Self::Other(error) => {
                eprintln!("shop: {error:#}");
                ExitCode::FAILURE
            }
            other => {
                eprintln!("shop: {other}");
                ExitCode::FAILURE
            }
        }
    }
}
