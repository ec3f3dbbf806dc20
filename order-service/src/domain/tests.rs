use std::time::UNIX_EPOCH;

use super::*;

const ANSWERS: [Answer; 4] = [
    Answer::CreditReserved,
    Answer::CreditLimitExceeded,
    Answer::CustomerNotFound,
    Answer::CurrencyMismatch,
];
const SETTLED: [State; 4] = [
    State::Approved,
    State::Cancelled(Reason::CreditLimitExceeded),
    State::Cancelled(Reason::UnknownCustomer),
    State::Cancelled(Reason::CurrencyMismatch),
];

const REASONS: [Reason; 5] = [
    Reason::CreditLimitExceeded,
    Reason::UnknownCustomer,
    Reason::CurrencyMismatch,
    Reason::ByCustomer,
    Reason::TimedOut,
];

fn usd(minor_units: i64) -> Result<Total, NonPositiveTotal> {
    Total::new(minor_units, Currency::new("USD").unwrap())
}

fn order() -> Order {
    Order::place(
        OrderId([1; 16]),
        CustomerId([2; 16]),
        usd(100).unwrap(),
        at(1_000),
        Duration::from_secs(60),
    )
}

fn at(seconds: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(seconds)
}

#[test]
fn each_answer_settles_a_pending_order_in_its_own_way() {
    let outcomes = ANSWERS.map(|answer| {
        let mut order = order();
        order.apply(Input::Answer(answer), at(1_001));
        order.state
    });
    assert_eq!(outcomes, SETTLED);
}

#[test]
fn every_pair_of_state_and_input_is_decided() {
    let inputs: Vec<Input> = ANSWERS
        .map(Input::Answer)
        .into_iter()
        .chain([Input::Cancel, Input::TimeOut])
        .collect();
    let decisions =
        |state| -> Vec<Decision> { inputs.iter().map(|input| react(state, *input)).collect() };
    use super::Decision::{Approve, Cancel, Ignore};
    assert_eq!(
        decisions(State::Pending),
        [
            Approve,
            Cancel(Reason::CreditLimitExceeded),
            Cancel(Reason::UnknownCustomer),
            Cancel(Reason::CurrencyMismatch),
            Cancel(Reason::ByCustomer),
            Cancel(Reason::TimedOut),
        ]
    );
    let cancel = Cancel(Reason::ByCustomer);
    assert_eq!(
        decisions(State::Approved),
        [Ignore, Ignore, Ignore, Ignore, cancel, Ignore]
    );
    for reason in REASONS {
        assert_eq!(decisions(State::Cancelled(reason)), [Ignore; 6]);
    }
}

#[test]
fn what_is_ignored_leaves_the_order_as_it_is() {
    for state in REASONS.map(State::Cancelled) {
        for input in [
            Input::Answer(Answer::CreditReserved),
            Input::Cancel,
            Input::TimeOut,
        ] {
            let before = Order { state, ..order() };
            let mut after = before;
            assert_eq!(after.apply(input, at(2_000)), Decision::Ignore);
            assert_eq!(after, before, "{state:?} {input:?}");
        }
    }
}

#[test]
fn an_order_times_out_at_its_deadline_and_not_before() {
    assert_eq!(order().deadline, at(1_060));
    let mut order = order();
    assert_eq!(order.apply(Input::TimeOut, at(1_059)), Decision::Ignore);
    assert_eq!(order.state, State::Pending);
    let timed_out = Decision::Cancel(Reason::TimedOut);
    assert_eq!(order.apply(Input::TimeOut, at(1_060)), timed_out);
    assert_eq!(order.state, State::Cancelled(Reason::TimedOut));
}

#[test]
fn update_time_moves_with_the_state_and_never_back() {
    let mut later = order();
    later.apply(Input::Answer(Answer::CreditReserved), at(1_001));
    assert_eq!(later.update_time, at(1_001));
    later.apply(Input::Cancel, at(1_002));
    assert_eq!(later.update_time, at(1_002));

    let mut clock_stepped_back = order();
    clock_stepped_back.apply(Input::Cancel, UNIX_EPOCH);
    assert_eq!(clock_stepped_back.update_time, order().create_time);
}

#[test]
fn a_total_is_more_than_zero() {
    assert_eq!(usd(1).unwrap().minor_units(), 1);
    assert_eq!(usd(i64::MAX).unwrap().minor_units(), i64::MAX);
    for minor_units in [0, -1, i64::MIN] {
        assert_eq!(usd(minor_units), Err(NonPositiveTotal), "{minor_units}");
    }
}

#[test]
fn a_currency_is_three_upper_case_letters() {
    assert_eq!(Currency::new("JPY").unwrap().code(), "JPY");
    for code in ["", "US", "USDX", "usd", "U5D", "€", "U\u{00c4}", " USD"] {
        assert_eq!(Currency::new(code), Err(MalformedCurrency), "{code:?}");
    }
}
