//! The dead letters of a service, for people to look at, redrive and discard: the methods of
//! `dead_letters.v1`, which serve gRPC and NATS requests alike. Each service that consumes events adds them
//! to its own, with the handler that applies its events and what shows their messages.

use std::sync::Arc;
use std::time::Duration;

mod shown;

use chassis::grpc::MESSAGE_SIZE_MAX;
use chassis::{failure, invalid, page, rpc};
use deadpool_postgres::Pool;
use mailbox::consumer::{self, Handler};
use mailbox::dead_letter::{Error, Letter, Letters, Outcome, Redrive};
use proto::dead_letters::v1::dead_letter_service_server::{
    DeadLetterService, DeadLetterServiceServer, SERVICE_NAME,
};
use proto::dead_letters::v1::{
    DiscardDeadLettersRequest, DiscardDeadLettersResponse, GetDeadLetterRequest,
    GetDeadLetterResponse, Header, ListDeadLettersRequest, ListDeadLettersResponse,
    RedriveDeadLettersRequest, RedriveDeadLettersResponse, RedriveOutcome, RedriveResult,
};
use tokio::time::Instant;
use tonic::{Request, Response, Status};

use shown::{SHOWN_BYTES_MAX, dead_letter, shown};

/// An event's message in protobuf's canonical JSON, by the event's type; or why it cannot be shown.
pub type ToJson = fn(event_type: &str, payload: &[u8]) -> Result<String, String>;

/// The list's name, which its page tokens are bound to.
const LIST: &str = "dead_letters.v1.DeadLetter";
/// Letters that one request may name.
const SEQUENCES_MAX: usize = 1000;
/// For its caller to get an answer, a request has 30 s.
const TIMES: Times = Times {
    letters: Duration::from_secs(20),
    letter: Duration::from_secs(8),
};
/// Of a letter that nobody named.
const DEADLY: &str = "not tried with all the others, since it ended the process each time: when that is mended, \
                      redrive it by its number";
/// Of a reason to discard; it becomes a header.
const REASON_CHARS_MAX: usize = 500;

/// For how long one request works on the letters that it names.
#[derive(Clone, Copy, Debug)]
pub struct Times {
    /// No further letter is begun after this; the first one always is, so that who asks again gets on.
    pub letters: Duration,
    /// The longest that applying one letter's event may take.
    pub letter: Duration,
}

/// The operations on a service's dead letters.
#[derive(Debug)]
pub struct DeadLetters<H> {
    redrive: Arc<Redrive<H>>,
    to_json: ToJson,
    letters_time: Duration,
}

impl<H: Handler> DeadLetters<H> {
    /// Those of the consumer with `config`, whose events `handler` applies to the database of `pool`.
    pub fn new(
        client: async_nats::Client,
        applied: (Pool, H),
        config: &consumer::Config,
        to_json: ToJson,
    ) -> Self {
        Self::within(TIMES, client, applied, config, to_json)
    }

    /// The same, within `times`.
    pub fn within(
        times: Times,
        client: async_nats::Client,
        (pool, handler): (Pool, H),
        config: &consumer::Config,
        to_json: ToJson,
    ) -> Self {
        let letters = Letters::new(client, &config.durable);
        // The consumer may be given longer than a request has.
        let attempt_max = config.attempt_max().min(times.letter);
        Self {
            redrive: Arc::new(Redrive::new(letters, pool, handler, attempt_max)),
            to_json,
            letters_time: times.letters,
        }
    }

    async fn page(&self, page_size: i32, token: &str) -> Result<(Vec<Letter>, String), Status> {
        let size = page::size(page_size).map_err(|why| invalid::argument("page_size", why))?;
        let letters = self.redrive.letters();
        let durable = letters.durable().as_bytes();
        let after = page::after(LIST, durable, token);
        let after = after.map_err(|why| invalid::argument("page_token", why))?;
        let after = after.map_or(0, |last| u128::from_be_bytes(last) as u64);
        // One more than the page holds tells whether there is a next page.
        let mut found = letters.page(after, size + 1).await.map_err(unreachable)?;
        let is_last = found.len() <= size;
        found.truncate(size);
        let next = match found.last() {
            Some(last) if !is_last => self.token_after(last.sequence),
            _ => String::new(),
        };
        Ok((found, next))
    }

    fn token_after(&self, sequence: u64) -> String {
        let durable = self.redrive.letters().durable().as_bytes();
        page::token(LIST, durable, u128::from(sequence).to_be_bytes())
    }

    /// The letters to redrive; with `all`, a page of them, some to be passed over, and the token of the next.
    async fn asked(
        &self,
        asked: RedriveDeadLettersRequest,
    ) -> Result<(Vec<(u64, bool)>, String), Status> {
        if asked.all {
            if !asked.sequences.is_empty() {
                return Err(invalid::argument("sequences", "must be empty with `all`"));
            }
            let (letters, next) = self.page(asked.page_size, &asked.page_token).await?;
            let asked = letters.iter();
            let asked = asked.map(|letter| (letter.sequence, letter.ends_its_process()));
            return Ok((asked.collect(), next));
        }
        let named = checked(asked.sequences)?.into_iter();
        Ok((
            named.map(|sequence| (sequence, false)).collect(),
            String::new(),
        ))
    }
}

fn checked(sequences: Vec<u64>) -> Result<Vec<u64>, Status> {
    if (1..=SEQUENCES_MAX).contains(&sequences.len()) {
        return Ok(sequences);
    }
    let why = format!("must name 1 to {SEQUENCES_MAX} letters");
    Err(invalid::argument("sequences", why))
}

#[tonic::async_trait]
impl<H: Handler> DeadLetterService for DeadLetters<H> {
    async fn list_dead_letters(
        &self,
        request: Request<ListDeadLettersRequest>,
    ) -> Result<Response<ListDeadLettersResponse>, Status> {
        let asked = request.into_inner();
        let (letters, next_page_token) = self.page(asked.page_size, &asked.page_token).await?;
        Ok(Response::new(ListDeadLettersResponse {
            dead_letters: letters.into_iter().map(dead_letter).collect(),
            next_page_token,
        }))
    }

    async fn get_dead_letter(
        &self,
        request: Request<GetDeadLetterRequest>,
    ) -> Result<Response<GetDeadLetterResponse>, Status> {
        let sequence = request.into_inner().sequence;
        let letters = self.redrive.letters();
        let opened = letters.open(sequence).await.map_err(unreachable)?;
        let opened = opened.ok_or_else(|| {
            let durable = letters.durable();
            Status::not_found(format!("{durable} has no dead letter {sequence}"))
        })?;
        let payload = letters.payload(&opened).await.map_err(unreachable)?;
        let shown = payload.as_deref().map_or_else(
            || Err("its message is not in its stream any more".to_owned()),
            |payload| shown(self.to_json, &opened.letter.event_type, payload),
        );
        let payload = payload.filter(|payload| payload.len() <= SHOWN_BYTES_MAX);
        let (payload_json, payload_unreadable) = match shown {
            Ok(json) => (json, String::new()),
            Err(why) => (String::new(), why),
        };
        let headers = opened.headers.iter().flat_map(|(name, values)| {
            values.iter().map(|value| Header {
                name: name.to_string(),
                value: value.as_str().to_owned(),
            })
        });
        Ok(Response::new(GetDeadLetterResponse {
            headers: headers.collect(),
            dead_letter: Some(dead_letter(opened.letter)),
            payload_json,
            payload_unreadable,
            payload: payload.unwrap_or_default().into(),
        }))
    }

    async fn redrive_dead_letters(
        &self,
        request: Request<RedriveDeadLettersRequest>,
    ) -> Result<Response<RedriveDeadLettersResponse>, Status> {
        let asked = request.into_inner();
        let all = asked.all;
        let until = Instant::now() + self.letters_time;
        let (sequences, mut next_page_token) = self.asked(asked).await?;
        let (mut results, mut last) = (Vec::<RedriveResult>::new(), 0);
        for (sequence, passed_over) in sequences {
            if passed_over {
                let why = Some(DEADLY.to_owned());
                results.push(told(sequence, RedriveOutcome::Failed, why));
            } else if results.is_empty() || Instant::now() < until {
                let redrive = Arc::clone(&self.redrive);
                // Apart: a caller that goes away would leave a connection amid its statement.
                let outcome = tokio::spawn(async move { redrive.redrive(sequence).await });
                results.push(match outcome.await {
                    Ok(outcome) => result(sequence, outcome),
                    Err(panic) => told(sequence, RedriveOutcome::Failed, Some(panic.to_string())),
                });
            } else if all {
                next_page_token = self.token_after(last);
                break;
            } else {
                results.push(told(sequence, RedriveOutcome::NotTried, None));
            }
            last = sequence;
        }
        Ok(Response::new(RedriveDeadLettersResponse {
            results,
            next_page_token,
        }))
    }

    async fn discard_dead_letters(
        &self,
        request: Request<DiscardDeadLettersRequest>,
    ) -> Result<Response<DiscardDeadLettersResponse>, Status> {
        let asked = request.into_inner();
        let sequences = checked(asked.sequences)?;
        let reason = asked.reason.trim();
        if !(1..=REASON_CHARS_MAX).contains(&reason.chars().count()) {
            let why = format!("must be 1 to {REASON_CHARS_MAX} characters, not all blank");
            return Err(invalid::argument("reason", why));
        }
        // A person's line breaks become blanks; what else controls something is nobody's to read.
        let breaks = ['\n', '\r', '\t'];
        if reason.contains(|c: char| c.is_control() && !breaks.contains(&c)) {
            let why = "must not contain control characters but line breaks and tabs";
            return Err(invalid::argument("reason", why));
        }
        let until = Instant::now() + self.letters_time;
        let mut answer = DiscardDeadLettersResponse::default();
        for (nr, sequence) in sequences.into_iter().enumerate() {
            if nr > 0 && Instant::now() >= until {
                answer.not_tried.push(sequence);
                continue;
            }
            let discarded = self.redrive.letters().discard(sequence, reason).await;
            match discarded.map_err(unreachable)? {
                Some(_) => answer.discarded.push(sequence),
                None => answer.not_found.push(sequence),
            }
        }
        Ok(Response::new(answer))
    }
}

fn result(sequence: u64, outcome: Result<Outcome, Error>) -> RedriveResult {
    match outcome {
        Ok(Outcome::Applied(why)) => told(sequence, RedriveOutcome::Applied, why),
        Ok(Outcome::AlreadyApplied(why)) => told(sequence, RedriveOutcome::AlreadyApplied, why),
        Ok(Outcome::Failed(why)) => told(sequence, RedriveOutcome::Failed, Some(why)),
        Ok(Outcome::NotFound) => told(sequence, RedriveOutcome::NotFound, None),
        Err(error) => told(
            sequence,
            RedriveOutcome::Failed,
            Some(failure::chain(&error)),
        ),
    }
}

fn told(sequence: u64, outcome: RedriveOutcome, why: Option<String>) -> RedriveResult {
    RedriveResult {
        sequence,
        outcome: outcome.into(),
        why: why.unwrap_or_default(),
    }
}

fn unreachable(error: Error) -> Status {
    let why = failure::chain(&error);
    tracing::warn!(error = why, "the dead letters cannot be reached");
    Status::unavailable("the dead letters cannot be reached; try again")
}

/// The operations over gRPC.
pub fn grpc<H: Handler>(letters: &Arc<DeadLetters<H>>) -> DeadLetterServiceServer<DeadLetters<H>> {
    DeadLetterServiceServer::from_arc(Arc::clone(letters))
        .max_decoding_message_size(MESSAGE_SIZE_MAX)
        .max_encoding_message_size(MESSAGE_SIZE_MAX)
}

/// The same operations over NATS requests, as the service `name`, on the subjects `{group}.…`: each service has
/// them, so both names tell whose they are.
pub fn nats<H: Handler>(
    letters: &Arc<DeadLetters<H>>,
    (name, group): (&'static str, &'static str),
) -> rpc::Api {
    let [list, get, redrive, discard] = [(); 4].map(|()| Arc::clone(letters));
    rpc::Api::new(
        name,
        env!("CARGO_PKG_VERSION"),
        "Looks after the events that a consumer could not apply",
        (group, SERVICE_NAME),
    )
    .operation("ListDeadLetters", move |request| {
        let letters = Arc::clone(&list);
        async move { letters.list_dead_letters(request).await }
    })
    .operation("GetDeadLetter", move |request| {
        let letters = Arc::clone(&get);
        async move { letters.get_dead_letter(request).await }
    })
    .operation("RedriveDeadLetters", move |request| {
        let letters = Arc::clone(&redrive);
        async move { letters.redrive_dead_letters(request).await }
    })
    .operation("DiscardDeadLetters", move |request| {
        let letters = Arc::clone(&discard);
        async move { letters.discard_dead_letters(request).await }
    })
}
