//! A TCP connection's way through the test process, which can be cut as a network is: nothing arrives
//! any more, and nobody is told. What was sent meanwhile arrives after the cut, if both ends still wait.
//!
//! ```text
//! client ──▶ link ──▶ target        cut: both ends stay connected, in silence
//! ```
//!
//! What it is not: a real network. Both ends' kernels still answer each other's keepalive probes, so
//! only what a program itself awaits tells it of a cut.

use std::net::Ipv4Addr;
use std::sync::Arc;

use anyhow::{Context, Result};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

use crate::port::Port;

/// What one direction holds at most.
const BUFFER_BYTES: usize = 64 * 1024;

/// Whether bytes pass, each way.
#[derive(Clone, Copy, Debug)]
struct Gates {
    to_target: bool,
    from_target: bool,
    /// Connections of an earlier generation are closed.
    generation: u64,
}

/// A port of 127.0.0.1 that leads to another. Dropped, it closes its connections.
#[derive(Debug)]
pub struct Link {
    port: Port,
    gates: Arc<watch::Sender<Gates>>,
    accepting: JoinHandle<()>,
}

impl Link {
    /// Leads to `target` on 127.0.0.1, whether anything listens there yet or not. It lives in the
    /// caller's runtime: what blocks that cuts the link.
    ///
    /// # Errors
    /// When no port can be had.
    pub async fn to(target: u16) -> Result<Self> {
        let port = Port::free()?;
        let address = (Ipv4Addr::LOCALHOST, port.number());
        let listener = TcpListener::bind(address).await.context("bind a link")?;
        let gates = Arc::new(watch::Sender::new(Gates {
            to_target: true,
            from_target: true,
            generation: 0,
        }));
        let accepting = tokio::spawn(accept(listener, target, gates.clone()));
        Ok(Self {
            port,
            gates,
            accepting,
        })
    }

    /// The port that leads to the target.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port.number()
    }

    /// Lets nothing through, either way. New connections are taken, and hear nothing.
    pub fn cut(&self) {
        self.set(false, false);
    }

    /// The target hears nothing any more, and is still heard.
    pub fn cut_to_target(&self) {
        self.set(false, true);
    }

    /// The target still hears, and is heard no more.
    pub fn cut_from_target(&self) {
        self.set(true, false);
    }

    /// Lets everything through again, what was held first.
    pub fn heal(&self) {
        self.set(true, true);
    }

    /// Closes all connections, as a firewall or a load balancer that restarts does.
    pub fn close_connections(&self) {
        self.gates.send_modify(|gates| gates.generation += 1);
    }

    fn set(&self, to_target: bool, from_target: bool) {
        self.gates.send_modify(|gates| {
            gates.to_target = to_target;
            gates.from_target = from_target;
        });
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn accept(listener: TcpListener, target: u16, gates: Arc<watch::Sender<Gates>>) {
    // They end with this task.
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                if let Ok((client, _)) = accepted {
                    connections.spawn(carry(client, target, gates.subscribe()));
                }
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

/// Carries one connection, until an end closes it or the link does.
async fn carry(client: TcpStream, target: u16, mut gates: watch::Receiver<Gates>) {
    let generation = gates.borrow().generation;
    let (mut to, mut from) = (gates.clone(), gates.clone());
    let carried = async {
        // In a cut the target does not even hear that somebody wants to connect.
        open(&mut to, |gates| gates.to_target).await;
        let Ok(server) = TcpStream::connect((Ipv4Addr::LOCALHOST, target)).await else {
            return;
        };
        let _ = client.set_nodelay(true);
        let _ = server.set_nodelay(true);
        let (client_read, client_write) = client.into_split();
        let (server_read, server_write) = server.into_split();
        tokio::join!(
            pump(client_read, server_write, &mut to, |gates| gates.to_target),
            pump(server_read, client_write, &mut from, |gates| gates
                .from_target),
        );
    };
    tokio::select! {
        () = carried => {}
        _ = gates.wait_for(|gates| gates.generation != generation) => {}
    }
}

async fn pump(
    mut source: impl AsyncRead + Unpin,
    mut sink: impl AsyncWrite + Unpin,
    gates: &mut watch::Receiver<Gates>,
    is_open: impl Fn(&Gates) -> bool + Copy,
) {
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        open(gates, is_open).await;
        let read = source.read(&mut buffer).await.unwrap_or(0);
        // It was cut while this end said nothing: what it says now waits, its goodbye too.
        open(gates, is_open).await;
        if read == 0 || sink.write_all(&buffer[..read]).await.is_err() {
            break;
        }
    }
    let _ = sink.shutdown().await;
}

async fn open(gates: &mut watch::Receiver<Gates>, is_open: impl Fn(&Gates) -> bool) {
    if gates.wait_for(|gates| is_open(gates)).await.is_err() {
        // The link is gone, and this task about to be.
        std::future::pending::<()>().await;
    }
}
