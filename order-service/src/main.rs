//! Starts the Order Service, and runs it until a signal or a failure.

use std::sync::Arc;

use chassis::health::Health;
use chassis::tasks::{self, Tasks};
use chassis::tls::expiry;
use chassis::{admin, auth, database, grpc, listen, nats, telemetry};
use clap::Parser as _;
use dead_letters::DeadLetters;
use deadpool_postgres::Pool;
use mailbox::{consumer, partitions, requests, retention};
use order_service::api::{self, Orders};
use order_service::backlog::{self, Backlog};
use order_service::config::Config;
use order_service::reactions::Reactions;
use order_service::watch::reader::LOOK_AT_ALL_EVERY;
use order_service::watch::{self, Hub};
use order_service::{GRANTS, migrations, sweeper, wire};
use tokio::runtime::Builder;

const NAME: &str = "order-service";

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
    prepare_database(&config).await?;
    let pool = database::connect(&config.database, NAME).await?;
    let client = nats::connect(&config.nats, NAME).await?;

    let hub = Hub::new(config.watchers_max, tasks.token());
    let backlog = Backlog::new(config.pending_orders_max);
    let orders = orders(&config, &pool, &hub, &backlog);
    let answers = config.consumer(NAME, wire::ANSWERS);
    let applied = (pool.clone(), Reactions);
    let letters = DeadLetters::new(client.clone(), applied, &answers, wire::json);
    let letters = Arc::new(letters);
    let grpc_listener = starting.done().await?;
    tasks.spawn("grpc", {
        let descriptors = proto::orders::v1::DESCRIPTORS;
        let routes = api::grpc(&orders).add_service(dead_letters::grpc(&letters));
        let (guard, token) = (guard.clone(), tasks.token());
        grpc::serve(grpc_listener, routes, descriptors, health, guard, token)
    });
    let requests = api::nats(&orders).serve(client.clone(), guard.clone(), tasks.token());
    tasks.spawn("requests", requests);
    let requests =
        dead_letters::nats(&letters, api::DEAD_LETTERS).serve(client.clone(), guard, tasks.token());
    tasks.spawn("requests about dead letters", requests);
    let kept = (config.inbox_retention(), vec![answers.clone()]);
    let inbox = retention::maintain(pool.clone(), client.clone(), kept.0, kept.1, tasks.token());
    tasks.spawn("inbox", async { Ok(inbox.await?) });
    tasks.spawn("reactions", {
        let (pool, client, token) = (pool.clone(), client.clone(), tasks.token());
        async move { Ok(consumer::run(pool, client, answers, Reactions, token).await?) }
    });
    tasks.background("watched orders", |token| {
        watch::reader::run(hub.clone(), pool.clone(), LOOK_AT_ALL_EVERY, token)
    });
    tasks.background("signals", |token| {
        let stream = config.own_events_stream.clone();
        watch::signals::run(hub, client.clone(), stream, token)
    });
    tasks.background("backlog", |token| {
        backlog::run(backlog, pool.clone(), token)
    });
    tasks.background("sweeper", |token| sweeper::run(pool.clone(), token));
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

fn orders(config: &Config, pool: &Pool, hub: &Hub, backlog: &Backlog) -> Arc<Orders> {
    let (patience, kept) = (config.order_deadline(), config.request_retention());
    let orders = Orders::new(pool.clone(), patience, kept);
    Arc::new(orders.watched_by(hub.clone()).bounded_by(backlog.clone()))
}

/// The mailbox last: the relay creates its slot as soon as there is an outbox, and Postgres (15.18) now and
/// then makes one that it cannot decode when tables are being created at that moment: "could not map
/// filenode … to relation OID".
async fn prepare_database(config: &Config) -> anyhow::Result<()> {
    let schema = vec![
        ("order_service_migrations", migrations::runner()),
        ("requests_migrations", requests::migrations()),
        ("mailbox_migrations", mailbox::migrations()),
    ];
    database::prepare(&config.database, &config.owner, NAME, schema, &GRANTS).await
}
