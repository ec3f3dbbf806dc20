//! The chassis against real peers, real sockets and real signals. One binary, so that it is linked
//! once.

#[cfg(test)]
mod admin;
#[cfg(test)]
mod child;
#[cfg(test)]
mod config;
#[cfg(test)]
mod database;
#[cfg(test)]
mod echo;
#[cfg(test)]
mod grpc;
#[cfg(test)]
mod grpc_tls;
#[cfg(test)]
mod healthy;
#[cfg(test)]
mod nats;
#[cfg(test)]
mod owner;
#[cfg(test)]
mod rpc;
#[cfg(test)]
mod secure;
#[cfg(test)]
mod starting;
#[cfg(test)]
mod tasks;
#[cfg(test)]
mod telemetry;
