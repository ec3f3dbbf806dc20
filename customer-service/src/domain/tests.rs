use std::collections::BTreeMap;

use super::*;

const CUSTOMER: CustomerId = CustomerId([1; 16]);

fn currency(code: &str) -> Currency {
    Currency::new(code).unwrap()
}

const STATES: [ReservationState; 3] = [
    ReservationState::Active,
    ReservationState::Refused,
    ReservationState::Released,
];

fn ask(order: u8, minor_units: i64) -> Ask {
    Ask {
        order_id: OrderId([order; 16]),
        customer_id: CUSTOMER,
        amount: Amount::new(minor_units, currency("USD")).unwrap(),
    }
}

/// Books with one customer, who has a limit and of it taken so much.
fn books(limit: i64, reserved: i64) -> Books {
    let limit = CreditLimit::new(limit, currency("USD")).unwrap();
    let account = Account::reopen(limit, reserved).unwrap();
    Books {
        accounts: BTreeMap::from([(CUSTOMER, account)]),
        reservations: BTreeMap::new(),
    }
}

fn created(order: u8, minor_units: i64) -> Event {
    Event::OrderCreated(ask(order, minor_units))
}

fn cancelled(order: u8, minor_units: i64) -> Event {
    Event::OrderCancelled(ask(order, minor_units))
}

fn decide(books: &mut Books, event: Event) -> Decision {
    books.decide(&event).unwrap()
}

fn state(books: &Books, order: u8) -> ReservationState {
    books.reservations[&OrderId([order; 16])].state
}

#[test]
fn what_fits_exactly_is_reserved() {
    let mut books = books(100, 40);
    assert_eq!(decide(&mut books, created(1, 60)), Decision::Reserve);
    assert_eq!(books.accounts[&CUSTOMER].reserved(), 100);
    assert_eq!(books.accounts[&CUSTOMER].available(), 0);
}

#[test]
fn one_unit_too_many_is_refused_and_takes_nothing() {
    let mut books = books(100, 40);
    assert_eq!(
        decide(&mut books, created(1, 61)),
        Decision::Refuse(Refusal::CreditLimitExceeded { available: 60 })
    );
    assert_eq!(books.accounts[&CUSTOMER].reserved(), 40);
}

#[test]
fn each_ask_finds_what_the_one_before_it_left() {
    let mut books = books(100, 0);
    let decisions = [(1, 70), (2, 40), (3, 30), (4, 1)]
        .map(|(order, amount)| decide(&mut books, created(order, amount)));
    let exceeded = |available| Decision::Refuse(Refusal::CreditLimitExceeded { available });
    assert_eq!(
        decisions,
        [
            Decision::Reserve,
            exceeded(30),
            Decision::Reserve,
            exceeded(0)
        ]
    );
}

#[test]
fn the_largest_amounts_do_not_overflow() {
    let mut books = books(i64::MAX, i64::MAX - 1);
    assert_eq!(
        decide(&mut books, created(1, i64::MAX)),
        Decision::Refuse(Refusal::CreditLimitExceeded { available: 1 })
    );
    assert_eq!(decide(&mut books, created(2, 1)), Decision::Reserve);
    assert_eq!(books.accounts[&CUSTOMER].reserved(), i64::MAX);
}

#[test]
fn a_limit_of_zero_reserves_nothing() {
    assert_eq!(
        decide(&mut books(0, 0), created(1, 1)),
        Decision::Refuse(Refusal::CreditLimitExceeded { available: 0 })
    );
}

#[test]
fn an_unknown_customer_is_told() {
    let mut books = Books::default();
    assert_eq!(
        decide(&mut books, created(1, 1)),
        Decision::Refuse(Refusal::CustomerNotFound)
    );
}

#[test]
fn another_currency_is_refused_before_the_amount_is_looked_at() {
    let mut books = books(100, 0);
    for minor_units in [1, i64::MAX] {
        let yen = Ask {
            amount: Amount::new(minor_units, currency("JPY")).unwrap(),
            ..ask(minor_units as u8, 1)
        };
        assert_eq!(
            decide(&mut books, Event::OrderCreated(yen)),
            Decision::Refuse(Refusal::CurrencyMismatch {
                customer_currency: currency("USD")
            })
        );
    }
    assert_eq!(books.accounts[&CUSTOMER].reserved(), 0);
}

#[test]
fn every_pair_of_state_and_event_is_decided() {
    let steps = |event: Event| {
        let states = [None].into_iter().chain(STATES.map(Some));
        states.map(|state| react(state, &event)).collect::<Vec<_>>()
    };
    let [active, refused, released] = STATES.map(Step::Ignore);
    assert_eq!(
        steps(created(1, 1)),
        [Step::Answer, active, refused, released]
    );
    assert_eq!(
        steps(cancelled(1, 1)),
        [Step::Bar, Step::Release, refused, released]
    );
}

#[test]
fn what_is_ignored_leaves_the_books_as_they_are() {
    let reservation = |state| Reservation {
        customer_id: CUSTOMER,
        amount: ask(1, 100).amount,
        state,
    };
    for state in STATES {
        for event in [created(1, 100), cancelled(1, 100)] {
            if react(Some(state), &event) == Step::Release {
                continue;
            }
            // With its customer known or not, able to pay or not, in the same currency or not.
            for mut books in [books(100, 0), books(0, 0), Books::default()] {
                let entered = reservation(state);
                books.reservations.insert(OrderId([1; 16]), entered);
                let before = books.clone();
                assert_eq!(decide(&mut books, event), Decision::Ignore(state));
                assert_eq!(books, before, "{state:?}");
            }
        }
    }
}

#[test]
fn a_cancelled_order_gives_back_what_it_reserved_once() {
    let mut books = books(100, 30);
    decide(&mut books, created(1, 60));
    // What the event says of the amount does not count: what was reserved does.
    let released = Decision::Release(ask(1, 60).amount);
    assert_eq!(decide(&mut books, cancelled(1, 70)), released);
    assert_eq!(books.accounts[&CUSTOMER].reserved(), 30);
    assert_eq!(state(&books, 1), ReservationState::Released);

    let again = Decision::Ignore(ReservationState::Released);
    assert_eq!(decide(&mut books, cancelled(1, 60)), again);
    assert_eq!(decide(&mut books, created(1, 60)), again);
    assert_eq!(books.accounts[&CUSTOMER].reserved(), 30);
    // The next order can have it.
    assert_eq!(decide(&mut books, created(2, 70)), Decision::Reserve);
}

#[test]
fn a_cancel_that_comes_first_bars_the_order() {
    for mut books in [books(100, 0), Books::default()] {
        let accounts = books.accounts.clone();
        assert_eq!(decide(&mut books, cancelled(1, 60)), Decision::Bar);
        assert_eq!(
            decide(&mut books, created(1, 60)),
            Decision::Ignore(ReservationState::Released)
        );
        assert_eq!(state(&books, 1), ReservationState::Released);
        assert_eq!(books.accounts, accounts);
    }
}

#[test]
fn a_cancel_that_contradicts_the_reservation_releases_nothing() {
    let mut books = books(100, 0);
    decide(&mut books, created(1, 60));
    let before = books.clone();
    let other = Event::OrderCancelled(Ask {
        customer_id: CustomerId([2; 16]),
        ..ask(1, 60)
    });
    assert_eq!(books.decide(&other), Err(Contradiction::OtherCustomer));
    assert_eq!(books, before);

    let limit = CreditLimit::new(100, currency("USD")).unwrap();
    let less = Account::reopen(limit, 59).unwrap();
    books.accounts.insert(CUSTOMER, less);
    let before = books.clone();
    let unaccounted = books.decide(&cancelled(1, 60));
    assert_eq!(unaccounted, Err(Contradiction::NotReserved));
    assert_eq!(books, before);
}

#[test]
fn a_limit_falls_to_what_is_reserved_and_no_further() {
    let limit = |minor_units, code| CreditLimit::new(minor_units, currency(code)).unwrap();
    let mut account = Account::reopen(limit(100, "USD"), 40).unwrap();
    let from = |previous| Ok(LimitChange::From(limit(previous, "USD")));
    assert_eq!(account.set_limit(limit(40, "USD")), from(100));
    assert_eq!(account.available(), 0);
    assert_eq!(
        account.set_limit(limit(39, "USD")),
        Err(LimitRefusal::BelowReserved {
            reserved: 40,
            short_by: 1
        })
    );
    assert_eq!(
        account.set_limit(limit(500, "EUR")),
        Err(LimitRefusal::OtherCurrency {
            account: currency("USD")
        })
    );
    assert_eq!(account.limit(), limit(40, "USD"));
    assert_eq!(account.set_limit(limit(i64::MAX, "USD")), from(40));
    assert_eq!(
        account.set_limit(limit(i64::MAX, "USD")),
        Ok(LimitChange::None)
    );
    assert_eq!(account.reserved(), 40);
}

#[test]
fn an_order_that_asks_twice_in_a_batch_is_answered_once() {
    let mut books = books(100, 0);
    assert_eq!(decide(&mut books, created(1, 60)), Decision::Reserve);
    assert_eq!(
        decide(&mut books, created(1, 60)),
        Decision::Ignore(ReservationState::Active)
    );
    assert_eq!(books.accounts[&CUSTOMER].reserved(), 60);

    assert!(matches!(
        decide(&mut books, created(2, 60)),
        Decision::Refuse(_)
    ));
    assert_eq!(
        decide(&mut books, created(2, 60)),
        Decision::Ignore(ReservationState::Refused)
    );
}

#[test]
fn an_account_that_cannot_be_is_not_opened() {
    let limit = CreditLimit::new(100, currency("USD")).unwrap();
    for reserved in [-1, 101, i64::MIN, i64::MAX] {
        assert!(Account::reopen(limit, reserved).is_err(), "{reserved}");
    }
}

#[test]
fn limits_and_amounts_have_their_bounds() {
    assert!(CreditLimit::new(0, currency("USD")).is_ok());
    assert_eq!(CreditLimit::new(-1, currency("USD")), Err(NegativeLimit));
    assert!(Amount::new(1, currency("USD")).is_ok());
    assert_eq!(Amount::new(0, currency("USD")), Err(NonPositiveAmount));
    assert_eq!(
        Amount::new(i64::MIN, currency("USD")),
        Err(NonPositiveAmount)
    );
}

#[test]
fn a_currency_is_three_upper_case_letters() {
    assert_eq!(currency("JPY").code(), "JPY");
    for code in ["", "US", "USDX", "usd", "U5D", "€", " USD"] {
        assert_eq!(Currency::new(code), Err(MalformedCurrency), "{code:?}");
    }
}

#[test]
fn a_name_has_1_to_200_characters_that_show() {
    for name in ["A", "O'Brien; DROP TABLE", "李", &"é".repeat(200)] {
        assert_eq!(Name::new(name.to_owned()).unwrap().as_str(), name);
    }
    let refused = |name: &str| Name::new(name.to_owned()).unwrap_err();
    assert_eq!(refused(""), InvalidName::Blank);
    assert_eq!(refused(" \u{3000} "), InvalidName::Blank);
    assert_eq!(refused(&"é".repeat(201)), InvalidName::TooLong);
    for name in ["a\0b", "a\nb", "a\u{7f}", "\u{85}a"] {
        assert_eq!(refused(name), InvalidName::ControlCharacter, "{name:?}");
    }
}

#[test]
fn a_name_does_not_deceive() {
    let refused = |name: &str| Name::new(name.to_owned()).unwrap_err();
    for c in [
        '\u{200b}', '\u{2028}', '\u{2029}', '\u{202e}', '\u{2066}', '\u{feff}',
    ] {
        let name = format!("Ada{c}");
        assert_eq!(refused(&name), InvalidName::DeceptiveCharacter, "{c:?}");
    }
    for name in ["\u{200d}", " \u{ad}\u{3164}"] {
        assert_eq!(refused(name), InvalidName::Blank, "{name:?}");
    }
    // Persian is spelt with a non-joiner, a family of emoji with joiners.
    for name in ["می\u{200c}خواهم", "👩\u{200d}👧"] {
        assert_eq!(Name::new(name.to_owned()).unwrap().as_str(), name);
    }
}
