//! Several nats-servers as one JetStream cluster. Each pair is connected through a link of its own, so
//! that a server can be cut off from the others, and each is reached by clients through one as well.
//!
//! ```text
//! server i ──link(i, j)──▶ server j        for each i ≠ j, and none knows another way
//! client   ──link(j)─────▶ server j
//! ```

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use async_nats::jetstream::{self, stream::Info};

use super::Nats;
use crate::eventually::eventually;
use crate::guard::Guard;
use crate::link::Link;
use crate::port::Port;

/// The cluster elects its leaders, each in some seconds.
const READY_DEADLINE: Duration = Duration::from_secs(90);

/// What servers are told is another's address: nobody listens there, so that the links are the only way.
const NOWHERE: &str = "127.0.0.1:9";

/// A JetStream cluster; it ends when this value is dropped, or when the test process dies.
#[derive(Debug)]
pub struct NatsCluster {
    nodes: Vec<Node>,
}

#[derive(Debug)]
struct Node {
    nats: Nats,
    /// For clients.
    link: Link,
    /// From this server to each other one.
    routes: Vec<(usize, Link)>,
    _cluster_port: Port,
}

impl NatsCluster {
    /// Starts `size` servers and waits until JetStream is ready on all.
    ///
    /// # Errors
    /// When one does not start: with the end of its log.
    pub async fn start(guard: &Guard, size: usize) -> Result<Self> {
        let ports = (0..size)
            .map(|_| Port::free())
            .collect::<Result<Vec<_>>>()?;
        let mut routes = Vec::new();
        for from in 0..size {
            let mut own = Vec::new();
            for (to, port) in ports.iter().enumerate().filter(|(to, _)| *to != from) {
                own.push((to, Link::to(port.number()).await?));
            }
            routes.push(own);
        }
        let mut nodes = Vec::new();
        for (at, (port, routes)) in ports.into_iter().zip(routes).enumerate() {
            let nats = Nats::prepare(guard, &configuration(at, &port, &routes)).await?;
            let link = Link::to(nats.port()).await?;
            nodes.push(Node {
                nats,
                link,
                routes,
                _cluster_port: port,
            });
        }
        let cluster = Self { nodes };
        for node in &cluster.nodes {
            node.nats.launch()?;
        }
        cluster.wait_ready().await?;
        Ok(cluster)
    }

    /// Waits until every server says that it is healthy: it has caught up with its leaders.
    ///
    /// # Errors
    /// When one takes too long or has ended: with the end of its log.
    pub async fn wait_ready(&self) -> Result<()> {
        for node in &self.nodes {
            node.nats.wait_ready(READY_DEADLINE).await?;
        }
        Ok(())
    }

    /// How many servers there are.
    #[must_use]
    pub fn size(&self) -> usize {
        self.nodes.len()
    }

    /// One of the servers: to kill it, pause it, and start it again.
    #[must_use]
    pub fn node(&self, at: usize) -> &Nats {
        &self.nodes[at].nats
    }

    /// The URLs of all servers, comma separated, through their links.
    #[must_use]
    pub fn url(&self) -> String {
        let url = |node: &Node| format!("nats://127.0.0.1:{}", node.link.port());
        self.nodes.iter().map(url).collect::<Vec<_>>().join(",")
    }

    /// A client that knows all servers, past the links.
    ///
    /// # Errors
    /// When none can be reached.
    pub async fn client(&self) -> Result<async_nats::Client> {
        let urls: Vec<String> = self.nodes.iter().map(|node| node.nats.url()).collect();
        async_nats::connect(urls)
            .await
            .context("cannot connect to the test's cluster")
    }

    /// Cuts a server off from the others and from all clients that come through its link.
    pub fn isolate(&self, at: usize) {
        self.cut_routes(at);
        self.nodes[at].link.cut();
    }

    /// Cuts a server off from the others alone: its clients still reach it.
    pub fn cut_routes(&self, at: usize) {
        self.each_route_of(at, Link::cut);
    }

    /// Undoes all cuts of a server.
    pub fn heal(&self, at: usize) {
        self.each_route_of(at, Link::heal);
        self.nodes[at].link.heal();
    }

    /// The link through which clients reach a server.
    #[must_use]
    pub fn link(&self, at: usize) -> &Link {
        &self.nodes[at].link
    }

    fn each_route_of(&self, at: usize, act: impl Fn(&Link)) {
        for (from, node) in self.nodes.iter().enumerate() {
            for (_, link) in node.routes.iter().filter(|(to, _)| from == at || *to == at) {
                act(link);
            }
        }
    }

    /// Which server leads a stream; waits until one does.
    ///
    /// # Errors
    /// When none comes to lead it in time.
    pub async fn leader(&self, stream: &str) -> Result<usize> {
        let jetstream = jetstream::new(self.client().await?);
        eventually("a leader of the stream", READY_DEADLINE, async || {
            let info: Info = jetstream.get_stream(stream).await?.cached_info().clone();
            let leader = info.cluster.and_then(|cluster| cluster.leader);
            let at = (0..self.size()).find(|at| leader.as_deref() == Some(&name(*at)));
            Ok(Some(at.context("nobody leads it")?))
        })
        .await
    }

    /// Makes a stream's leader step down.
    ///
    /// # Errors
    /// When the cluster refuses it.
    pub async fn step_down(&self, stream: &str) -> Result<()> {
        let subject = format!("$JS.API.STREAM.LEADER.STEPDOWN.{stream}");
        let reply = self.client().await?.request(subject, "".into()).await?;
        let text = String::from_utf8_lossy(&reply.payload);
        ensure!(text.contains("\"success\":true"), "step down: {text}");
        Ok(())
    }
}

fn name(at: usize) -> String {
    format!("n{at}")
}

fn configuration(at: usize, port: &Port, routes: &[(usize, Link)]) -> String {
    let route = |link: &Link| format!("\"nats://127.0.0.1:{}\"", link.port());
    let routes: Vec<_> = routes.iter().map(|(_, link)| route(link)).collect();
    format!(
        "server_name: {}\ncluster {{ name: harness, listen: \"127.0.0.1:{}\", no_advertise: true, \
         advertise: \"{NOWHERE}\", routes: [{}] }}\n",
        name(at),
        port.number(),
        routes.join(", ")
    )
}
