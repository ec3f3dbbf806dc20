//! The services' contracts, generated from the `.proto` files of this folder: messages, gRPC clients
//! and servers, and serde implementations that follow protobuf's canonical JSON mapping.

// Generated code keeps its own style.
#![allow(
    clippy::all,
    clippy::pedantic,
    clippy::unwrap_used,
    unreachable_pub,
    missing_debug_implementations
)]

mod access;

pub use access::ACCESS;
pub use pbjson_types::{Duration, Timestamp};

pub mod dead_letters {
    pub mod v1 {
        include!(concat!(env!("OUT_DIR"), "/dead_letters.v1.rs"));
        include!(concat!(env!("OUT_DIR"), "/dead_letters.v1.serde.rs"));
    }
}

pub mod money {
    pub mod v1 {
        include!(concat!(env!("OUT_DIR"), "/money.v1.rs"));
        include!(concat!(env!("OUT_DIR"), "/money.v1.serde.rs"));
    }
}

pub mod orders {
    pub mod v1 {
        include!(concat!(env!("OUT_DIR"), "/orders.v1.rs"));
        include!(concat!(env!("OUT_DIR"), "/orders.v1.serde.rs"));

        /// Descriptors of what the Order Service serves, and what that needs, for gRPC reflection: an encoded
        /// `google.protobuf.FileDescriptorSet`.
        pub const DESCRIPTORS: &[u8] =
            include_bytes!(concat!(env!("OUT_DIR"), "/orders.v1.descriptors.bin"));
    }
}

pub mod customers {
    pub mod v1 {
        include!(concat!(env!("OUT_DIR"), "/customers.v1.rs"));
        include!(concat!(env!("OUT_DIR"), "/customers.v1.serde.rs"));

        /// Descriptors of what the Customer Service serves, and what that needs, for gRPC reflection: an encoded
        /// `google.protobuf.FileDescriptorSet`.
        pub const DESCRIPTORS: &[u8] =
            include_bytes!(concat!(env!("OUT_DIR"), "/customers.v1.descriptors.bin"));
    }
}
