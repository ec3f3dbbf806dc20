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
        let ask = async |request| services.call(operation, &request).await;
        if all {
            results.extend(all_redriven(ask).await?);
        } else {
            left = redriven(left, &mut results, ask).await?;
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

/// All letters of a service, a page at a time.
async fn all_redriven(
    ask: impl AsyncFn(RedriveDeadLettersRequest) -> Result<RedriveDeadLettersResponse, Failure>,
) -> Result<Vec<RedriveResult>, Failure> {
    let (mut results, mut page_token) = (Vec::new(), String::new());
    loop {
        let request = RedriveDeadLettersRequest {
            all: true,
            page_token,
            ..RedriveDeadLettersRequest::default()
        };
        let answer = ask(request).await?;
        // Another call was quicker than this one.
        let is_gone = |result: &RedriveResult| result.outcome() == RedriveOutcome::NotFound;
        results.extend(answer.results.into_iter().filter(|result| !is_gone(result)));
        page_token = answer.next_page_token;
        if page_token.is_empty() {
            return Ok(results);
        }
    }
}

/// Asks a service until all have been tried; returns those that it does not have: the other may.
async fn redriven(
    mut asked: Vec<u64>,
    results: &mut Vec<RedriveResult>,
    ask: impl AsyncFn(RedriveDeadLettersRequest) -> Result<RedriveDeadLettersResponse, Failure>,
) -> Result<Vec<u64>, Failure> {
    let mut not_found = Vec::new();
    while !asked.is_empty() {
        let request = RedriveDeadLettersRequest {
            sequences: std::mem::take(&mut asked),
            ..RedriveDeadLettersRequest::default()
        };
        for result in ask(request).await?.results {
            match result.outcome() {
                RedriveOutcome::NotTried => asked.push(result.sequence),
                RedriveOutcome::NotFound => not_found.push(result.sequence),
                _ => results.push(result),
            }
        }
    }
    Ok(not_found)
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

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::collections::VecDeque;
    use std::future::ready;

    use super::*;

    type Answer = (&'static [(u64, RedriveOutcome)], &'static str);

    /// Answers one request after the other, and notes which letters, or which page, each asked for.
    struct Service {
        answers: RefCell<VecDeque<Answer>>,
        asked: RefCell<Vec<(Vec<u64>, String)>>,
    }

    impl Service {
        fn with(answers: &[Answer]) -> Self {
            Self {
                answers: RefCell::new(answers.iter().copied().collect()),
                asked: RefCell::default(),
            }
        }

        fn answer(&self, request: RedriveDeadLettersRequest) -> RedriveDeadLettersResponse {
            let asked = (request.sequences, request.page_token);
            self.asked.borrow_mut().push(asked);
            let (results, token) = self.answers.borrow_mut().pop_front().unwrap();
            let result = |(sequence, outcome): &(u64, RedriveOutcome)| RedriveResult {
                sequence: *sequence,
                outcome: (*outcome).into(),
                why: String::new(),
            };
            RedriveDeadLettersResponse {
                results: results.iter().map(result).collect(),
                next_page_token: token.to_owned(),
            }
        }
    }

    fn sequences(results: &[RedriveResult]) -> Vec<u64> {
        results.iter().map(|result| result.sequence).collect()
    }

    #[tokio::test]
    async fn letters_that_were_not_tried_are_asked_for_again() {
        use RedriveOutcome::{Applied, Failed, NotFound, NotTried};
        let service = Service::with(&[
            (
                &[(3, Applied), (4, NotFound), (5, NotTried), (6, NotTried)],
                "",
            ),
            (&[(5, Failed), (6, NotTried)], ""),
            (&[(6, NotFound)], ""),
        ]);
        let mut results = Vec::new();
        let ask = |request| ready(Ok(service.answer(request)));
        let left = redriven(vec![3, 4, 5, 6], &mut results, ask).await.unwrap();
        assert_eq!(left, [4, 6]);
        assert_eq!(sequences(&results), [3, 5]);
        let asked = service.asked.into_inner();
        let asked: Vec<_> = asked.into_iter().map(|(asked, _)| asked).collect();
        assert_eq!(asked, [vec![3, 4, 5, 6], vec![5, 6], vec![6]]);
    }

    #[tokio::test]
    async fn all_letters_are_asked_for_page_by_page() {
        use RedriveOutcome::{Applied, Failed, NotFound};
        let service = Service::with(&[
            (&[(3, Applied), (4, NotFound)], "next"),
            (&[], "last"),
            (&[(5, Failed)], ""),
        ]);
        let results = all_redriven(|request| ready(Ok(service.answer(request))));
        assert_eq!(sequences(&results.await.unwrap()), [3, 5]);
        let asked = service.asked.into_inner();
        let asked: Vec<_> = asked.iter().map(|(_, token)| token.as_str()).collect();
        assert_eq!(asked, ["", "next", "last"]);
    }
}
