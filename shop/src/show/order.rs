//! Orders as they are printed.

use proto::orders::v1::{CancellationReason, Order, OrderState};

use super::{Shown, time, words};
use crate::amount;

impl Shown for Order {
    const COLUMNS: &'static [(&'static str, bool)] = &[
        ("ORDER", false),
        ("TOTAL", true),
        ("STATE", false),
        ("CUSTOMER", false),
        ("CREATED", false),
    ];

    fn id(&self) -> String {
        self.order_id.clone()
    }

    fn row(&self) -> Vec<String> {
        vec![
            self.order_id.clone(),
            amount::shown(self.total.as_ref()),
            state(self),
            self.customer_id.clone(),
            time(self.create_time.as_ref()),
        ]
    }

    fn record(&self) -> Vec<(&'static str, String)> {
        let mut record = vec![
            ("order", self.order_id.clone()),
            ("customer", self.customer_id.clone()),
            ("total", amount::shown(self.total.as_ref())),
            ("state", state(self)),
            ("created", time(self.create_time.as_ref())),
        ];
        match self.state() {
            OrderState::Pending => record.push(("deadline", time(self.deadline.as_ref()))),
            _ => record.push(("changed", time(self.update_time.as_ref()))),
        }
        record
    }
}

/// `pending`, or `cancelled: credit limit exceeded`.
pub(super) fn state(order: &Order) -> String {
    let Ok(state) = OrderState::try_from(order.state) else {
        return format!("state {}, which a newer shop knows", order.state);
    };
    let state = words(state.as_str_name(), "ORDER_STATE_");
    match CancellationReason::try_from(order.cancellation_reason) {
        Ok(CancellationReason::Unspecified) => state,
        Ok(reason) => {
            let reason = words(reason.as_str_name(), "CANCELLATION_REASON_");
            format!("{state}: {reason}")
        }
        Err(_) => format!("{state}: reason {}", order.cancellation_reason),
    }
}
