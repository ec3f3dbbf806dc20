//! The two halves of the system, and what belongs to each.

/// A service of the system and the relay of its database.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Side {
    /// `order-service`, database `orders`, stream `ORDERS`.
    Orders,
    /// `customer-service`, database `customers`, stream `CUSTOMERS`.
    Customers,
}

impl Side {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Orders, Self::Customers];

    /// The service's binary, and the name of its first process.
    #[must_use]
    pub fn service(self) -> &'static str {
        match self {
            Self::Orders => "order-service",
            Self::Customers => "customer-service",
        }
    }

    /// The name of the first process of its relay.
    #[must_use]
    pub fn relay(self) -> &'static str {
        match self {
            Self::Orders => "orders-relay",
            Self::Customers => "customers-relay",
        }
    }

    /// The relay's replication slot. Slots belong to the cluster, so each database has its own name.
    #[must_use]
    pub fn slot(self) -> &'static str {
        match self {
            Self::Orders => "orders_relay",
            Self::Customers => "customers_relay",
        }
    }

    /// Its database.
    #[must_use]
    pub fn database(self) -> &'static str {
        match self {
            Self::Orders => "orders",
            Self::Customers => "customers",
        }
    }

    /// The stream of its events.
    #[must_use]
    pub fn stream(self) -> &'static str {
        match self {
            Self::Orders => "ORDERS",
            Self::Customers => "CUSTOMERS",
        }
    }

    /// The subjects of the stream.
    #[must_use]
    pub fn subjects(self) -> &'static str {
        match self {
            Self::Orders => "events.orders.>",
            Self::Customers => "events.customers.>",
        }
    }
}
