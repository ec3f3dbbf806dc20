//! A private Postgres cluster for a test: logical replication on, passwords checked, on a port and in
//! a directory of its own.

mod standby;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use tokio_postgres::NoTls;
use uuid::Uuid;

use crate::child::{Running, ready};
use crate::guard::Guard;
use crate::log::Log;
use crate::port::Port;
use crate::tools;
use crate::user::Server;

/// Crash recovery after a kill is part of a start.
const START_DEADLINE: Duration = Duration::from_secs(60);
/// A fast shutdown waits for its logical replication clients to take all WAL.
const STOP_DEADLINE: Duration = Duration::from_secs(60);
/// How many times a port that was taken in between is replaced.
const PORT_TRIES: usize = 5;
/// Longer paths than this do not fit a socket's address, on any Unix.
const SOCKET_PATH_MAX: usize = 80;

const SETTINGS: &str = "
listen_addresses = '127.0.0.1'
wal_level = logical
max_wal_senders = 32
max_replication_slots = 32
max_connections = 200
# Many clusters may run side by side on a small machine.
shared_buffers = 32MB
# A kill of the process alone would survive without, but its time is part of what is tested.
fsync = on
password_encryption = scram-sha-256
log_line_prefix = '%m [%p] %a@%d '
";

/// A running cluster; it ends when this value is dropped, or when the test process dies.
/// The superuser is `postgres`; passwords are checked by SCRAM-SHA-256.
#[derive(Debug)]
pub struct Postgres {
    // Ended first, before its port is let go and its directory removed.
    running: Mutex<Option<Running>>,
    bin: PathBuf,
    user: Server,
    directory: PathBuf,
    log: Log,
    /// Besides the harness's own.
    settings: Vec<(String, String)>,
    password: String,
    port: Port,
    guard: Guard,
}

impl Postgres {
    /// Starts a cluster of its own.
    ///
    /// # Errors
    /// When no Postgres is found or can be fetched, or it does not start: with the end of its log.
    pub async fn start() -> Result<Self> {
        Self::start_with(&Guard::start()?, &[]).await
    }

    /// Starts a cluster in the guard's directory, with settings besides the harness's own: names and
    /// values as in `postgresql.conf`.
    ///
    /// # Errors
    /// As [`Postgres::start`].
    pub async fn start_with(guard: &Guard, settings: &[(&str, &str)]) -> Result<Self> {
        let bin = tokio::task::spawn_blocking(tools::postgres_bin).await??;
        Self::start_from(guard, bin, settings).await
    }

    /// The same, with the server programs in the folder `bin`: [`tools::postgres_or_skip`] finds those
    /// of a version.
    ///
    /// # Errors
    /// As [`Postgres::start`].
    pub async fn start_from(
        guard: &Guard,
        bin: PathBuf,
        settings: &[(&str, &str)],
    ) -> Result<Self> {
        let own = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        let mut postgres = Self::prepare(guard, bin, settings.iter().map(own).collect())?;
        let (bin, user) = (&postgres.bin, &postgres.user);
        initdb(bin, user, &postgres.directory, &postgres.password).await?;
        postgres.configure()?;
        postgres.start_on_a_free_port().await?;
        Ok(postgres)
    }

    /// All that a server needs but its data.
    fn prepare(guard: &Guard, bin: PathBuf, settings: Vec<(String, String)>) -> Result<Self> {
        let user = Server::user()?;
        let directory = guard.make_directory(&format!("postgres-{}", Uuid::now_v7().simple()))?;
        user.own(&directory)?;
        Ok(Self {
            running: Mutex::new(None),
            bin,
            user,
            log: Log::new("Postgres", directory.join("log")),
            directory,
            settings,
            password: Uuid::now_v7().simple().to_string(),
            port: Port::free()?,
            guard: guard.clone(),
        })
    }

    /// Writes the settings, over those that `ALTER SYSTEM` made.
    fn configure(&self) -> Result<()> {
        let mut configuration = SETTINGS.to_owned();
        for (name, value) in &self.settings {
            configuration.push_str(&format!("{name} = '{}'\n", value.replace('\'', "''")));
        }
        let path = self.data().join("postgresql.auto.conf");
        fs::write(&path, configuration)?;
        self.user.own(&path)
    }

    async fn start_on_a_free_port(&mut self) -> Result<()> {
        for _ in 1..PORT_TRIES {
            match self.start_again().await {
                Err(_) if self.port_was_taken() => self.port = Port::free()?,
                started => return started,
            }
        }
        self.start_again().await
    }

    fn data(&self) -> PathBuf {
        self.directory.join("data")
    }

    /// Changes a setting that needs no restart, in the running server.
    ///
    /// # Errors
    /// When the server refuses it.
    pub async fn set(&self, name: &str, value: &str) -> Result<()> {
        let client = self.connect("postgres").await?;
        let value = value.replace('\'', "''");
        let statement = format!("ALTER SYSTEM SET {name} = '{value}'");
        client.batch_execute(&statement).await?;
        let reload = client.query_one("SELECT pg_reload_conf()", &[]).await?;
        ensure!(reload.get::<_, bool>(0), "the settings were not read again");
        Ok(())
    }

    /// The port on 127.0.0.1. It stays the same over [`Postgres::start_again`].
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port.number()
    }

    /// The superuser's password.
    #[must_use]
    pub fn password(&self) -> &str {
        &self.password
    }

    /// A libpq URL of a database, with user and password.
    #[must_use]
    pub fn url(&self, database: &str) -> String {
        self.url_at(self.port(), database)
    }

    /// The same by another port, such as a [`crate::Link`]'s.
    #[must_use]
    pub fn url_at(&self, port: u16, database: &str) -> String {
        format!(
            "postgres://postgres:{}@127.0.0.1:{port}/{database}",
            self.password
        )
    }

    /// The same for another role, which has the superuser's password.
    #[must_use]
    pub fn url_as(&self, role: &str, database: &str) -> String {
        let (password, port) = (&self.password, self.port());
        format!("postgres://{role}:{password}@127.0.0.1:{port}/{database}")
    }

    /// Where the server's programs are, `psql` and its like beside them (maybe).
    #[must_use]
    pub fn bin(&self) -> &Path {
        &self.bin
    }

    /// The server's log.
    #[must_use]
    pub fn log(&self) -> &Log {
        &self.log
    }

    /// The id of the server's first process, while it runs.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.slot().as_ref().map(Running::pid)
    }

    /// Creates an empty database.
    ///
    /// # Errors
    /// When it exists, or the server cannot be reached.
    pub async fn create_database(&self, name: &str) -> Result<()> {
        let client = self.connect("postgres").await?;
        client
            .batch_execute(&format!(
                "CREATE DATABASE \"{}\"",
                name.replace('"', "\"\"")
            ))
            .await
            .with_context(|| format!("cannot create the database {name}"))
    }

    /// A client; its connection is driven by a task of its own.
    ///
    /// # Errors
    /// When the server cannot be reached or has no such database.
    pub async fn connect(&self, database: &str) -> Result<tokio_postgres::Client> {
        self.connect_as("postgres", database).await
    }

    /// A client of another role, which has the superuser's password.
    ///
    /// # Errors
    /// When the server cannot be reached, or refuses the role.
    pub async fn connect_as(&self, role: &str, database: &str) -> Result<tokio_postgres::Client> {
        let (client, connection) = tokio_postgres::connect(&self.url_as(role, database), NoTls)
            .await
            .with_context(|| format!("cannot connect to the test database {database} as {role}"))?;
        tokio::spawn(connection);
        Ok(client)
    }

    /// Stops it as an operator would (fast shutdown: connections are closed, a checkpoint written).
    /// A client that streams WAL and does not take it all holds this up.
    ///
    /// # Errors
    /// When it does not run, or does not end in time.
    pub async fn stop(&self) -> Result<()> {
        self.end("INT").await
    }

    /// Ends all its processes at once, without a checkpoint: crash recovery follows at the next start.
    ///
    /// # Errors
    /// When it does not run.
    pub async fn kill(&self) -> Result<()> {
        // Not SIGKILL, after which the old backends would still hold the shared memory for a while.
        self.end("QUIT").await
    }

    /// Starts it again after [`Postgres::stop`] or [`Postgres::kill`]: same port, same data. Returns
    /// when it takes connections.
    ///
    /// # Errors
    /// When it runs already or does not start: with the end of its log.
    pub async fn start_again(&self) -> Result<()> {
        ensure!(self.slot().is_none(), "this Postgres runs already");
        self.log.turn()?;
        let mut command = self.command("postgres");
        command
            .arg("-D")
            .arg(self.data())
            .args(["-c", &format!("port={}", self.port())])
            .args([
                "-c",
                &format!("unix_socket_directories={}", self.socket_directory()),
            ]);
        let mut running = Running::start("postgres", command, &self.log, "QUIT", &self.guard)?;
        let alive = || running.ensure_alive(&self.log);
        ready("Postgres", START_DEADLINE, &self.log, alive, async || {
            let client = self.connect("postgres").await?;
            client.simple_query("SELECT 1").await?;
            Ok(())
        })
        .await?;
        *self.slot() = Some(running);
        Ok(())
    }

    /// Copies its files, while it is stopped, under a name.
    ///
    /// # Errors
    /// When it runs, or the files cannot be copied.
    pub fn back_up(&self, name: &str) -> Result<()> {
        ensure!(self.slot().is_none(), "this Postgres runs");
        crate::backup::copy(&self.directory.join("data"), &self.directory.join(name))
    }

    /// Puts the files of [`Postgres::back_up`] in the place of its own.
    ///
    /// # Errors
    /// As [`Postgres::back_up`].
    pub fn restore(&self, name: &str) -> Result<()> {
        ensure!(self.slot().is_none(), "this Postgres runs");
        crate::backup::copy(&self.directory.join(name), &self.directory.join("data"))
    }

    fn socket_directory(&self) -> String {
        match self.directory.to_str() {
            Some(path) if path.len() <= SOCKET_PATH_MAX => path.to_owned(),
            _ => String::new(),
        }
    }

    fn port_was_taken(&self) -> bool {
        self.log.tail().contains("could not bind")
    }

    fn command(&self, program: &str) -> Command {
        server_command(&self.bin.join(program), &self.user, &self.directory)
    }

    fn slot(&self) -> std::sync::MutexGuard<'_, Option<Running>> {
        self.running
            .lock()
            .expect("a user of this Postgres panicked")
    }

    async fn end(&self, signal: &str) -> Result<()> {
        let running = self.slot().take().context("the server does not run")?;
        let ended = running.end(signal, STOP_DEADLINE).await;
        ended.map(drop).with_context(|| self.log.tail())
    }
}

async fn initdb(bin: &Path, user: &Server, directory: &Path, password: &str) -> Result<()> {
    let password_file = directory.join("password");
    fs::write(&password_file, password)?;
    user.own(&password_file)?;
    let mut command = server_command(&bin.join("initdb"), user, directory);
    command
        .arg("--pgdata")
        .arg(directory.join("data"))
        .arg("--pwfile")
        .arg(&password_file)
        .args(["--username=postgres", "--auth=scram-sha-256"])
        .args(["--encoding=UTF8", "--locale=C"])
        .args(["--no-sync", "--no-instructions"]);
    let output = tokio::process::Command::from(command)
        .kill_on_drop(true)
        .output()
        .await
        .context("cannot run initdb")?;
    if !output.status.success() {
        bail!(
            "initdb failed ({}): {}",
            output.status,
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    fs::remove_file(&password_file)?;
    Ok(())
}

/// A server program, run by its user, without the caller's PG… variables.
fn server_command(program: &Path, user: &Server, directory: &Path) -> Command {
    let mut command = Command::new(program);
    user.run_as(&mut command);
    command
        .current_dir(directory)
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .env("LC_ALL", "C");
    command
}
