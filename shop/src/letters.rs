//! `shop dead-letters …`: the events that a service could not apply. Each service serves its own alone, so
//! both are asked, and what one of them does not have the other may.

use std::process::ExitCode;

use anyhow::Context as _;
use clap::ValueEnum;
use proto::dead_letters::v1::{
    DiscardDeadLettersRequest, DiscardDeadLettersResponse, GetDeadLetterRequest,
    GetDeadLetterResponse, ListDeadLettersRequest, ListDeadLettersResponse,
    RedriveDeadLettersRequest, RedriveDeadLettersResponse, RedriveOutcome, RedriveResult,
};
use std::time::Duration;
use tonic::Code;

use crate::failure::Failure;
use crate::reach::{Operation, Services};
use crate::show::Out;

/// The services give what concerns many letters this before they answer.
const LETTERS_MAX: Duration = Duration::from_secs(20);

#[derive(clap::Subcommand, Debug)]
pub(crate) enum LettersCommand {
    /// Lists the dead letters of both services, the oldest of each first
    List {
        /// Only this service's
        #[arg(long)]
        service: Option<Side>,
    },
    /// Shows a dead letter with its event decoded
    Show { letter: u64 },
    /// Applies the events of dead letters once more, each once at most
    Redrive {
        #[arg(required_unless_present = "all")]
        letters: Vec<u64>,
        /// All of them
        #[arg(long, conflicts_with = "letters")]
        all: bool,
        /// Only this service's
        #[arg(long)]
        service: Option<Side>,
    },
    /// Takes dead letters away without applying their events; what is discarded is kept with the reason
    Discard {
        #[arg(required = true)]
        letters: Vec<u64>,
        /// Why the events need not be applied
        #[arg(long, value_name = "WHY")]
        reason: String,
    },
}

/// Whose letters.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub(crate) enum Side {
    Orders,
    Customers,
}

/// The operations' names on one side.
struct Subjects {
    list: &'static str,
    get: &'static str,
    redrive: &'static str,
    discard: &'static str,
}

impl Side {
    const BOTH: [Self; 2] = [Self::Orders, Self::Customers];

    fn subjects(self) -> Subjects {
        macro_rules! of {
            ($service:literal) => {
                Subjects {
                    list: concat!("dead_letters.v1.", $service, ".ListDeadLetters"),
                    get: concat!("dead_letters.v1.", $service, ".GetDeadLetter"),
                    redrive: concat!("dead_letters.v1.", $service, ".RedriveDeadLetters"),
                    discard: concat!("dead_letters.v1.", $service, ".DiscardDeadLetters"),
                }
            };
        }
        match self {
            Self::Orders => of!("order-service"),
            Self::Customers => of!("customer-service"),
        }
    }
}

pub(crate) async fn run(
    command: LettersCommand,
    services: &Services,
    out: &mut Out,
) -> Result<ExitCode, Failure> {
    match command {
        LettersCommand::List { service } => list(services, service, out).await,
        LettersCommand::Show { letter } => show(services, letter, out).await,
        LettersCommand::Redrive {
            letters, service, ..
        } => redrive(services, &letters, service, out).await,
        LettersCommand::Discard { letters, reason } => {
            discard(services, &letters, &reason, out).await
        }
    }
}

fn sides(service: Option<Side>) -> Vec<Side> {
    service.map_or_else(|| Side::BOTH.to_vec(), |one| vec![one])
}

async fn list(
    services: &Services,
    service: Option<Side>,
    out: &mut Out,
) -> Result<ExitCode, Failure> {
    for side in sides(service) {
        let operation = Operation::read(side.subjects().list);
        let mut request = ListDeadLettersRequest::default();
        loop {
            let page: ListDeadLettersResponse = services.call(operation, &request).await?;
            out.items(&page.dead_letters)?;
            if page.next_page_token.is_empty() {
                break;
            }
            request.page_token = page.next_page_token;
        }
    }
    Ok(ExitCode::SUCCESS)
}

async fn show(services: &Services, sequence: u64, out: &mut Out) -> Result<ExitCode, Failure> {
    let mut refused = None;
    for side in Side::BOTH {
        let operation = Operation::read(side.subjects().get);
        let request = GetDeadLetterRequest { sequence };
        match services
            .call::<_, GetDeadLetterResponse>(operation, &request)
            .await
        {
            Ok(letter) => {
                out.one(&letter)?;
                return Ok(ExitCode::SUCCESS);
            }
            Err(Failure::Refused { code, message }) if code == Code::NotFound => {
                refused = Some(Failure::Refused { code, message });
            }
            Err(other) => return Err(other),
        }
    }
    Err(refused.context("no service was asked")?)
}

/// Without letters, all.
async fn redrive(
    services: &Services,
    letters: &[u64],
    service: Option<Side>,
    out: &mut Out,
) -> Result<ExitCode, Failure> {
    let all = letters.is_empty();
    let mut left = letters.to_vec();
    let mut results = Vec::new();
    for side in sides(service) {
        // One that ends its process is not to end the next replica too.
        let operation = Operation::read(side.subjects().redrive);
        let operation = operation.waiting(LETTERS_MAX).heard_once();
        let mut request = RedriveDeadLettersRequest {
            all,
            sequences: left.clone(),
            ..RedriveDeadLettersRequest::default()
        };
        while all || !left.is_empty() {
            let answer: RedriveDeadLettersResponse = services.call(operation, &request).await?;
            for result in answer.results {
                // The other service may have it.
                if result.outcome() != RedriveOutcome::NotFound {
                    left.retain(|letter| *letter != result.sequence);
                    results.push(result);
                }
            }
            if answer.next_page_token.is_empty() {
                break;
            }
            request.page_token = answer.next_page_token;
        }
    }
    results.extend(left.into_iter().map(|sequence| RedriveResult {
        sequence,
        outcome: RedriveOutcome::NotFound.into(),
        why: String::new(),
    }));
    out.items(&results)?;
    let is_applied = |result: &RedriveResult| {
        let outcome = result.outcome();
        [RedriveOutcome::Applied, RedriveOutcome::AlreadyApplied].contains(&outcome)
    };
    Ok(match results.iter().all(is_applied) {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    })
}

async fn discard(
    services: &Services,
    letters: &[u64],
    reason: &str,
    out: &mut Out,
) -> Result<ExitCode, Failure> {
    let mut whole = DiscardDeadLettersResponse::default();
    let mut left = letters.to_vec();
    for side in Side::BOTH {
        let operation = Operation::read(side.subjects().discard).waiting(LETTERS_MAX);
        // What one of them does not have the other may.
        let mut asked = std::mem::take(&mut left);
        while !asked.is_empty() {
            let request = DiscardDeadLettersRequest {
                sequences: asked,
                reason: reason.to_owned(),
            };
            let answer: DiscardDeadLettersResponse = services.call(operation, &request).await?;
            whole.discarded.extend(answer.discarded);
            left.extend(answer.not_found);
            asked = answer.not_tried;
        }
    }
    whole.not_found = left;
    out.discarded(&whole)?;
    Ok(match whole.not_found.is_empty() {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    })
}
