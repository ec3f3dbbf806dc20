//! What the tests stand on: servers, a database and a stream for each test.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use async_nats::HeaderMap;
use async_nats::jetstream::consumer::{Info, PullConsumer};
use async_nats::jetstream::message::StreamMessage;
use async_nats::jetstream::{self, stream};
use deadpool_postgres::{Manager, ManagerConfig, Pool, RecyclingMethod};
use futures_util::StreamExt;
use mailbox::consumer::{self, Config};
use mailbox::envelope::{AGGREGATE_ID, EVENT_ID, EVENT_TYPE};
use tokio::sync::OnceCell;
use tokio::task::JoinHandle;
use tokio_postgres::NoTls;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

pub(crate) use crate::script::Script;

pub(crate) const SOON: Duration = Duration::from_secs(30);

/// Short, so that what is not acknowledged comes again while a test waits.
pub(crate) const ACK_WAIT: Duration = Duration::from_secs(4);

pub(crate) struct Servers {
    pub(crate) postgres: harness::Postgres,
    pub(crate) nats: harness::Nats,
}

impl Servers {
    async fn start() -> Result<Arc<Self>> {
        let (postgres, nats) =
            tokio::try_join!(harness::Postgres::start(), harness::Nats::start())?;
        Ok(Arc::new(Self { postgres, nats }))
    }
}

/// A database with the mailbox in it, and the name of a stream that does not exist yet.
pub(crate) struct World {
    pub(crate) servers: Arc<Servers>,
    pub(crate) pool: Pool,
    pub(crate) nats: async_nats::Client,
    pub(crate) jetstream: jetstream::Context,
    pub(crate) name: String,
}

impl World {
    /// On servers that other tests use too.
    pub(crate) async fn shared() -> Result<Self> {
        static SERVERS: OnceCell<Arc<Servers>> = OnceCell::const_new();
        let servers = SERVERS.get_or_try_init(Servers::start).await?;
        Self::on(servers.clone()).await
    }

    /// On servers of its own, to be stopped and started.
    pub(crate) async fn alone() -> Result<Self> {
        Self::on(Servers::start().await?).await
    }

    /// On servers that other tests use too, with Postgres at the end of a link.
    pub(crate) async fn linked() -> Result<(Self, Arc<harness::Link>)> {
        let mut world = Self::shared().await?;
        let postgres = &world.servers.postgres;
        let link = harness::Link::to(postgres.port()).await?;
        world.pool = pool(&postgres.url_at(link.port(), &world.name))?;
        Ok((world, Arc::new(link)))
    }

    async fn on(servers: Arc<Servers>) -> Result<Self> {
        let name = format!("t{}", Uuid::now_v7().simple());
        servers.postgres.create_database(&name).await?;
        let nats = servers.nats.client().await?;
        let world = Self {
            pool: pool(&servers.postgres.url(&name))?,
            jetstream: jetstream::new(nats.clone()),
            nats,
            servers,
            name,
        };
        let mut client = world.pool.get().await?;
        mailbox::migrations().run_async(&mut **client).await?;
        client.batch_execute(APPLIED).await?;
        drop(client);
        Ok(world)
    }

    pub(crate) fn config(&self) -> Config {
        let filters = [format!("{}.>", self.name)];
        let mut config = Config::new(&self.name, &self.name, filters);
        config.ack_wait = ACK_WAIT;
        config
    }

    pub(crate) async fn create_stream(&self) -> Result<()> {
        let config = stream::Config {
            name: self.name.clone(),
            subjects: vec![format!("{}.>", self.name)],
            ..stream::Config::default()
        };
        self.jetstream.create_stream(config).await?;
        Ok(())
    }

    /// Publishes events with these payloads; returns their ids.
    pub(crate) async fn publish(
        &self,
        payloads: impl IntoIterator<Item = impl Into<String>>,
    ) -> Result<Vec<Uuid>> {
        let mut ids = Vec::new();
        let mut acknowledgements = Vec::new();
        for payload in payloads {
            let id = Uuid::now_v7();
            let mut headers = HeaderMap::new();
            headers.insert(EVENT_ID, id.to_string());
            headers.insert(EVENT_TYPE, "test.v1.Happened");
            headers.insert(AGGREGATE_ID, "a thing");
            acknowledgements.push(self.publish_raw(headers, payload.into()).await?);
            ids.push(id);
        }
        for acknowledgement in acknowledgements {
            acknowledgement.await?;
        }
        Ok(ids)
    }

    pub(crate) async fn publish_raw(
        &self,
        headers: HeaderMap,
        payload: String,
    ) -> Result<jetstream::context::PublishAckFuture> {
        let subject = format!("{}.test.v1.Happened", self.name);
        let sent = self
            .jetstream
            .publish_with_headers(subject, headers, payload.into());
        Ok(sent.await?)
    }

    /// Starts a replica of the consumer, with a connection to NATS of its own.
    pub(crate) async fn consume(&self, script: &Script) -> Result<Replica> {
        self.consume_with(script, self.config()).await
    }

    /// Consumes whatever the stream holds, until all of it is settled.
    pub(crate) async fn consume_all(&self) -> Result<()> {
        let replica = self.consume(&Script::default()).await?;
        harness::eventually("the durable consumer", SOON, async || {
            Ok(self.durable().await.ok())
        })
        .await?;
        self.settled().await?;
        replica.stop().await
    }

    pub(crate) async fn consume_with(&self, script: &Script, config: Config) -> Result<Replica> {
        let client = self.servers.nats.client().await?;
        let token = CancellationToken::new();
        let run = consumer::run(
            self.pool.clone(),
            client,
            config,
            script.clone(),
            token.clone(),
        );
        let task = tokio::spawn(run);
        Ok(Replica { task, token })
    }

    /// Payloads of what has been applied, in order of application.
    pub(crate) async fn applied(&self) -> Result<Vec<String>> {
        self.column("SELECT payload FROM applied ORDER BY nr").await
    }

    /// One column of text.
    pub(crate) async fn column(&self, query: &str) -> Result<Vec<String>> {
        let client = self.pool.get().await?;
        let rows = client.query(query, &[]).await?;
        Ok(rows.iter().map(|row| row.get(0)).collect())
    }

    pub(crate) async fn count(&self, query: &str) -> Result<i64> {
        let client = self.pool.get().await?;
        Ok(client.query_one(query, &[]).await?.get(0))
    }

    pub(crate) async fn durable(&self) -> Result<Info> {
        let stream = self.jetstream.get_stream(&self.name).await?;
        Ok(stream.consumer_info(&self.name).await?)
    }

    /// The subjects that the durable consumer reads.
    pub(crate) async fn filters(&self) -> Result<Vec<String>> {
        let present = self.durable().await?.config;
        let one = Some(present.filter_subject).filter(|f| !f.is_empty());
        Ok(present.filter_subjects.into_iter().chain(one).collect())
    }

    pub(crate) async fn delete_durable(&self) -> Result<()> {
        let stream = self.jetstream.get_stream(&self.name).await?;
        stream.delete_consumer(&self.name).await?;
        Ok(())
    }

    /// What another replica would be delivered now.
    pub(crate) async fn fetch(&self, max: usize) -> Result<Vec<jetstream::Message>> {
        let stream = self.jetstream.get_stream(&self.name).await?;
        let consumer: PullConsumer = match stream.get_consumer(&self.name).await {
            Ok(consumer) => consumer,
            Err(error) => bail!(error),
        };
        let mut batch = consumer.fetch().max_messages(max).messages().await?;
        let mut messages = Vec::new();
        while let Some(Ok(message)) = batch.next().await {
            messages.push(message);
        }
        Ok(messages)
    }

    /// Waits until every message of the stream is acknowledged or terminated.
    pub(crate) async fn settled(&self) -> Result<()> {
        harness::eventually("all messages to be settled", SOON, async || {
            let info = self.durable().await?;
            if info.num_pending == 0 && info.num_ack_pending == 0 {
                return Ok(Some(()));
            }
            bail!(
                "{} pending, {} unacknowledged",
                info.num_pending,
                info.num_ack_pending
            )
        })
        .await
    }

    pub(crate) async fn dead_letters(&self) -> Result<Vec<StreamMessage>> {
        let stream = self.jetstream.get_stream("DEAD_LETTERS").await?;
        let subject = format!("dead.{}", self.name);
        let mut letters = Vec::new();
        let mut from = 1;
        while let Ok(letter) = stream
            .raw_message_builder()
            .sequence(from)
            .next_by_subject(&subject)
            .send()
            .await
        {
            from = letter.sequence + 1;
            letters.push(letter);
        }
        Ok(letters)
    }
}

/// Repeats show as two rows; `cost` is refused at once and `deferred` at the commit.
const APPLIED: &str = "
CREATE TABLE applied (nr bigserial, event_id uuid, payload text, tx bigint DEFAULT txid_current(),
    cost int CONSTRAINT cost_not_negative CHECK (cost >= 0));
CREATE TABLE once (payload text CONSTRAINT only_once UNIQUE DEFERRABLE INITIALLY DEFERRED);";

/// A subscriber that hears nothing, to be kept beside the one of a test's own thread. Where there is one alone,
/// `tracing` asks the thread that first meets a span or an event whether anybody wants it, and that may be another
/// test's, with no subscriber: nobody gets it from then on.
pub(crate) fn subscriber_beside() -> tracing::Dispatch {
    tracing::Dispatch::new(tracing_subscriber::registry())
}

pub(crate) fn pool(url: &str) -> Result<Pool> {
    let config = ManagerConfig {
        recycling_method: RecyclingMethod::Fast,
    };
    let manager = Manager::from_config(url.parse()?, NoTls, config);
    Ok(Pool::builder(manager).max_size(8).build()?)
}

pub(crate) struct Replica {
    task: JoinHandle<Result<(), consumer::Error>>,
    token: CancellationToken,
}

impl Replica {
    /// Ends it in order.
    pub(crate) async fn stop(self) -> Result<()> {
        self.token.cancel();
        self.ended().await
    }

    pub(crate) async fn ended(self) -> Result<()> {
        let ended = tokio::time::timeout(SOON, self.task).await;
        Ok(ended.context("the consumer did not end")???)
    }

    /// Ends it as a crash would: nothing more is said to anybody.
    pub(crate) async fn crash(self) {
        self.task.abort();
        let _ = self.task.await;
    }
}

pub(crate) fn numbered(count: usize) -> impl Iterator<Item = String> {
    (0..count).map(|n| n.to_string())
}

pub(crate) fn header<'a>(message: &'a StreamMessage, name: &'static str) -> &'a str {
    message.headers.get(name).map_or("", |value| value.as_str())
}
