use std::cell::RefCell;

use clap::{Args as _, Command, FromArgMatches as _};
use futures_util::future::ready;

use super::*;

/// What a command that changes something ends with after these tries.
async fn after(tries: Vec<Missed>) -> Failure {
    let operation = Operation::change("orders.v1.CreateOrder", Uuid::nil());
    let (failure, left) = tried(operation, tries).await;
    assert_eq!(left, 0, "all of them are made");
    failure
}

/// What an operation ends with, and how many of these tries it has not made.
async fn tried(operation: Operation, tries: Vec<Missed>) -> (Failure, usize) {
    let settings = Connection::augment_args(Command::new("shop")).get_matches_from(["shop"]);
    let settings = Connection::from_arg_matches(&settings).unwrap();
    let services = Services::reach(&settings, Via::Grpc).await.unwrap();
    let tries = RefCell::new(tries.into_iter());
    let next = |_| ready(Err::<(), _>(tries.borrow_mut().next().unwrap()));
    let failure = services.until_answered(operation, next).await.unwrap_err();
    (failure, tries.into_inner().len())
}

fn lost() -> Missed {
    let why = "cut".to_owned();
    Missed::Unanswered { why, heard: true }
}

fn refused(code: Code) -> Missed {
    let message = "no".to_owned();
    Missed::Refused { code, message }
}

#[tokio::test]
async fn a_refusal_of_what_is_asked_says_that_no_try_took_effect() {
    for code in [
        Code::InvalidArgument,
        Code::NotFound,
        Code::AlreadyExists,
        Code::FailedPrecondition,
    ] {
        let failure = after(vec![lost(), refused(code)]).await;
        assert!(matches!(failure, Failure::Refused { .. }), "{failure}");
    }
}

#[tokio::test]
async fn a_refusal_for_another_reason_leaves_it_open_what_an_earlier_try_did() {
    for code in [
        Code::Internal,
        Code::Unknown,
        Code::Cancelled,
        Code::Unimplemented,
    ] {
        let failure = after(vec![lost(), refused(code)]).await;
        let told = failure.to_string();
        assert!(told.contains(chassis::code::name(code)), "{told}");
        assert!(
            told.contains(&format!("--request-id {}", Uuid::nil())),
            "{told}"
        );

        let failure = after(vec![refused(code)]).await;
        assert!(matches!(failure, Failure::Refused { .. }), "{failure}");
    }
}

#[tokio::test]
async fn what_has_no_room_is_tried_again_and_leaves_no_doubt() {
    let full = || refused(Code::ResourceExhausted);
    let create = || Operation::change("orders.v1.CreateOrder", Uuid::nil());
    let (failure, left) = tried(create(), vec![full(), full(), refused(Code::NotFound)]).await;
    assert!(
        matches!(
            failure,
            Failure::Refused {
                code: Code::NotFound,
                ..
            }
        ),
        "{failure}"
    );
    assert_eq!(left, 0);
    // Nothing was done by those tries, but by one without an answer it may have been.
    let (failure, _) = tried(create(), vec![full(), refused(Code::Internal)]).await;
    assert!(matches!(failure, Failure::Refused { .. }), "{failure}");
    let (failure, _) = tried(create(), vec![lost(), full(), refused(Code::Internal)]).await;
    assert!(
        matches!(failure, Failure::UnknownOutcome { .. }),
        "{failure}"
    );
    // An answer that is too large stays so.
    let list = Operation::read("orders.v1.ListOrders");
    let (failure, left) = tried(list, vec![full(), full()]).await;
    assert!(matches!(failure, Failure::Refused { .. }), "{failure}");
    assert_eq!(left, 1);
}

#[tokio::test]
async fn an_answer_that_cannot_be_read_leaves_it_open_what_was_done() {
    let cause = anyhow::anyhow!("wrong wire type").context("not protobuf");
    let told = after(vec![Missed::Unreadable(cause)]).await.to_string();
    assert!(told.starts_with("not protobuf: wrong wire type"), "{told}");
    assert!(told.contains("--request-id"), "{told}");
}

#[tokio::test]
async fn what_may_end_who_hears_it_is_heard_once() {
    let tries = || vec![refused(Code::Unavailable), lost(), refused(Code::NotFound)];
    let redrive = Operation::read("dead_letters.v1.order-service.RedriveDeadLetters");
    let (failure, left) = tried(redrive, tries()).await;
    assert!(matches!(failure, Failure::Refused { .. }) && left == 0);
    let (failure, left) = tried(redrive.heard_once(), tries()).await;
    assert!(matches!(failure, Failure::Unanswered(_)), "{failure}");
    assert_eq!(left, 1, "it was heard twice");
}
