//! Where the operations are to be had: over gRPC, and as NATS requests.

use std::sync::Arc;

use chassis::grpc::MESSAGE_SIZE_MAX;
use chassis::rpc;
use proto::orders::v1::order_service_server::{
    OrderService as _, OrderServiceServer, SERVICE_NAME,
};
use tonic::service::Routes;

use super::Orders;

/// The operations over gRPC.
pub fn grpc(orders: &Arc<Orders>) -> Routes {
    let server = OrderServiceServer::from_arc(Arc::clone(orders))
        .max_decoding_message_size(MESSAGE_SIZE_MAX)
        .max_encoding_message_size(MESSAGE_SIZE_MAX);
    Routes::new(server)
}

/// The same operations over NATS requests.
pub fn nats(orders: &Arc<Orders>) -> rpc::Api {
    let [create, cancel, get, list] = [(); 4].map(|()| Arc::clone(orders));
    rpc::Api::new(
        "order-service",
        env!("CARGO_PKG_VERSION"),
        "Takes orders, and tells what became of them",
        ("orders.v1", SERVICE_NAME),
    )
    .operation("CreateOrder", move |request| {
        let orders = Arc::clone(&create);
        async move { orders.create_order(request).await }
    })
    .operation("CancelOrder", move |request| {
        let orders = Arc::clone(&cancel);
        async move { orders.cancel_order(request).await }
    })
    .operation("GetOrder", move |request| {
        let orders = Arc::clone(&get);
        async move { orders.get_order(request).await }
    })
    .operation("ListOrders", move |request| {
        let orders = Arc::clone(&list);
        async move { orders.list_orders(request).await }
    })
}
