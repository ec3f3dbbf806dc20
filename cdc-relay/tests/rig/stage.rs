//! Where faults are played: a Postgres, one nats-server or a cluster, and relays, each with links of its
//! own to both, so that one can be cut off and not the others.

use anyhow::Result;
use async_nats::Client as NatsClient;
use harness::{Guard, Link, Nats, NatsCluster, Postgres, Process};
use tokio_postgres::Client;

use super::{
    DATABASE, STREAM,
    oracle::{Oracle, TABLES, Writers},
};

/// The servers of the stream.
pub enum Servers {
    One(Box<Nats>),
    Cluster(NatsCluster),
}

impl Servers {
    pub async fn start(guard: &Guard, size: usize) -> Result<Self> {
        Ok(match size {
            1 => Self::One(Box::new(Nats::start_with(guard, "").await?)),
            size => Self::Cluster(NatsCluster::start(guard, size).await?),
        })
    }

    pub fn size(&self) -> usize {
        self.each().len()
    }

    pub fn each(&self) -> Vec<&Nats> {
        match self {
            Self::One(nats) => vec![nats],
            Self::Cluster(cluster) => (0..cluster.size()).map(|at| cluster.node(at)).collect(),
        }
    }

    pub async fn client(&self) -> Result<NatsClient> {
        match self {
            Self::One(nats) => nats.client().await,
            Self::Cluster(cluster) => cluster.client().await,
        }
    }

    /// Waits until all are healthy.
    pub async fn wait_ready(&self) -> Result<()> {
        for nats in self.each() {
            nats.wait_ready(super::SOON * 3).await?;
        }
        Ok(())
    }

    /// Where the stream's leader is.
    pub async fn leader(&self) -> Result<usize> {
        match self {
            Self::One(_) => Ok(0),
            Self::Cluster(cluster) => cluster.leader(STREAM).await,
        }
    }

    pub fn cluster(&self) -> Option<&NatsCluster> {
        match self {
            Self::One(_) => None,
            Self::Cluster(cluster) => Some(cluster),
        }
    }
}

/// A relay with its own ways to its peers.
pub struct Player {
    pub relay: Process,
    pub to_postgres: Link,
    pub to_nats: Vec<Link>,
}

impl Player {
    /// From everything, as when its host loses its network.
    pub fn cut_off(&self) {
        self.to_postgres.cut();
        self.to_nats.iter().for_each(Link::cut);
    }

    pub fn heal(&self) {
        self.to_postgres.heal();
        self.to_nats.iter().for_each(Link::heal);
    }

    pub async fn is_streaming(&self) -> Result<bool> {
        Ok(self.relay.metric("cdc_relay_streaming").await? == Some(1.0))
    }
}

pub struct Stage {
    pub players: Vec<Player>,
    pub servers: Servers,
    pub postgres: Postgres,
    guard: Guard,
}

impl Stage {
    /// Servers and an empty outbox; `size` of them keep the stream.
    pub async fn start(size: usize) -> Result<Self> {
        let guard = Guard::start()?;
        let (postgres, servers) = tokio::try_join!(
            Postgres::start_with(&guard, &[]),
            Servers::start(&guard, size)
        )?;
        postgres.create_database(DATABASE).await?;
        let sql = postgres.connect(DATABASE).await?;
        sql.batch_execute(TABLES).await?;
        Ok(Self {
            players: Vec::new(),
            servers,
            postgres,
            guard,
        })
    }

    pub async fn sql(&self) -> Result<Client> {
        self.postgres.connect(DATABASE).await
    }

    /// Adds a relay on `slot`. Does not wait until it is ready.
    pub async fn add(&mut self, slot: &str, environment: &[(&str, &str)]) -> Result<()> {
        let to_postgres = Link::to(self.postgres.port()).await?;
        let mut to_nats = Vec::new();
        for nats in self.servers.each() {
            to_nats.push(Link::to(nats.port()).await?);
        }
        let urls: Vec<_> = to_nats
            .iter()
            .map(|link| format!("nats://127.0.0.1:{}", link.port()))
            .collect();
        let (database, urls) = (
            self.postgres.url_at(to_postgres.port(), DATABASE),
            urls.join(","),
        );
        let replicas = self.servers.size().to_string();
        let mut all = vec![
            ("DATABASE_URL", database.as_str()),
            ("NATS_URL", &urls),
            ("CDC_SLOT", slot),
            ("CDC_STREAM", STREAM),
            ("CDC_STREAM_SUBJECTS", "events.>"),
            ("CDC_STREAM_REPLICAS", &replicas),
            ("CDC_STREAM_DUPLICATE_WINDOW_SECONDS", "1"),
            ("CDC_WAL_SENDER_TIMEOUT_SECONDS", "3"),
        ];
        all.extend(environment);
        let name = format!("relay-{}", self.players.len() + 1);
        let relay = Process::start(&self.guard, &name, "cdc-relay", &all)?;
        self.players.push(Player {
            relay,
            to_postgres,
            to_nats,
        });
        Ok(())
    }

    /// The relay that has the slot, waiting for one that does.
    pub async fn active(&self) -> Result<usize> {
        harness::eventually("a relay that streams", super::SOON, async || {
            for (at, player) in self.players.iter().enumerate() {
                if player.is_streaming().await.unwrap_or(false) {
                    return Ok(Some(at));
                }
            }
            Ok(None)
        })
        .await
    }

    pub fn writers(&self, round: usize) -> Writers {
        Writers::start(&self.postgres.url(DATABASE), round)
    }

    pub async fn check(&self, oracle: &mut Oracle) -> Result<()> {
        oracle
            .check(&self.sql().await?, &self.servers.client().await?)
            .await
    }
}
