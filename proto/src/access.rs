//! Who may call what: the one table, which both transports go by.

/// The scope of a customer's token, and that of an operator's.
const CUSTOMER: &str = "customer";
const OPERATOR: &str = "operator";

/// A customer may do it where it concerns that customer itself; an operator may for everybody.
const OWN: &[&str] = &[CUSTOMER, OPERATOR];
/// Only an operator may.
const ALL: &[&str] = &[OPERATOR];

/// The scopes that may call an operation, by its gRPC name. What is not here nobody may call, and a service
/// that has it does not start.
pub const ACCESS: &[(&str, &[&str])] = &[
    ("orders.v1.OrderService/CreateOrder", OWN),
    ("orders.v1.OrderService/CancelOrder", OWN),
    ("orders.v1.OrderService/GetOrder", OWN),
    ("orders.v1.OrderService/WatchOrder", OWN),
    ("orders.v1.OrderService/ListOrders", OWN),
    ("customers.v1.CustomerService/CreateCustomer", ALL),
    ("customers.v1.CustomerService/SetCreditLimit", ALL),
    ("customers.v1.CustomerService/GetCustomer", OWN),
    ("customers.v1.CustomerService/ListCustomers", ALL),
    ("customers.v1.CustomerService/ListReservations", OWN),
    ("dead_letters.v1.DeadLetterService/ListDeadLetters", ALL),
    ("dead_letters.v1.DeadLetterService/GetDeadLetter", ALL),
    ("dead_letters.v1.DeadLetterService/RedriveDeadLetters", ALL),
    ("dead_letters.v1.DeadLetterService/DiscardDeadLetters", ALL),
];
