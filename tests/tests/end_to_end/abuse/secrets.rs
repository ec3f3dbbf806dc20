//! Wrong credentials: each program says that they are wrong, and does not show them.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use harness::{Guard, Nats, Postgres, Process, binary, eventually};

const SOON: Duration = Duration::from_secs(60);

/// Looked for in all that the programs say.
const SECRET: &str = "s3cr3t-Qx7";

/// What each may say of Postgres' and NATS' refusals.
const REFUSED: [&str; 3] = ["password authentication failed", "uthorization", "is not a"];

struct Servers {
    guard: Guard,
    postgres: Postgres,
    nats: Nats,
}

impl Servers {
    async fn start() -> Result<Self> {
        let guard = Guard::start()?;
        let postgres = Postgres::start_with(&guard, &[]).await?;
        let wanted = "authorization: { users: [ { user: ana, password: right } ] }";
        let nats = Nats::start_with(&guard, wanted).await?;
        Ok(Self {
            guard,
            postgres,
            nats,
        })
    }

    /// How NATS is logged in to, each time wrongly.
    fn logins(&self) -> [Vec<(&'static str, String)>; 3] {
        let url = self.nats.url();
        let by_url = url.replace("://", &format!("://ana:{SECRET}@"));
        [
            vec![
                ("NATS_URL", url.clone()),
                ("NATS_USER", "ana".to_owned()),
                ("NATS_PASSWORD", SECRET.to_owned()),
            ],
            vec![("NATS_URL", url), ("NATS_TOKEN", SECRET.to_owned())],
            vec![("NATS_URL", by_url)],
        ]
    }
}

fn shows_none(program: &str, said: &str, words: &[&str]) -> Result<()> {
    let told = words.iter().any(|word| said.contains(word));
    ensure!(told, "{program} does not say what is wrong:\n{said}");
    ensure!(
        !said.contains(SECRET),
        "{program} shows the secret:\n{said}"
    );
    // Nor as it may stand in a URL, or in the form of Basic authentication.
    ensure!(
        !said.contains("s3cr3t"),
        "{program} shows half the secret:\n{said}"
    );
    Ok(())
}

/// Services and relay: each tries on, or ends, and says why.
async fn process(servers: &Servers, program: &str, environment: &[(&str, String)]) -> Result<()> {
    let mut all = vec![
        ("AUTH", "off"),
        ("GRPC_LISTEN", "127.0.0.1:0"),
        ("CDC_STREAM", "EVENTS"),
        ("CDC_STREAM_SUBJECTS", "events.>"),
        ("LOG_FILTER", "trace"),
    ];
    all.extend(
        environment
            .iter()
            .map(|(key, value)| (*key, value.as_str())),
    );
    let process = Process::start(&servers.guard, program, program, &all)?;
    let said = eventually("the log to say what is wrong", SOON, async || {
        let said = process.log().text();
        let told = REFUSED.iter().any(|word| said.contains(word));
        Ok(told.then_some(said))
    })
    .await
    .with_context(|| process.log().tail())?;
    shows_none(program, &said, &REFUSED)?;
    // By then it has said more, perhaps.
    process.kill().await?;
    shows_none(program, &process.log().text(), &REFUSED)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn services_and_relay_do_not_show_a_wrong_password() -> Result<()> {
    let servers = Servers::start().await?;
    let right = servers.postgres.url("postgres");
    let wrong = right.replace(servers.postgres.password(), SECRET);
    for program in ["order-service", "customer-service", "cdc-relay"] {
        for login in servers.logins() {
            let mut environment = login;
            environment.push(("DATABASE_URL", right.clone()));
            process(&servers, program, &environment).await?;
        }
        // With these it is let in.
        let nats = [
            ("NATS_URL", servers.nats.url()),
            ("NATS_USER", "ana".to_owned()),
            ("NATS_PASSWORD", "right".to_owned()),
        ];
        for url in [wrong.clone(), wrong.replace("@127.0.0.1:", "@127.0.0.1:x")] {
            let database = ("DATABASE_URL", url.clone());
            let environment = [&nats[..], &[database]].concat();
            process(&servers, program, &environment).await?;
            if program != "cdc-relay" {
                let owner = ("MIGRATIONS_DATABASE_URL", url);
                let database = ("DATABASE_URL", right.clone());
                let environment = [&nats[..], &[database, owner]].concat();
                process(&servers, program, &environment).await?;
            }
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn shop_and_loadgen_do_not_show_a_wrong_password() -> Result<()> {
    let servers = Servers::start().await?;
    let shop: &[&str] = &["--via", "nats", "customer", "create", "Ada", "200", "EUR"];
    let load: &[&str] = &[
        "--via",
        "nats",
        "--rate",
        "1",
        "--duration",
        "1s",
        "--warm-up",
        "0s",
    ];
    for (program, arguments) in [("shop", shop), ("loadgen", load)] {
        for login in servers.logins() {
            let command = tokio::process::Command::new(binary(program)?)
                .args(arguments)
                .envs(login)
                .env("LOG_FILTER", "trace")
                .env("RUST_LOG", "trace")
                .env("SHOP_TIMEOUT", "1s")
                .output();
            let output = command.await?;
            ensure!(!output.status.success(), "{program} went on");
            let said = [output.stdout, output.stderr].concat();
            shows_none(program, &String::from_utf8_lossy(&said), &REFUSED)?;
        }
    }
    Ok(())
}
