//! Starts the Customer Service, and runs it until a signal or a failure.

use std::sync::Arc;

use chassis::health::Health;
use chassis::tasks::{self, Tasks};
use chassis::tls::expiry;
use chassis::{admin, auth, database, grpc, listen, nats, telemetry};
use clap::Parser as _;
use customer_service::api::{self, Customers};
use customer_service::config::Config;
use customer_service::reactions::Reactions;
use customer_service::{GRANTS, migrations, wire};
use dead_letters::DeadLetters;
use mailbox::{consumer, partitions, requests, retention};
use tokio::runtime::Builder;

const NAME: &str = "customer-service";

fn main() -> anyhow::Result<()> {
    tasks::block_on(Builder::new_multi_thread(), run())?
}

async fn run() -> anyhow::Result<()> {
    let config = Config::parse();
    let telemetry = telemetry::init(&config.telemetry, NAME)?;
    let mut tasks = Tasks::new(&config.shutdown);

    // Alive from here on; ready when all the checks hold.
    let health = Health::new();
    let database_check = health.check("database");
    let nats_check = health.check("nats");
    let admin_listener = listen::bind("admin", config.admin.listen).await?;
    let starting = grpc::Starting::new(grpc::Listener::bind(&config.grpc).await?).await?;
    tasks.spawn("admin", {
        let (health, metrics) = (health.clone(), telemetry.metrics());
        admin::serve(admin_listener, health, metrics, tasks.token())
    });

    let guard = auth::Guard::start(&config.auth, proto::ACCESS, tasks.token()).await?;
    // The mailbox last: the relay creates its slot as soon as there is an outbox, and Postgres (15.18)
    // now and then makes one that it cannot decode when tables are being created at that moment:
    // "could not map filenode … to relation OID".
    let schema = vec![
        ("customer_service_migrations", migrations::runner()),
        ("requests_migrations", requests::migrations()),
        ("mailbox_migrations", mailbox::migrations()),
    ];
    database::prepare(&config.database, &config.owner, NAME, schema, &GRANTS).await?;
    let pool = database::connect(&config.database, NAME).await?;
    let client = nats::connect(&config.nats, NAME).await?;

    let customers = Arc::new(Customers::new(pool.clone(), config.request_retention()));
    let orders = config.consumer(NAME, wire::EVENTS);
    let applied = (pool.clone(), Reactions);
    let letters = DeadLetters::new(client.clone(), applied, &orders, wire::json);
    let letters = Arc::new(letters);
    let grpc_listener = starting.done().await?;
    tasks.spawn("grpc", {
        let descriptors = proto::customers::v1::DESCRIPTORS;
        let routes = api::grpc(&customers).add_service(dead_letters::grpc(&letters));
        let (guard, token) = (guard.clone(), tasks.token());
        grpc::serve(grpc_listener, routes, descriptors, health, guard, token)
    });
    let requests = api::nats(&customers).serve(client.clone(), guard.clone(), tasks.token());
    tasks.spawn("requests", requests);
    let requests =
        dead_letters::nats(&letters, api::DEAD_LETTERS).serve(client.clone(), guard, tasks.token());
    tasks.spawn("requests about dead letters", requests);
    let kept = (config.inbox_retention(), vec![orders.clone()]);
    let inbox = retention::maintain(pool.clone(), client.clone(), kept.0, kept.1, tasks.token());
    tasks.spawn("inbox", async { Ok(inbox.await?) });
    tasks.spawn("reactions", {
        let (pool, client, token) = (pool.clone(), client.clone(), tasks.token());
        async move { Ok(consumer::run(pool, client, orders, Reactions, token).await?) }
    });
    let certificates = config.certificates();
    tasks.background("certificates", |token| expiry::watch(certificates, token));
    tasks.background("kept requests", |token| {
        requests::maintain(pool.clone(), config.request_retention(), token)
    });
    tasks.background("partitions", |token| partitions::maintain(pool, token));
    let token = tasks.token();
    let watching = database::watch(config.database, NAME, database_check, token);
    tasks.spawn("database", watching);
    let token = tasks.token();
    tasks.spawn("nats", nats::watch(client, nats_check, token));
    tasks.run().await
}
