use super::*;

const CUSTOMER: CustomerId = CustomerId([1; 16]);

fn currency(code: &str) -> Currency {
    Currency::new(code).unwrap()
}

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

#[test]
fn what_fits_exactly_is_reserved() {
    let mut books = books(100, 40);
    assert_eq!(books.decide(&ask(1, 60)), Decision::Reserve);
    assert_eq!(books.accounts[&CUSTOMER].reserved(), 100);
    assert_eq!(books.accounts[&CUSTOMER].available(), 0);
}

#[test]
fn one_unit_too_many_is_refused_and_takes_nothing() {
    let mut books = books(100, 40);
    assert_eq!(
        books.decide(&ask(1, 61)),
        Decision::Refuse(Refusal::CreditLimitExceeded { available: 60 })
    );
    assert_eq!(books.accounts[&CUSTOMER].reserved(), 40);
}

#[test]
fn each_ask_finds_what_the_one_before_it_left() {
    let mut books = books(100, 0);
    let decisions = [ask(1, 70), ask(2, 40), ask(3, 30), ask(4, 1)].map(|ask| books.decide(&ask));
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
        books.decide(&ask(1, i64::MAX)),
        Decision::Refuse(Refusal::CreditLimitExceeded { available: 1 })
    );
    assert_eq!(books.decide(&ask(2, 1)), Decision::Reserve);
    assert_eq!(books.accounts[&CUSTOMER].reserved(), i64::MAX);
}

#[test]
fn a_limit_of_zero_reserves_nothing() {
    assert_eq!(
        books(0, 0).decide(&ask(1, 1)),
        Decision::Refuse(Refusal::CreditLimitExceeded { available: 0 })
    );
}

#[test]
fn an_unknown_customer_is_told() {
    let mut books = Books::default();
    assert_eq!(
        books.decide(&ask(1, 1)),
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
            books.decide(&yen),
            Decision::Refuse(Refusal::CurrencyMismatch {
                customer_currency: currency("USD")
            })
        );
    }
    assert_eq!(books.accounts[&CUSTOMER].reserved(), 0);
}

#[test]
fn an_order_that_was_answered_is_not_answered_again() {
    for state in [
        ReservationState::Active,
        ReservationState::Refused,
        ReservationState::Released,
    ] {
        // With its customer known or not, able to pay or not, in the same currency or not.
        for mut books in [books(100, 0), books(0, 0), Books::default()] {
            books.reservations.insert(OrderId([1; 16]), state);
            let before = books.clone();
            assert_eq!(books.decide(&ask(1, 100)), Decision::Ignore(state));
            assert_eq!(books, before, "{state:?}");
        }
    }
}

#[test]
fn an_order_that_asks_twice_in_a_batch_is_answered_once() {
    let mut books = books(100, 0);
    assert_eq!(books.decide(&ask(1, 60)), Decision::Reserve);
    assert_eq!(
        books.decide(&ask(1, 60)),
        Decision::Ignore(ReservationState::Active)
    );
    assert_eq!(books.accounts[&CUSTOMER].reserved(), 60);

    assert!(matches!(books.decide(&ask(2, 60)), Decision::Refuse(_)));
    assert_eq!(
        books.decide(&ask(2, 60)),
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
