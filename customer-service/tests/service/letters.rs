//! Dead letters of this service: shown decoded, applied once more, discarded; over gRPC and NATS alike.

use std::sync::Arc;
use std::time::Duration;

use async_nats::jetstream::{self, stream};
use async_nats::{Client, HeaderMap};
use customer_service::reactions::Reactions;
use customer_service::{api, wire};
use dead_letters::{DeadLetters, Times};
use deadpool_postgres::Pool;
use harness::{Nats, eventually};
use mailbox::consumer::Config;
use mailbox::dead_letter::{DURABLE, ORIGIN_SEQUENCE, ORIGIN_STREAM, REASON, STREAM};
use prost::{Message as _, Name as _};
use proto::dead_letters::v1::dead_letter_service_server::DeadLetterService as _;
use proto::dead_letters::v1::{
    DiscardDeadLettersRequest, DiscardDeadLettersResponse, GetDeadLetterRequest,
    GetDeadLetterResponse, ListDeadLettersRequest, RedriveDeadLettersRequest,
    RedriveDeadLettersResponse, RedriveOutcome, RedriveResult,
};
use proto::orders::v1::OrderCreated;
use tokio_util::sync::CancellationToken;
use tonic::{Code, Request, Status};
use uuid::Uuid;

use crate::reactions::usd;
use crate::support::{customer, database, reserved};

struct Desk {
    _nats: Nats,
    client: Client,
    letters: Arc<DeadLetters<Reactions>>,
}

const TIMES: Times = Times {
    letters: Duration::from_secs(30),
    letter: Duration::from_secs(30),
};

impl Desk {
    async fn new(pool: &Pool) -> Self {
        Self::within(TIMES, pool).await
    }

    async fn within(times: Times, pool: &Pool) -> Self {
        let nats = Nats::start().await.unwrap();
        let client = nats.client().await.unwrap();
        let config = stream::Config {
            name: STREAM.to_owned(),
            subjects: vec!["dead.>".to_owned()],
            ..stream::Config::default()
        };
        let jetstream = jetstream::new(client.clone());
        jetstream.create_stream(config).await.unwrap();
        let mut config = Config::new("ORDERS", "customer-service", ["events.orders.>"]);
        config.ack_wait = Duration::from_secs(3_600);
        let applied = (pool.clone(), Reactions);
        let letters = DeadLetters::within(times, client.clone(), applied, &config, wire::json);
        let letters = Arc::new(letters);
        Self {
            _nats: nats,
            client,
            letters,
        }
    }

    /// A letter as the consumer `durable` writes it.
    async fn letter(&self, durable: &str, event: &OrderCreated) -> u64 {
        let mut headers = HeaderMap::new();
        headers.insert(DURABLE, durable);
        headers.insert(REASON, "a reason");
        headers.insert(ORIGIN_STREAM, "ORDERS");
        headers.insert(ORIGIN_SEQUENCE, "7");
        headers.insert("Original-Nats-Msg-Id", Uuid::now_v7().to_string());
        headers.insert("Original-Event-Type", OrderCreated::full_name());
        let (subject, payload) = (format!("dead.{durable}"), event.encode_to_vec().into());
        let jetstream = jetstream::new(self.client.clone());
        let sent = jetstream
            .publish_with_headers(subject, headers, payload)
            .await;
        sent.unwrap().await.unwrap().sequence
    }

    /// The sequences of a page, and the next one's token.
    async fn list(&self, page_size: i32, token: &str) -> (Vec<u64>, String) {
        let request = ListDeadLettersRequest {
            page_size,
            page_token: token.to_owned(),
        };
        let page = self.letters.list_dead_letters(Request::new(request)).await;
        let page = page.unwrap().into_inner();
        let sequences = page.dead_letters.iter().map(|letter| letter.sequence);
        (sequences.collect(), page.next_page_token)
    }

    async fn get(&self, sequence: u64) -> Result<GetDeadLetterResponse, Status> {
        let request = Request::new(GetDeadLetterRequest { sequence });
        let found = self.letters.get_dead_letter(request).await;
        found.map(tonic::Response::into_inner)
    }

    async fn redrive(&self, request: RedriveDeadLettersRequest) -> Vec<RedriveResult> {
        self.redrive_page(request).await.unwrap().results
    }

    async fn redrive_page(
        &self,
        request: RedriveDeadLettersRequest,
    ) -> Result<RedriveDeadLettersResponse, Status> {
        let done = self.letters.redrive_dead_letters(Request::new(request));
        done.await.map(tonic::Response::into_inner)
    }

    async fn discard(
        &self,
        sequences: &[u64],
        reason: &str,
    ) -> Result<DiscardDeadLettersResponse, Status> {
        let request = DiscardDeadLettersRequest {
            sequences: sequences.to_vec(),
            reason: reason.to_owned(),
        };
        let done = self
            .letters
            .discard_dead_letters(Request::new(request))
            .await;
        done.map(tonic::Response::into_inner)
    }
}

fn outcomes(results: &[RedriveResult]) -> Vec<(u64, RedriveOutcome)> {
    let outcome = |result: &RedriveResult| (result.sequence, result.outcome());
    results.iter().map(outcome).collect()
}

#[tokio::test]
async fn letters_are_redriven_by_this_service_and_those_that_fail_stay() {
    let pool = database().await;
    let id = customer(&pool, 100).await.customer_id;
    let desk = Desk::new(&pool).await;
    let good = desk.letter("customer-service", &usd(&id, 30)).await;
    let bad = desk.letter("customer-service", &usd(&id, 0)).await;
    let foreign = desk.letter("order-service", &usd(&id, 1)).await;

    let (page, token) = desk.list(1, "").await;
    assert_eq!(page, [good]);
    assert_eq!(desk.list(1, &token).await, (vec![bad], String::new()));

    let all = RedriveDeadLettersRequest {
        all: true,
        ..RedriveDeadLettersRequest::default()
    };
    let results = desk.redrive(all).await;
    let expected = [
        (good, RedriveOutcome::Applied),
        (bad, RedriveOutcome::Failed),
    ];
    assert_eq!(outcomes(&results), expected);
    assert!(
        results[1].why.contains("total.minor_units"),
        "{}",
        results[1].why
    );
    let client = pool.get().await.unwrap();
    assert_eq!(reserved(&client, &id).await, 30);
    assert_eq!(desk.list(0, "").await.0, [bad]);

    let named = RedriveDeadLettersRequest {
        sequences: vec![good, foreign, 0],
        ..RedriveDeadLettersRequest::default()
    };
    let gone = [good, foreign, 0].map(|letter| (letter, RedriveOutcome::NotFound));
    assert_eq!(outcomes(&desk.redrive(named).await), gone);
    assert_eq!(reserved(&client, &id).await, 30);
}

/// Nothing is left of the time when a request's first letter is done.
const NO_TIME: Times = Times {
    letters: Duration::ZERO,
    ..TIMES
};

#[tokio::test]
async fn all_letters_are_redriven_however_few_are_reached_in_time() {
    let pool = database().await;
    let id = customer(&pool, 100).await.customer_id;
    let desk = Desk::within(NO_TIME, &pool).await;
    let mut letters = Vec::new();
    for total in [0, 1, 2, 0, 3] {
        letters.push(desk.letter("customer-service", &usd(&id, total)).await);
    }
    let (mut tried, mut page_token) = (Vec::new(), String::new());
    for _ in &letters {
        let request = RedriveDeadLettersRequest {
            all: true,
            page_size: 2,
            page_token,
            ..RedriveDeadLettersRequest::default()
        };
        let page = desk.redrive_page(request).await.unwrap();
        tried.extend(outcomes(&page.results));
        page_token = page.next_page_token;
    }
    use RedriveOutcome::{Applied, Failed};
    let expected = [Failed, Applied, Applied, Failed, Applied];
    let expected: Vec<_> = letters.iter().copied().zip(expected).collect();
    assert_eq!(tried, expected, "each once, and in order");
    assert_eq!(page_token, "");
}

#[tokio::test]
async fn named_letters_that_are_not_reached_in_time_are_told() {
    let pool = database().await;
    let id = customer(&pool, 100).await.customer_id;
    let desk = Desk::within(NO_TIME, &pool).await;
    let mut letters = Vec::new();
    for total in [1, 2, 3] {
        letters.push(desk.letter("customer-service", &usd(&id, total)).await);
    }
    let named = |sequences: &[u64]| RedriveDeadLettersRequest {
        sequences: sequences.to_vec(),
        ..RedriveDeadLettersRequest::default()
    };
    use RedriveOutcome::{Applied, NotTried};
    let results = desk.redrive(named(&letters)).await;
    let expected = [Applied, NotTried, NotTried];
    let expected: Vec<_> = letters.iter().copied().zip(expected).collect();
    assert_eq!(outcomes(&results), expected);
    assert_eq!(desk.list(0, "").await.0, letters[1..]);
    let done = desk.discard(&letters[1..], "a test").await.unwrap();
    assert_eq!(
        (done.discarded, done.not_tried),
        (vec![letters[1]], vec![letters[2]])
    );
    assert_eq!(desk.list(0, "").await.0, letters[2..]);

    let too_many: Vec<u64> = (1..=1_001).collect();
    let refused = desk.redrive_page(named(&too_many)).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument, "{refused}");
    let refused = desk.discard(&too_many, "a test").await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument, "{refused}");
    let refused = desk.redrive_page(named(&[])).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument, "{refused}");
    assert_eq!(desk.redrive(named(&too_many[..1_000])).await.len(), 1_000);
}

#[tokio::test]
async fn a_letter_takes_no_longer_than_its_request_can_wait() {
    let pool = database().await;
    let id = customer(&pool, 100).await.customer_id;
    let times = Times {
        letter: Duration::from_millis(300),
        ..TIMES
    };
    let desk = Desk::within(times, &pool).await;
    let letter = desk.letter("customer-service", &usd(&id, 1)).await;
    let beside = pool.get().await.unwrap();
    beside
        .batch_execute("BEGIN; SELECT FROM customers FOR UPDATE")
        .await
        .unwrap();
    let named = RedriveDeadLettersRequest {
        sequences: vec![letter],
        ..RedriveDeadLettersRequest::default()
    };
    // The consumer itself would be given 900 s.
    let results = tokio::time::timeout(Duration::from_secs(60), desk.redrive(named));
    let results = results.await.unwrap();
    assert_eq!(outcomes(&results), [(letter, RedriveOutcome::Failed)]);
    beside.batch_execute("COMMIT").await.unwrap();
    assert_eq!(desk.list(0, "").await.0, [letter]);
}

#[tokio::test]
async fn a_letter_is_shown_with_its_event_decoded() {
    let pool = database().await;
    let desk = Desk::new(&pool).await;
    let event = usd(&Uuid::now_v7().to_string(), 0);
    let letter = desk.letter("customer-service", &event).await;
    let shown = desk.get(letter).await.unwrap();
    let json: serde_json::Value = serde_json::from_str(&shown.payload_json).unwrap();
    assert_eq!(json["orderId"], event.order_id);
    assert_eq!(json["total"]["currency"], "USD");
    assert_eq!(shown.payload, event.encode_to_vec());
    assert_eq!(shown.payload_unreadable, "");
    let known = shown.dead_letter.unwrap();
    assert_eq!((known.sequence, known.origin_sequence), (letter, 7));
    assert_eq!(known.reason, "a reason");
    assert!(
        shown
            .headers
            .iter()
            .any(|header| header.name == "Nats-Msg-Id")
    );
    let nobody = desk.get(letter + 1).await.unwrap_err();
    assert_eq!(nobody.code(), Code::NotFound);
}

#[tokio::test]
async fn a_discard_needs_a_reason_and_takes_only_our_own() {
    let pool = database().await;
    let desk = Desk::new(&pool).await;
    let event = usd(&Uuid::now_v7().to_string(), 1);
    let ours = desk.letter("customer-service", &event).await;
    let foreign = desk.letter("order-service", &event).await;
    let refused = desk.discard(&[ours], " ").await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    assert_eq!(desk.list(0, "").await.0, [ours]);
    let done = desk.discard(&[ours, foreign], "a test").await.unwrap();
    assert_eq!(
        (done.discarded, done.not_found),
        (vec![ours], vec![foreign])
    );
    assert!(desk.list(0, "").await.0.is_empty());
}

#[tokio::test]
async fn nats_requests_about_letters_name_the_service() {
    let pool = database().await;
    let desk = Desk::new(&pool).await;
    let event = usd(&Uuid::now_v7().to_string(), 1);
    let ours = desk.letter("customer-service", &event).await;
    let served = dead_letters::nats(&desk.letters, api::DEAD_LETTERS).serve(
        desk.client.clone(),
        chassis::auth::Guard::off(proto::ACCESS),
        CancellationToken::new(),
    );
    tokio::spawn(served);
    let mut headers = HeaderMap::new();
    headers.insert("Content-Type", "application/json");
    let answer = eventually("an answer", Duration::from_secs(10), async || {
        let subject = "dead_letters.v1.customer-service.ListDeadLetters";
        let asked = desk
            .client
            .request_with_headers(subject, headers.clone(), "{}".into());
        Ok(asked.await.ok())
    });
    let answer = answer.await.unwrap();
    let answer: serde_json::Value = serde_json::from_slice(&answer.payload).unwrap();
    assert_eq!(answer["deadLetters"][0]["sequence"], ours.to_string());
}
