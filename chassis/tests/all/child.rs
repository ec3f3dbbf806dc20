//! This test binary as a process of its own, because signals, logs and the end of a process are
//! global: it runs itself again with the scenario in a variable.

use std::{
    env,
    future::pending,
    process::{self, ExitStatus, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use chassis::{config, tasks::Tasks, telemetry, trace};
use tokio::{
    io::{AsyncBufReadExt as _, BufReader, Lines},
    process::{ChildStderr, Command},
    time::timeout,
};
use tracing::{info, info_span, warn};

const SCENARIO: &str = "CHASSIS_TESTS_SCENARIO";
const SOON: Duration = Duration::from_secs(20);
pub(crate) const TRACEPARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

pub(crate) struct Child {
    child: tokio::process::Child,
    lines: Lines<BufReader<ChildStderr>>,
}

impl Child {
    pub(crate) fn start(scenario: &str, variables: &[(&str, &str)]) -> Result<Self> {
        let mut child = Command::new(env::current_exe()?)
            .args(["child::scenario", "--exact", "--nocapture"])
            .env(SCENARIO, scenario)
            .envs(variables.iter().copied())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let stderr = child.stderr.take().context("no stderr")?;
        let lines = BufReader::new(stderr).lines();
        Ok(Self { child, lines })
    }

    /// The first line that contains `text`.
    pub(crate) async fn line(&mut self, text: &str) -> Result<String> {
        let mut seen = Vec::new();
        let reading = async {
            while let Some(line) = self.lines.next_line().await? {
                if line.contains(text) {
                    return Ok(line);
                }
                seen.push(line);
            }
            bail!("the process ended")
        };
        let read = timeout(SOON, reading).await.context("too late").flatten();
        read.with_context(|| format!("no line with {text:?} after {seen:#?}"))
    }

    pub(crate) async fn signal(&self, name: &str) -> Result<()> {
        let id = self.child.id().context("ended already")?.to_string();
        let status = Command::new("kill")
            .args(["-s", name, &id])
            .status()
            .await?;
        anyhow::ensure!(status.success(), "kill: {status}");
        Ok(())
    }

    pub(crate) async fn ended(mut self) -> Result<ExitStatus> {
        Ok(timeout(SOON, self.child.wait()).await??)
    }
}

/// Not a test of its own: the child's `main`.
#[test]
fn scenario() {
    let Ok(name) = env::var(SCENARIO) else {
        return;
    };
    // One worker: no task says that it is up before `Tasks::run` waits, and a signal is one to drain for.
    // Where spans are sent the last of them need another, while the end of the process waits for them.
    let workers = 1 + usize::from(env::var_os("OTEL_EXPORTER_OTLP_ENDPOINT").is_some());
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(workers)
        .enable_all()
        .build()
        .unwrap();
    let ended = runtime.spawn(async move { perform(&name).await });
    let ended = runtime.block_on(ended).unwrap();
    if let Err(error) = &ended {
        eprintln!("error: {error:#}");
    }
    process::exit(ended.is_err().into());
}

async fn perform(scenario: &str) -> Result<()> {
    let (log_filter, log_format) = match scenario {
        "quiet" => ("warn", config::LogFormat::Text),
        _ => ("info", config::LogFormat::Json),
    };
    let config = config::Telemetry {
        log_filter: log_filter.to_owned(),
        log_format,
        otlp_endpoint: env::var("OTEL_EXPORTER_OTLP_ENDPOINT").ok(),
    };
    let _telemetry = telemetry::init(&config, "child")?;
    let deadline_seconds = if scenario == "overdue" { 1 } else { 600 };
    let mut tasks = Tasks::new(&config::Shutdown { deadline_seconds });
    let token = tasks.token();
    match scenario {
        "starting" => {
            info!("up");
            pending::<()>().await;
        }
        "drains" => tasks.spawn("drains", async move {
            info!("up");
            token.cancelled().await;
            info!("drained");
            Ok(())
        }),
        "overdue" | "stuck" => {
            tasks.spawn("stuck", pending());
            tasks.spawn("quick", async move {
                info!("up");
                token.cancelled().await;
                Ok(())
            });
        }
        "json" | "quiet" => log(),
        "panics" => tasks.spawn("panics", async { panic!("on purpose") }),
        other => bail!("no scenario {other}"),
    }
    tasks.run().await
}

fn log() {
    let mut headers = axum::http::HeaderMap::new();
    headers.insert("traceparent", TRACEPARENT.parse().unwrap());
    let span = info_span!("work", part = 7);
    trace::continue_from_http(&span, &headers);
    span.in_scope(|| {
        info!(answer = 42, "within");
        warn!("loud");
    });
    warn!("without");
}
