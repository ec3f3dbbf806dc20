//! The whole system: one Postgres with two databases, one NATS, both services, both relays.

use std::time::Duration;

use anyhow::{Context, Result};
use proto::customers::v1::customer_service_client::CustomerServiceClient;
use proto::orders::v1::order_service_client::OrderServiceClient;
use tonic::transport::{Channel, Endpoint};

use crate::guard::Guard;
use crate::issuer::Issuer;
use crate::nats::Nats;
use crate::port::Port;
use crate::postgres::Postgres;
use crate::process::Process;
use crate::roles::{self, Role};

mod shared;
mod side;

pub use shared::Shared;
pub use side::Side;

/// A call that takes longer than this hangs; a test should say so.
const CALL_DEADLINE: Duration = Duration::from_secs(30);

/// How a [`System`] is to differ from the usual one.
#[derive(Clone, Debug, Default)]
pub struct Builder {
    environment: Vec<(String, String, String)>,
    settings: Vec<(String, String)>,
    nats: String,
    database: String,
    tokens: bool,
}

impl Builder {
    /// Its services ask for tokens, of [`System::issuer`]; else they let everybody in.
    #[must_use]
    pub fn tokens(mut self) -> Self {
        self.tokens = true;
        self
    }

    /// A variable for the processes whose binary or name is `program`: `order-service`,
    /// `customer-service`, `cdc-relay`, `orders-relay`, `customers-relay`.
    #[must_use]
    pub fn env(mut self, program: &str, key: &str, value: &str) -> Self {
        self.environment
            .push((program.into(), key.into(), value.into()));
        self
    }

    /// A setting of Postgres.
    #[must_use]
    pub fn postgres(mut self, name: &str, value: &str) -> Self {
        self.settings.push((name.into(), value.into()));
        self
    }

    /// Parameters of libpq for the URLs of the databases that the processes get.
    #[must_use]
    pub fn database(mut self, parameters: &str) -> Self {
        self.database = format!("?{parameters}");
        self
    }

    /// A line of nats-server's configuration.
    #[must_use]
    pub fn nats(mut self, line: &str) -> Self {
        self.nats.push_str(line);
        self.nats.push('\n');
        self
    }

    /// Starts it; returns when every process is ready.
    ///
    /// # Errors
    /// When a part is missing or does not get ready, with the end of its log.
    pub async fn start(self) -> Result<System> {
        let guard = Guard::start()?;
        let settings: Vec<_> = self
            .settings
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .collect();
        let (postgres, nats) = tokio::try_join!(
            Postgres::start_with(&guard, &settings),
            Nats::start_with(&guard, &self.nats),
        )?;
        for side in Side::ALL {
            roles::create_database(&postgres, side).await?;
        }
        let issuer = self.tokens.then(|| Issuer::new(&guard)).transpose()?;
        let mut system = System {
            issuer,
            services: Vec::new(),
            relays: Vec::new(),
            postgres,
            nats,
            builder: self,
            guard,
        };
        for side in Side::ALL {
            system.start_service(side)?;
            system.start_relay(side)?;
        }
        futures_util::future::try_join_all(system.processes().map(Process::wait_ready)).await?;
        Ok(system)
    }
}

/// The running system. All of it ends when this value is dropped, or when the test process dies.
#[derive(Debug)]
pub struct System {
    services: Vec<Service>,
    relays: Vec<Process>,
    postgres: Postgres,
    nats: Nats,
    builder: Builder,
    issuer: Option<Issuer>,
    guard: Guard,
}

#[derive(Debug)]
struct Service {
    process: Process,
    grpc: Port,
}

impl System {
    /// Starts the usual system; returns when every process is ready.
    ///
    /// # Errors
    /// As [`Builder::start`].
    pub async fn start() -> Result<Self> {
        Self::builder().start().await
    }

    /// For a system that differs from the usual one.
    #[must_use]
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// The cluster of both databases.
    #[must_use]
    pub fn postgres(&self) -> &Postgres {
        &self.postgres
    }

    /// The nats-server.
    #[must_use]
    pub fn nats(&self) -> &Nats {
        &self.nats
    }

    /// Whose tokens its services take; none if they let everybody in.
    #[must_use]
    pub fn issuer(&self) -> Option<&Issuer> {
        self.issuer.as_ref()
    }

    /// The scratch directory: logs and data.
    #[must_use]
    pub fn directory(&self) -> &std::path::Path {
        self.guard.directory()
    }

    /// Every process of ours: services with their replicas, then relays.
    pub fn processes(&self) -> impl Iterator<Item = &Process> {
        self.services
            .iter()
            .map(|service| &service.process)
            .chain(&self.relays)
    }

    /// A process by its name: `order-service`, `customer-service`, `orders-relay`,
    /// `customers-relay`; a replica's has `-2`, `-3`, … at its end.
    ///
    /// # Panics
    /// When there is no process of that name.
    #[must_use]
    pub fn process(&self, name: &str) -> &Process {
        let found = self.processes().find(|process| process.name() == name);
        found.unwrap_or_else(|| panic!("no process is called {name}"))
    }

    /// Adds a replica of a service and waits until it is ready. Returns its name.
    ///
    /// # Errors
    /// When it does not get ready.
    pub async fn add_replica(&mut self, side: Side) -> Result<String> {
        let name = self.start_service(side)?;
        self.process(&name).wait_ready().await?;
        Ok(name)
    }

    /// Adds a second relay on the same slot. It is not ready before the first has gone, so this does
    /// not wait. Returns its name.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn add_standby(&mut self, side: Side) -> Result<String> {
        self.start_relay(side)
    }

    /// The address of a service's gRPC, by the name of the process: `http://127.0.0.1:…`.
    ///
    /// # Panics
    /// When there is no service process of that name.
    #[must_use]
    pub fn grpc_url(&self, name: &str) -> String {
        let found = self
            .services
            .iter()
            .find(|service| service.process.name() == name);
        let port = found
            .unwrap_or_else(|| panic!("no service is called {name}"))
            .grpc
            .number();
        format!("http://127.0.0.1:{port}")
    }

    /// A gRPC client of the first `order-service`. It connects when used, and again when it must.
    ///
    /// # Errors
    /// None is expected.
    pub fn orders(&self) -> Result<OrderServiceClient<Channel>> {
        Ok(OrderServiceClient::new(
            self.channel(Side::Orders.service())?,
        ))
    }

    /// A gRPC client of the first `customer-service`. It connects when used, and again when it must.
    ///
    /// # Errors
    /// None is expected.
    pub fn customers(&self) -> Result<CustomerServiceClient<Channel>> {
        Ok(CustomerServiceClient::new(
            self.channel(Side::Customers.service())?,
        ))
    }

    /// A channel to a service process, by its name.
    ///
    /// # Errors
    /// None is expected.
    pub fn channel(&self, name: &str) -> Result<Channel> {
        let endpoint = Endpoint::from_shared(self.grpc_url(name)).context("a malformed address")?;
        Ok(endpoint.timeout(CALL_DEADLINE).connect_lazy())
    }

    /// The URL of a database for one of its roles.
    #[must_use]
    pub fn database_url(&self, side: Side, role: Role) -> String {
        self.postgres.url_as(&role.of(side), side.database())
    }

    /// A client of a database as one of its roles.
    ///
    /// # Errors
    /// When Postgres cannot be reached.
    pub async fn database_as(&self, side: Side, role: Role) -> Result<tokio_postgres::Client> {
        self.postgres
            .connect_as(&role.of(side), side.database())
            .await
    }

    /// A client of a database, as the superuser.
    ///
    /// # Errors
    /// When Postgres cannot be reached.
    pub async fn database(&self, side: Side) -> Result<tokio_postgres::Client> {
        self.postgres.connect(side.database()).await
    }

    fn start_service(&mut self, side: Side) -> Result<String> {
        let before = self
            .services
            .iter()
            .filter(|service| service.process.name().starts_with(side.service()));
        let name = numbered(side.service(), before.count());
        let grpc = Port::free()?;
        let listen = format!("127.0.0.1:{}", grpc.number());
        let owner = self.database_url(side, Role::Owner) + &self.builder.database;
        let own = [
            ("GRPC_LISTEN", listen.as_str()),
            ("MIGRATIONS_DATABASE_URL", &owner),
            ("DATABASE_RELAY_ROLE", &Role::Relay.of(side)),
            ("DATABASE_AUDITOR_ROLE", &Role::Auditor.of(side)),
        ];
        let process = self.spawn((side, Role::Service), &name, side.service(), &own)?;
        self.services.push(Service { process, grpc });
        Ok(name)
    }

    fn start_relay(&mut self, side: Side) -> Result<String> {
        let before = self
            .relays
            .iter()
            .filter(|relay| relay.name().starts_with(side.relay()));
        let name = numbered(side.relay(), before.count());
        let process = self.spawn(
            (side, Role::Relay),
            &name,
            "cdc-relay",
            &[
                ("CDC_SLOT", side.slot()),
                ("CDC_STREAM", side.stream()),
                ("CDC_STREAM_SUBJECTS", side.subjects()),
                // As in `deploy/`.
                ("CDC_TRANSACTIONS", "apart"),
            ],
        )?;
        self.relays.push(process);
        Ok(name)
    }

    fn spawn(
        &self,
        (side, role): (Side, Role),
        name: &str,
        binary: &str,
        own: &[(&str, &str)],
    ) -> Result<Process> {
        let database = self.database_url(side, role) + &self.builder.database;
        let nats = self.nats.url();
        let mut environment = vec![("DATABASE_URL", database.as_str()), ("NATS_URL", &nats)];
        let tokens = self.issuer.as_ref().map(Issuer::settings);
        if binary == side.service() {
            match &tokens {
                None => environment.push(("AUTH", "off")),
                Some(settings) => {
                    environment.extend(settings.iter().map(|(key, value)| (*key, value.as_str())));
                }
            }
        }
        environment.extend(own);
        for (program, key, value) in &self.builder.environment {
            if program == name || program == binary {
                environment.push((key, value));
            }
        }
        Process::start(&self.guard, name, binary, &environment)
    }
}

fn numbered(name: &str, before: usize) -> String {
    match before {
        0 => name.to_owned(),
        _ => format!("{name}-{}", before + 1),
    }
}
