use std::time::Duration;

use prost::{Message as _, Name as _};
use proto::orders::v1 as orders;

use super::*;
use crate::domain::Account;
use crate::domain::Event;

const ID: &str = "0192f8c1-6d3e-7a44-9a51-3c5b8e0d2f17";
const CUSTOMER_ID: &str = "0192f8c1-6d3e-7a44-9a51-3c5b8e0d2f18";

fn eur(minor_units: i64) -> Option<money::Money> {
    Some(money(minor_units, Currency::new("EUR").unwrap()))
}

fn create() -> customers::CreateCustomerRequest {
    customers::CreateCustomerRequest {
        request_id: String::new(),
        name: "Ada".to_owned(),
        credit_limit: eur(10_000),
    }
}

fn refused(change: impl FnOnce(&mut customers::CreateCustomerRequest)) -> Invalid {
    let mut request = create();
    change(&mut request);
    CreateCustomer::try_from(request).unwrap_err()
}

fn limit_of(request: &mut customers::CreateCustomerRequest) -> &mut money::Money {
    request.credit_limit.as_mut().unwrap()
}

fn created() -> orders::OrderCreated {
    orders::OrderCreated {
        order_id: ID.to_owned(),
        customer_id: CUSTOMER_ID.to_owned(),
        total: eur(1_999),
        create_time: None,
    }
}

#[test]
fn a_good_request_is_taken_as_it_is() {
    let taken = CreateCustomer::try_from(create()).unwrap();
    assert_eq!(taken.name.as_str(), "Ada");
    assert_eq!(taken.credit_limit.minor_units(), 10_000);
    assert_eq!(taken.credit_limit.currency().code(), "EUR");

    let mut poor = create();
    limit_of(&mut poor).minor_units = 0;
    assert!(CreateCustomer::try_from(poor).is_ok());
}

#[test]
fn a_name_is_checked() {
    assert_eq!(refused(|r| r.name.clear()), Why::Missing.at("name"));
    for (name, why) in [
        (" \t".to_owned(), InvalidName::ControlCharacter),
        ("   ".to_owned(), InvalidName::Blank),
        ("x".repeat(201), InvalidName::TooLong),
        ("x".repeat(1_000_000), InvalidName::TooLong),
        ("a\0".to_owned(), InvalidName::ControlCharacter),
    ] {
        assert_eq!(refused(|r| r.name = name), Why::Name(why).at("name"));
    }
}

#[test]
fn a_limit_is_there_and_not_negative() {
    assert_eq!(
        refused(|r| r.credit_limit = None),
        Why::Missing.at("credit_limit")
    );
    for minor_units in [-1, i64::MIN] {
        assert_eq!(
            refused(|r| limit_of(r).minor_units = minor_units),
            Why::Limit(NegativeLimit).at("credit_limit.minor_units"),
            "{minor_units}"
        );
    }
}

#[test]
fn a_currency_without_a_subunit_in_use_is_taken() {
    for code in ["JPY", "XOF", "KWD"] {
        let mut request = create();
        code.clone_into(&mut limit_of(&mut request).currency);
        assert!(CreateCustomer::try_from(request).is_ok(), "{code}");
    }
}

#[test]
fn a_currency_is_one_in_use_of_iso_4217() {
    assert_eq!(
        refused(|r| limit_of(r).currency.clear()),
        Why::Missing.at("credit_limit.currency")
    );
    for code in [
        "ABC", "usd", "US", "USDT", " USD", "$", "HRK", "ZWL", "XXX", "XTS", "XAU",
    ] {
        assert_eq!(
            refused(|r| code.clone_into(&mut limit_of(r).currency)),
            Why::UnknownCurrency.at("credit_limit.currency"),
            "{code}"
        );
    }
}

#[test]
fn a_new_limit_is_checked_as_the_first_one_was() {
    let set = |customer_id: &str, credit_limit| {
        SetCreditLimit::try_from(customers::SetCreditLimitRequest {
            request_id: String::new(),
            customer_id: customer_id.to_owned(),
            credit_limit,
        })
    };
    let taken = set(ID, eur(0)).unwrap();
    assert_eq!(Uuid::from(taken.customer_id).to_string(), ID);
    assert_eq!(taken.credit_limit.minor_units(), 0);
    // Withdrawn: no new customer can have it, one from before may.
    let kuna = money(5, Currency::new("HRK").unwrap());
    assert!(set(ID, Some(kuna)).is_ok());

    assert_eq!(set("", eur(0)), Err(Why::Missing.at("customer_id")));
    assert_eq!(set("1", eur(0)), Err(Why::NotUuid.at("customer_id")));
    assert_eq!(set(ID, None), Err(Why::Missing.at("credit_limit")));
    assert_eq!(
        set(ID, eur(-1)),
        Err(Why::Limit(NegativeLimit).at("credit_limit.minor_units"))
    );
    let unknown = money(5, Currency::new("ABC").unwrap());
    assert_eq!(
        set(ID, Some(unknown)),
        Err(Why::UnknownCurrency.at("credit_limit.currency"))
    );
}

#[test]
fn a_customer_id_is_a_hyphenated_uuid() {
    let get = |customer_id: &str| {
        GetCustomer::try_from(customers::GetCustomerRequest {
            customer_id: customer_id.to_owned(),
        })
    };
    let taken = get(&ID.to_uppercase()).unwrap();
    assert_eq!(Uuid::from(taken.customer_id).to_string(), ID);
    assert_eq!(get(""), Err(Why::Missing.at("customer_id")));
    for id in [
        "1",
        "0192f8c16d3e7a449a513c5b8e0d2f17",
        "0192f8c1-6d3e-7a44-9a51-3c5b8e0d2f1g",
        "'; DROP TABLE customers; --",
    ] {
        assert_eq!(get(id), Err(Why::NotUuid.at("customer_id")), "{id}");
    }
}

#[test]
fn a_list_is_checked_field_by_field() {
    let list = |page_size, page_token: &str| {
        ListCustomers::try_from(customers::ListCustomersRequest {
            page_size,
            page_token: page_token.to_owned(),
        })
    };
    let first = list(0, "").unwrap();
    assert_eq!((first.page_size, first.after), (100, None));
    assert_eq!(
        list(-1, ""),
        Err(Why::PageSize(page::NegativeSize).at("page_size"))
    );
    assert_eq!(
        list(1, "made up"),
        Err(Why::PageToken(page::BadToken).at("page_token"))
    );
    let last = CustomerId([7; 16]);
    assert_eq!(list(1, &first.token_after(last)).unwrap().after, Some(last));
}

#[test]
fn the_names_of_the_events_are_those_of_their_messages() {
    assert_eq!(
        EVENTS.map(str::to_owned),
        [
            orders::OrderCreated::full_name(),
            orders::OrderCancelled::full_name()
        ]
    );
}

#[test]
fn each_event_is_read() {
    let cancelled = orders::OrderCancelled {
        order_id: ID.to_owned(),
        customer_id: CUSTOMER_ID.to_owned(),
        total: eur(1_999),
        reason: 99, // of a newer version: whatever the reason, the order needs no credit
    };
    for (name, mut bytes) in EVENTS
        .into_iter()
        .zip([created().encode_to_vec(), cancelled.encode_to_vec()])
    {
        bytes.extend([0x9a, 0x06, 0x01, 0x78]); // field 99, of a newer version
        let event = event(name, &bytes).unwrap();
        let is_cancelled = matches!(event, Event::OrderCancelled(_));
        assert_eq!(is_cancelled, name == ORDER_CANCELLED);
        let ask = event.ask();
        assert_eq!(Uuid::from(ask.order_id).to_string(), ID);
        assert_eq!(Uuid::from(ask.customer_id).to_string(), CUSTOMER_ID);
        assert_eq!(ask.amount.minor_units(), 1_999);
    }
}

#[test]
fn an_event_that_cannot_be_read_is_refused_with_the_reason() {
    let message = |change: &dyn Fn(&mut orders::OrderCreated)| {
        let mut message = created();
        change(&mut message);
        event(ORDER_CREATED, &message.encode_to_vec())
            .unwrap_err()
            .to_string()
    };
    for (told, field) in [
        (message(&|e| e.order_id.clear()), "order_id: "),
        (message(&|e| e.customer_id.push('x')), "customer_id: "),
        (message(&|e| e.total = None), "total: "),
        (message(&|e| e.total = eur(0)), "total.minor_units: "),
        (message(&|e| e.total = eur(-5)), "total.minor_units: "),
        (
            message(&|e| e.total = Some(money::Money::default())),
            "total.currency: ",
        ),
    ] {
        assert!(told.starts_with("orders.v1.OrderCreated: "), "{told}");
        assert!(told.contains(field), "{told}");
    }
    let other = |event_type| event(event_type, &[0xff]).unwrap_err().to_string();
    assert!(other(ORDER_CREATED).starts_with("not a orders.v1.OrderCreated in protobuf"));
    assert!(other(ORDER_CANCELLED).starts_with("not a orders.v1.OrderCancelled in protobuf"));
    let nameless = event(ORDER_CANCELLED, &[]).unwrap_err().to_string();
    assert!(
        nameless.starts_with("orders.v1.OrderCancelled: "),
        "{nameless}"
    );
    assert!(other("orders.v1.OrderApproved").contains("\"orders.v1.OrderApproved\""));
}

#[test]
fn a_customer_is_shown_with_what_is_left() {
    let limit = CreditLimit::new(100, Currency::new("EUR").unwrap()).unwrap();
    let shown = customer(&Customer {
        customer_id: Uuid::max().into(),
        name: Name::new("Ada".to_owned()).unwrap(),
        account: Account::reopen(limit, 30).unwrap(),
        create_time: UNIX_EPOCH + Duration::new(1_700_000_000, 123_456_000),
    });
    assert_eq!(shown.credit_limit, eur(100));
    assert_eq!(shown.reserved, eur(30));
    assert_eq!(shown.available, eur(70));
    assert_eq!(shown.create_time.unwrap().seconds, 1_700_000_000);
    assert_eq!(shown.create_time.unwrap().nanos, 123_456_000);
}
