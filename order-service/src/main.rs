//! Starts the Order Service, and runs it until a signal or a failure.

use std::sync::Arc;

use chassis::health::Health;
use chassis::tasks::Tasks;
use chassis::{admin, database, grpc, listen, nats, telemetry};
use clap::Parser as _;
use mailbox::{consumer, partitions, requests};
use order_service::api::{self, Orders};
use order_service::config::Config;
use order_service::reactions::Reactions;
use order_service::{migrations, sweeper, wire};

const NAME: &str = "order-service";

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let config = Config::parse();
    let telemetry = telemetry::init(&config.telemetry, NAME)?;
    let mut tasks = Tasks::new(&config.shutdown);

    // Alive from here on; ready when all the checks hold.
    let health = Health::new();
    let database_check = health.check("database");
    let nats_check = health.check("nats");
    let admin_listener = listen::bind("admin", config.admin.listen).await?;
    let grpc_listener = listen::bind("grpc", config.grpc_listen).await?;
    tasks.spawn("admin", {
        let (health, metrics) = (health.clone(), telemetry.metrics());
        admin::serve(admin_listener, health, metrics, tasks.token())
    });

    let pool = database::connect(&config.database, NAME).await?;
    // The mailbox last: the relay creates its slot as soon as there is an outbox, and Postgres (15.18)
    // now and then makes one that it cannot decode when tables are being created at that moment:
    // "could not map filenode … to relation OID".
    let schema = vec![
        ("order_service_migrations", migrations::runner()),
        ("requests_migrations", requests::migrations()),
        ("mailbox_migrations", mailbox::migrations()),
    ];
    database::migrate(&pool, schema).await?;
    let client = nats::connect(&config.nats, NAME).await?;

    let orders = Arc::new(Orders::new(
        pool.clone(),
        config.order_deadline(),
        config.request_retention(),
    ));
    let answers = config.consumer(NAME, wire::ANSWERS);
    tasks.spawn("grpc", {
        let descriptors = proto::orders::v1::DESCRIPTORS;
        let routes = api::grpc(&orders);
        grpc::serve(grpc_listener, routes, descriptors, health, tasks.token())
    });
    tasks.spawn("requests", {
        let requests = api::nats(&orders);
        requests.serve(client.clone(), tasks.token())
    });
    tasks.spawn("reactions", {
        let (pool, client, token) = (pool.clone(), client.clone(), tasks.token());
        async move { Ok(consumer::run(pool, client, answers, Reactions, token).await?) }
    });
    tasks.spawn("sweeper", {
        let (pool, token) = (pool.clone(), tasks.token());
        async move {
            sweeper::run(pool, token).await;
            Ok(())
        }
    });
    tasks.spawn("kept requests", {
        let (pool, kept, token) = (pool.clone(), config.request_retention(), tasks.token());
        async move {
            requests::maintain(pool, kept, token).await;
            Ok(())
        }
    });
    tasks.spawn("partitions", {
        let token = tasks.token();
        async move {
            partitions::maintain(pool, token).await;
            Ok(())
        }
    });
    let token = tasks.token();
    let watching = database::watch(config.database, NAME, database_check, token);
    tasks.spawn("database", watching);
    let token = tasks.token();
    tasks.spawn("nats", nats::watch(client, nats_check, token));
    tasks.run().await
}
