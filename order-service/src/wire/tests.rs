use std::time::Duration;

use prost::{Message as _, Name as _};
use proto::customers::v1 as customers;

use super::*;
use crate::domain::Answer;

const ID: &str = "0192f8c1-6d3e-7a44-9a51-3c5b8e0d2f17";

fn create() -> orders::CreateOrderRequest {
    orders::CreateOrderRequest {
        wait: None,
        request_id: String::new(),
        customer_id: ID.to_owned(),
        total: Some(money::Money {
            minor_units: 1_999,
            currency: "EUR".to_owned(),
        }),
    }
}

fn refused(change: impl FnOnce(&mut orders::CreateOrderRequest)) -> Invalid {
    let mut request = create();
    change(&mut request);
    CreateOrder::try_from(request).unwrap_err()
}

fn total_of(request: &mut orders::CreateOrderRequest) -> &mut money::Money {
    request.total.as_mut().unwrap()
}

fn a_pending_order() -> Order {
    let total = Total::new(1_999, Currency::new("EUR").unwrap()).unwrap();
    let now = UNIX_EPOCH + Duration::new(1_700_000_000, 123_456_000);
    let id = Uuid::try_parse(ID).unwrap();
    Order::place(
        id.into(),
        Uuid::max().into(),
        total,
        now,
        Duration::from_secs(60),
    )
}

#[test]
fn a_good_request_is_taken_as_it_is() {
    let taken = CreateOrder::try_from(create()).unwrap();
    assert_eq!(Uuid::from(taken.customer_id).to_string(), ID);
    assert_eq!(taken.total.minor_units(), 1_999);
    assert_eq!(taken.total.currency().code(), "EUR");
}

#[test]
fn a_customer_id_is_a_hyphenated_uuid() {
    assert_eq!(
        refused(|r| r.customer_id.clear()),
        Why::Missing.at("customer_id")
    );
    for id in [
        "x",
        "0192f8c16d3e7a449a513c5b8e0d2f17",
        "{0192f8c1-6d3e-7a44-9a51-3c5b8e0d2f17}",
        "0192f8c1-6d3e-7a44-9a51-3c5b8e0d2f1g",
        "0192f8c1-6d3e-7a44-9a51-3c5b8e0d2f17 ",
        "'; DROP TABLE orders; --",
    ] {
        assert_eq!(
            refused(|r| id.clone_into(&mut r.customer_id)),
            Why::NotUuid.at("customer_id"),
            "{id}"
        );
    }
    let mut upper = create();
    upper.customer_id.make_ascii_uppercase();
    assert_eq!(
        CreateOrder::try_from(upper),
        CreateOrder::try_from(create())
    );
}

#[test]
fn a_total_is_there_and_more_than_zero() {
    assert_eq!(refused(|r| r.total = None), Why::Missing.at("total"));
    for minor_units in [0, -1, i64::MIN] {
        assert_eq!(
            refused(|r| total_of(r).minor_units = minor_units),
            Why::Total(NonPositiveTotal).at("total.minor_units"),
            "{minor_units}"
        );
    }
}

#[test]
fn a_currency_without_a_subunit_in_use_is_taken() {
    for code in ["JPY", "XOF", "KWD"] {
        let mut request = create();
        code.clone_into(&mut total_of(&mut request).currency);
        assert!(CreateOrder::try_from(request).is_ok(), "{code}");
    }
}

#[test]
fn a_currency_is_one_in_use_of_iso_4217() {
    assert_eq!(
        refused(|r| total_of(r).currency.clear()),
        Why::Missing.at("total.currency")
    );
    for code in [
        "ABC", "usd", "US", "USDT", " USD", "$", "HRK", "ZWL", "XXX", "XTS", "XAU",
    ] {
        assert_eq!(
            refused(|r| code.clone_into(&mut total_of(r).currency)),
            Why::UnknownCurrency.at("total.currency"),
            "{code}"
        );
    }
}

#[test]
fn an_order_id_is_checked() {
    let request = |order_id: &str| orders::GetOrderRequest {
        wait: None,
        order_id: order_id.to_owned(),
    };
    assert!(GetOrder::try_from(request(ID)).is_ok());
    let cancel = |order_id: &str| {
        CancelOrder::try_from(orders::CancelOrderRequest {
            request_id: String::new(),
            order_id: order_id.to_owned(),
        })
    };
    assert!(cancel(ID).is_ok());
    assert_eq!(cancel(""), Err(Why::Missing.at("order_id")));
    assert_eq!(cancel("1"), Err(Why::NotUuid.at("order_id")));
    assert_eq!(
        GetOrder::try_from(request("")),
        Err(Why::Missing.at("order_id"))
    );
    assert_eq!(
        GetOrder::try_from(request("1")),
        Err(Why::NotUuid.at("order_id"))
    );
}

#[test]
fn a_list_is_checked_field_by_field() {
    let good = orders::ListOrdersRequest::default();
    let everybody = ListOrders::try_from(good.clone()).unwrap();
    assert_eq!((everybody.customer_id, everybody.after), (None, None));
    assert_eq!(everybody.page_size, 100);

    let of_nobody = orders::ListOrdersRequest {
        customer_id: "nobody".to_owned(),
        ..good.clone()
    };
    assert_eq!(
        ListOrders::try_from(of_nobody),
        Err(Why::NotUuid.at("customer_id"))
    );
    let negative = orders::ListOrdersRequest {
        page_size: -1,
        ..good.clone()
    };
    assert_eq!(
        ListOrders::try_from(negative),
        Err(Why::PageSize(page::NegativeSize).at("page_size"))
    );
    let made_up = orders::ListOrdersRequest {
        page_token: "made up".to_owned(),
        ..good
    };
    assert_eq!(
        ListOrders::try_from(made_up),
        Err(Why::PageToken(page::BadToken).at("page_token"))
    );
}

#[test]
fn a_page_token_goes_with_the_customer_that_it_was_given_for() {
    let request = |customer_id: &str, page_token: String| orders::ListOrdersRequest {
        customer_id: customer_id.to_owned(),
        page_size: 0,
        page_token,
    };
    let last = OrderId([7; 16]);
    let first = ListOrders::try_from(request(ID, String::new())).unwrap();
    let token = first.token_after(last);

    let next = ListOrders::try_from(request(ID, token.clone())).unwrap();
    assert_eq!(next.after, Some(last));
    for other in ["", "0192f8c1-6d3e-7a44-9a51-3c5b8e0d2f18"] {
        assert_eq!(
            ListOrders::try_from(request(other, token.clone())),
            Err(Why::PageToken(page::BadToken).at("page_token")),
            "{other:?}"
        );
    }
}

#[test]
fn the_names_of_the_answers_are_those_of_their_messages() {
    assert_eq!(
        ANSWERS.map(str::to_owned),
        [
            customers::CreditReserved::full_name(),
            customers::CreditLimitExceeded::full_name(),
            customers::CustomerNotFound::full_name(),
            customers::CurrencyMismatch::full_name(),
        ]
    );
}

#[test]
fn each_answer_is_read() {
    // The four share their first field, so one message's bytes do for all.
    let bytes = customers::CustomerNotFound {
        order_id: ID.to_owned(),
        customer_id: ID.to_owned(),
    }
    .encode_to_vec();
    let answers = ANSWERS.map(|name| {
        let (order_id, answer) = answer(name, &bytes).unwrap();
        assert_eq!(Uuid::from(order_id).to_string(), ID);
        answer
    });
    assert_eq!(
        answers,
        [
            Answer::CreditReserved,
            Answer::CreditLimitExceeded,
            Answer::CustomerNotFound,
            Answer::CurrencyMismatch,
        ]
    );
}

#[test]
fn an_answer_with_fields_of_a_newer_version_is_read() {
    let mut bytes = customers::CreditReserved {
        order_id: ID.to_owned(),
        ..Default::default()
    }
    .encode_to_vec();
    bytes.extend([0x9a, 0x06, 0x01, 0x78]); // field 99, one byte of text
    assert!(answer(CREDIT_RESERVED, &bytes).is_ok());
}

#[test]
fn what_is_not_an_answer_is_refused_with_the_reason() {
    let message = |event_type, payload: &[u8]| answer(event_type, payload).unwrap_err().to_string();
    assert!(message("orders.v1.OrderApproved", &[]).contains("orders.v1.OrderApproved"));
    assert!(message(CREDIT_RESERVED, &[0xff]).starts_with("not a customers.v1.CreditReserved"));
    assert!(message(CREDIT_RESERVED, &[]).contains("order_id: is required"));
}

#[test]
fn an_order_is_shown_as_it_stands() {
    let pending = a_pending_order();
    let shown = order(&pending);
    assert_eq!(shown.order_id, ID);
    assert_eq!(shown.total.as_ref().unwrap().minor_units, 1_999);
    assert_eq!(shown.state(), orders::OrderState::Pending);
    assert_eq!(shown.create_time.unwrap().seconds, 1_700_000_000);
    assert_eq!(shown.create_time.unwrap().nanos, 123_456_000);
    assert_eq!(shown.deadline.unwrap().seconds, 1_700_000_060);

    let reasons = [
        Reason::CreditLimitExceeded,
        Reason::UnknownCustomer,
        Reason::CurrencyMismatch,
        Reason::ByCustomer,
        Reason::TimedOut,
    ];
    for why in reasons {
        let cancelled = Order {
            state: State::Cancelled(why),
            ..pending
        };
        let shown = order(&cancelled);
        assert_eq!(shown.state(), orders::OrderState::Cancelled);
        assert_eq!(shown.cancellation_reason(), reason(why));
        assert_eq!(order_cancelled(&cancelled, why).reason(), reason(why));
    }
}
