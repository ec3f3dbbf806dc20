//! Where the operations are to be had: over gRPC, and as NATS requests.

use std::sync::Arc;

use chassis::grpc::MESSAGE_SIZE_MAX;
use chassis::rpc;
use proto::customers::v1::customer_service_server::{
    CustomerService as _, CustomerServiceServer, SERVICE_NAME,
};
use tonic::service::Routes;

use super::Customers;

/// The operations over gRPC.
pub fn grpc(customers: &Arc<Customers>) -> Routes {
    let server = CustomerServiceServer::from_arc(Arc::clone(customers))
        .max_decoding_message_size(MESSAGE_SIZE_MAX)
        .max_encoding_message_size(MESSAGE_SIZE_MAX);
    Routes::new(server)
}

/// The same operations over NATS requests.
pub fn nats(customers: &Arc<Customers>) -> rpc::Api {
    let [create, set_limit, get, list, reservations] = [(); 5].map(|()| Arc::clone(customers));
    rpc::Api::new(
        "customer-service",
        env!("CARGO_PKG_VERSION"),
        "Keeps customers and the credit that their orders reserve",
        ("customers.v1", SERVICE_NAME),
    )
    .operation("CreateCustomer", move |request| {
        let customers = Arc::clone(&create);
        async move { customers.create_customer(request).await }
    })
    .operation("SetCreditLimit", move |request| {
        let customers = Arc::clone(&set_limit);
        async move { customers.set_credit_limit(request).await }
    })
    .operation("GetCustomer", move |request| {
        let customers = Arc::clone(&get);
        async move { customers.get_customer(request).await }
    })
    .operation("ListCustomers", move |request| {
        let customers = Arc::clone(&list);
        async move { customers.list_customers(request).await }
    })
    .operation("ListReservations", move |request| {
        let customers = Arc::clone(&reservations);
        async move { customers.list_reservations(request).await }
    })
}
