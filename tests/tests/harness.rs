//! The harness keeps its promises.

use std::env;
use std::fs;
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use anyhow::{Result, bail, ensure};
use harness::{Guard, Nats, Port, Postgres, Process, Side, System, books, eventually, tools};
use proto::customers::v1::CreateCustomerRequest;
use proto::money::v1::Money;
use proto::orders::v1::CreateOrderRequest;

/// Set for a test that this file runs again as a process of its own; alone such a test does nothing.
const ROLE: &str = "HARNESS_TEST_ROLE";

#[tokio::test]
async fn postgres_keeps_its_data_over_stop_and_kill() {
    let postgres = Postgres::start().await.unwrap();
    postgres.create_database("shop").await.unwrap();
    let client = postgres.connect("shop").await.unwrap();
    let level = client.query_one("SHOW wal_level", &[]).await.unwrap();
    assert_eq!(level.get::<_, String>(0), "logical");
    client
        .batch_execute("CREATE TABLE t (n int); INSERT INTO t VALUES (1)")
        .await
        .unwrap();
    let port = postgres.port();

    postgres.stop().await.unwrap();
    postgres.connect("shop").await.unwrap_err();
    postgres.start_again().await.unwrap();
    let client = postgres.connect("shop").await.unwrap();
    client
        .batch_execute("INSERT INTO t VALUES (2)")
        .await
        .unwrap();

    postgres.kill().await.unwrap();
    postgres.start_again().await.unwrap();
    assert_eq!(postgres.port(), port);
    let client = postgres.connect("shop").await.unwrap();
    let count = client
        .query_one("SELECT count(*) FROM t", &[])
        .await
        .unwrap();
    assert_eq!(count.get::<_, i64>(0), 2);
}

#[tokio::test]
async fn nats_keeps_its_streams_over_stop_and_kill() {
    let nats = Nats::start().await.unwrap();
    let url = nats.url();
    let jetstream = async_nats::jetstream::new(nats.client().await.unwrap());
    jetstream
        .create_stream(async_nats::jetstream::stream::Config {
            name: "S".into(),
            subjects: vec!["s.>".into()],
            ..Default::default()
        })
        .await
        .unwrap();
    for end in [true, false] {
        jetstream
            .publish("s.a", "x".into())
            .await
            .unwrap()
            .await
            .unwrap();
        if end {
            nats.stop().await.unwrap();
        } else {
            nats.kill().await.unwrap();
        }
        nats.client().await.unwrap_err();
        nats.start_again().await.unwrap();
        assert_eq!(nats.url(), url);
        eventually(
            "the client to be back",
            Duration::from_secs(20),
            async || {
                jetstream.query_account().await?;
                Ok(Some(()))
            },
        )
        .await
        .unwrap();
    }
    let stream = jetstream.get_stream("S").await.unwrap();
    assert_eq!(stream.cached_info().state.messages, 2);
}

#[tokio::test]
async fn a_wrong_password_is_refused() {
    let postgres = Postgres::start().await.unwrap();
    let url = postgres
        .url("postgres")
        .replace(postgres.password(), "wrong");
    let error = tokio_postgres::connect(&url, tokio_postgres::NoTls)
        .await
        .err()
        .unwrap();
    assert_eq!(error.code().unwrap().code(), "28P01");
}

#[tokio::test]
async fn eventually_tells_what_was_awaited_and_the_last_state() {
    let deadline = Duration::from_millis(100);
    let outcome: Result<()> = eventually("ten approved", deadline, async || bail!("3 of 10")).await;
    let message = format!("{:#}", outcome.unwrap_err());
    assert!(
        message.contains("ten approved") && message.contains("3 of 10"),
        "{message}"
    );

    // A probe that hangs does not hang the test.
    let hung: Result<()> =
        eventually("an answer", deadline, async || std::future::pending().await).await;
    assert!(format!("{:#}", hung.unwrap_err()).contains("did not answer"));
}

/// This test program again, to play only `test`.
fn again(test: &str, role: &str) -> Command {
    let mut command = Command::new(env::current_exe().expect("a test knows its program"));
    command
        .args([test, "--exact", "--nocapture"])
        .env(ROLE, role)
        .stdin(Stdio::null());
    command
}

#[tokio::test]
async fn nothing_outlives_a_killed_test() {
    let notes = tempfile::tempdir().unwrap();
    let note = notes.path().join("note");
    let mut victim: Child = again("the_victim_of_a_kill", note.to_str().unwrap())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let text = eventually("the victim to be up", Duration::from_secs(60), async || {
        ensure!(victim.try_wait()?.is_none(), "the victim is gone");
        Ok(Some(fs::read_to_string(&note)?))
    })
    .await
    .unwrap();
    let mut lines = text.lines();
    let directory = PathBuf::from(lines.next().unwrap());
    let ports: Vec<u16> = lines.map(|line| line.parse().unwrap()).collect();
    assert_eq!(ports.len(), 2);
    for port in &ports {
        TcpStream::connect(("127.0.0.1", *port)).unwrap();
    }
    assert!(directory.exists());

    victim.kill().unwrap();
    victim.wait().unwrap();
    eventually("all to be gone", Duration::from_secs(20), async || {
        ensure!(!directory.exists(), "the directory stands");
        for port in &ports {
            ensure!(
                TcpStream::connect(("127.0.0.1", *port)).is_err(),
                "{port} answers"
            );
        }
        Ok(Some(()))
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn the_victim_of_a_kill() {
    let Some(note) = env::var_os(ROLE) else {
        return;
    };
    let guard = Guard::start().unwrap();
    let postgres = Postgres::start_with(&guard, &[]).await.unwrap();
    let nats = Nats::start_with(&guard, "").await.unwrap();
    let partial = PathBuf::from(&note).with_extension("partial");
    let text = format!(
        "{}\n{}\n{}\n",
        guard.directory().display(),
        postgres.port(),
        nats.monitoring_port()
    );
    fs::write(&partial, text).unwrap();
    fs::rename(&partial, &note).unwrap();
    std::future::pending::<()>().await;
}

#[tokio::test]
async fn what_is_dropped_is_gone_at_once() {
    let nats = Nats::start().await.unwrap();
    let directory = nats.log().path().parent().unwrap().to_owned();
    let port = nats.monitoring_port();
    assert!(directory.exists());
    drop(nats);
    assert!(!directory.exists());
    TcpStream::connect(("127.0.0.1", port)).unwrap_err();
}

#[test]
fn a_port_is_held_by_one_at_a_time() {
    let ports: Vec<Port> = (0..50).map(|_| Port::free().unwrap()).collect();
    let mut numbers: Vec<u16> = ports.iter().map(Port::number).collect();
    numbers.sort_unstable();
    numbers.dedup();
    assert_eq!(numbers.len(), 50);
    assert!(
        numbers
            .iter()
            .all(|number| (10_000..32_000).contains(number))
    );
}

#[test]
fn a_missing_tool_is_named_with_what_to_do() {
    let empty = tempfile::tempdir().unwrap();
    let output: Output = again("asks_for_nats", "yes")
        .env("PATH", empty.path())
        .env("HARNESS_CACHE", empty.path())
        .env_remove("NATS_SERVER")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    for part in [
        "python3",
        "install nats-server 2.12 or newer",
        "set NATS_SERVER",
    ] {
        assert!(said.contains(part), "{part:?} is not in: {said}");
    }

    let output = again("asks_for_nats", "yes")
        .env("NATS_SERVER", "/nowhere/nats-server")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(
        said.contains("NATS_SERVER=/nowhere/nats-server is no usable"),
        "{said}"
    );
}

#[test]
fn asks_for_nats() {
    if env::var_os(ROLE).is_some() {
        match tools::nats_server() {
            Ok(path) => println!("found {}", path.display()),
            Err(error) => println!("{error:#}"),
        }
    }
}

#[tokio::test]
async fn a_process_that_ends_by_itself_is_told_with_its_log() {
    let guard = Guard::start().unwrap();
    // It has no DATABASE_URL.
    let relay = Process::start(&guard, "relay", "cdc-relay", &[]).unwrap();
    let error = format!("{:#}", relay.wait_ready().await.unwrap_err());
    assert!(error.contains("relay ended by itself"), "{error}");
    assert!(error.contains("DATABASE_URL"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_whole_system_starts_and_its_books_are_read() {
    let mut system = System::start().await.unwrap();
    let euros = |minor_units| Money {
        minor_units,
        currency: "EUR".into(),
    };
    let customer = system
        .customers()
        .unwrap()
        .create_customer(CreateCustomerRequest {
            request_id: String::new(),
            name: "Ada".into(),
            credit_limit: Some(euros(1_000)),
        })
        .await
        .unwrap()
        .into_inner()
        .customer
        .unwrap();
    let order = |total| CreateOrderRequest {
        wait: None,
        request_id: String::new(),
        customer_id: customer.customer_id.clone(),
        total: Some(euros(total)),
    };
    for total in [600, 500] {
        system
            .orders()
            .unwrap()
            .create_order(order(total))
            .await
            .unwrap();
    }
    let books = books::settled(&system, Duration::from_secs(30))
        .await
        .unwrap();
    println!("{books}");
    books.assert_clean();
    assert_eq!(
        (books.orders("approved"), books.orders("cancelled")),
        (1, 1)
    );
    assert_eq!(books.cancelled("credit_limit_exceeded"), 1);
    assert_eq!(books.customers[0].reserved, 600);
    assert_eq!(books.streams["ORDERS"].messages(), 4);
    assert_eq!(books.streams["CUSTOMERS"].messages(), 3);

    // The books tell when something is wrong.
    let database = system.database(Side::Orders).await.unwrap();
    let spoiled = "UPDATE orders SET state = 'approved', cancellation_reason = NULL";
    database.batch_execute(spoiled).await.unwrap();
    let spoiled = books::audit(&system).await.unwrap();
    assert_eq!(spoiled.violations.len(), 1, "{spoiled}");

    let relay = system.process(Side::Orders.relay());
    relay.restart().await.unwrap();
    assert!(relay.terminate().await.unwrap().success());
    let replica = system.add_replica(Side::Orders).await.unwrap();
    assert_eq!(replica, "order-service-2");
}
