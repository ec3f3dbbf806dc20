//! Requests over gRPC.

use std::error::Error;
use std::time::Duration;

use chassis::grpc::client::{Address, Authorization};
use chassis::tls::FAILED;
use prost::Message;
use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::Channel;
use tonic::{Code, Status, Streaming};
use tonic_prost::ProstCodec;

use super::{Missed, process};
use crate::cli::Connection;
use crate::failure::Failure;

/// A host that does not exist is noticed after this.
const CONNECT_MAX: Duration = Duration::from_secs(3);

/// A host that goes silent under a request is noticed after the sum of these.
const KEEPALIVE_EVERY: Duration = Duration::from_secs(10);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(5);

/// What the system says when there is nobody to send anything to.
const NOT_SENT: [&str; 2] = ["refused", "lookup"];

/// Connections to both services, made when they are first used.
#[derive(Debug)]
pub(super) struct Channels {
    orders: Service,
    customers: Service,
    authorization: Authorization,
}

/// A service, and where it is said to be.
#[derive(Debug)]
struct Service {
    /// Or what of the settings goes not together.
    channel: Result<Channel, String>,
    address: Address,
    /// Its binary.
    process: &'static str,
    /// Its name in the contract.
    name: &'static str,
    /// What sets the address.
    setting: &'static str,
}

/// Answers that come one after the other.
#[derive(Debug)]
pub(crate) struct Stream<A>(Streaming<A>);

impl<A> Stream<A> {
    /// The next; none at the end, and where the connection was lost or the server ended: ask again then.
    pub(crate) async fn next(&mut self) -> Result<Option<A>, Failure> {
        let status = match self.0.message().await {
            Ok(next) => return Ok(next),
            Err(status) => status,
        };
        if status.source().is_some() || status.code() == Code::Unavailable {
            return Ok(None);
        }
        let (code, message) = (status.code(), status.message().to_owned());
        Err(Failure::Refused { code, message })
    }
}

impl Channels {
    pub(super) fn new(settings: &Connection) -> Result<Self, Failure> {
        let common = settings.grpc.as_ref();
        let all = [&settings.orders, &settings.customers];
        let mut all = common.into_iter().chain(all);
        let rules = match all.any(Address::is_over_tls) {
            true => Some(settings.tls.rules()?),
            false => None,
        };
        let service = |own: &Address, process, name, setting| {
            let address = common.unwrap_or(own).clone();
            let endpoint = address
                .endpoint()
                .connect_timeout(CONNECT_MAX)
                .http2_keep_alive_interval(KEEPALIVE_EVERY)
                .keep_alive_timeout(KEEPALIVE_TIMEOUT);
            let channel = match (&rules, address.is_over_tls(), settings.tls.is_set()) {
                (Some(rules), true, _) => Ok(rules.clone().channel(&endpoint)),
                (_, _, Some(option)) => Err(format!(
                    "{option} is set, and {address} is not over TLS: let the address begin with https://"
                )),
                _ => Ok(endpoint.connect_lazy()),
            };
            Service {
                channel,
                address,
                process,
                name,
                setting: common.map_or(setting, |_| "--grpc"),
            }
        };
        let authorization = Authorization::new(settings.token.authorization()?.as_ref())?;
        Ok(Self {
            authorization,
            orders: service(
                &settings.orders,
                "order-service",
                "orders.v1.OrderService",
                "--orders-grpc or ORDERS_GRPC",
            ),
            customers: service(
                &settings.customers,
                "customer-service",
                "customers.v1.CustomerService",
                "--customers-grpc or CUSTOMERS_GRPC",
            ),
        })
    }

    pub(super) async fn ask<Q, A>(&self, subject: &str, request: Q) -> Result<A, Missed>
    where
        Q: Message + 'static,
        A: Message + Default + 'static,
    {
        let (mut client, path) = self.ready(subject).await?;
        let codec = ProstCodec::<Q, A>::default();
        match client
            .unary(self.authorization.request(request), path, codec)
            .await
        {
            Ok(answer) => Ok(answer.into_inner()),
            Err(status) => Err(self.missed(subject, &status)),
        }
    }

    pub(super) async fn stream<Q, A>(&self, subject: &str, request: Q) -> Result<Stream<A>, Missed>
    where
        Q: Message + 'static,
        A: Message + Default + 'static,
    {
        let (mut client, path) = self.ready(subject).await?;
        let codec = ProstCodec::<Q, A>::default();
        let answer = client
            .server_streaming(self.authorization.request(request), path, codec)
            .await;
        match answer {
            Ok(answer) => Ok(Stream(answer.into_inner())),
            Err(status) => Err(self.missed(subject, &status)),
        }
    }

    async fn ready(&self, subject: &str) -> Result<(Grpc<Channel>, PathAndQuery), Missed> {
        let service = self.service(subject);
        let method = subject.rsplit('.').next().unwrap_or(subject);
        let name = match subject.starts_with("dead_letters.") {
            true => "dead_letters.v1.DeadLetterService",
            false => service.name,
        };
        let path = PathAndQuery::try_from(format!("/{name}/{method}"))
            .map_err(|error| Missed::Unreadable(error.into()))?;
        let channel = service.channel.clone().map_err(Missed::Unusable)?;
        let mut client = Grpc::new(channel);
        match client.ready().await {
            Ok(()) => Ok((client, path)),
            Err(error) => Err(self.unreached(subject, &error)),
        }
    }

    /// In words: who does not answer, where, and what says where.
    pub(super) fn unanswered(&self, subject: &str, why: &str) -> String {
        let service = self.service(subject);
        format!(
            "{} does not answer at {}: {why}. Is it running, and is that where its gRPC is? {} says where",
            service.process, service.address, service.setting
        )
    }

    fn service(&self, subject: &str) -> &Service {
        match process(subject) {
            "order-service" => &self.orders,
            _ => &self.customers,
        }
    }

    fn missed(&self, subject: &str, status: &Status) -> Missed {
        let (code, message) = (status.code(), status.message().to_owned());
        match status.source() {
            // What tonic itself has to say has a source; what the service says has none.
            Some(source) => self.unreached(subject, source),
            None if code == Code::Unimplemented => {
                let service = self.service(subject);
                Missed::Refused {
                    code,
                    message: format!(
                        "{} has no {subject}: {} is another service, or of an older version; {} says \
                         where {} is",
                        service.address, service.address, service.setting, service.process
                    ),
                }
            }
            None => Missed::Refused { code, message },
        }
    }

    fn unreached(&self, subject: &str, error: &(dyn Error + 'static)) -> Missed {
        let mut reason = root(error);
        let service = self.service(subject);
        if reason.starts_with(FAILED) {
            let (process, address) = (service.process, &service.address);
            return Missed::Unusable(format!("{process} at {address}: {reason}"));
        }
        if !service.address.is_over_tls() && !NOT_SENT.iter().any(|words| reason.contains(words)) {
            reason.push_str(" (where it is served over TLS, the address begins with https://)");
        }
        // Before anything was sent: nobody listens, or there is no such host.
        let heard = !NOT_SENT.iter().any(|words| reason.contains(words));
        let why = self.unanswered(subject, &reason);
        Missed::Unanswered { why, heard }
    }
}

/// The last cause: the outer ones say only that a transport failed.
fn root(error: &(dyn Error + 'static)) -> String {
    let mut last = error;
    while let Some(source) = last.source() {
        last = source;
    }
    last.to_string()
}
