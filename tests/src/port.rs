//! TCP ports that stay ours: across restarts of the server that listens, and against other harnesses.

use std::fs::File;
use std::io;
use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicU16, Ordering};

use anyhow::{Context, Result, bail};

use tokio::net::TcpSocket;

use crate::tools::cache_directory;

/// Below the ephemeral range, so that no outgoing connection takes one while its server is down.
const FIRST: u16 = 10_000;
const COUNT: u16 = 22_000;

/// A port of 127.0.0.1, held by a file lock as long as this value lives.
#[derive(Debug)]
pub struct Port {
    number: u16,
    _lock: File,
}

impl Port {
    /// Finds a port that nothing listens on and no other harness of this user holds.
    ///
    /// # Errors
    /// When none is free or the lock files cannot be made.
    pub fn free() -> Result<Self> {
        static NEXT: AtomicU16 = AtomicU16::new(0);
        let directory = cache_directory()?.join("ports");
        std::fs::create_dir_all(&directory).context("cannot make the folder of port locks")?;
        // Processes start their search far apart.
        let base = (std::process::id().wrapping_mul(97) % u32::from(COUNT)) as u16;
        for _ in 0..COUNT {
            let step = NEXT.fetch_add(1, Ordering::Relaxed) % COUNT;
            let number = FIRST + ((u32::from(base) + u32::from(step)) % u32::from(COUNT)) as u16;
            let path = directory.join(number.to_string());
            let lock = File::create(&path)
                .with_context(|| format!("cannot create the port lock {}", path.display()))?;
            if lock.try_lock().is_ok() && probe(number).is_ok() {
                return Ok(Self {
                    number,
                    _lock: lock,
                });
            }
        }
        bail!("no free port between {FIRST} and {}", FIRST + COUNT - 1)
    }

    /// Its number.
    #[must_use]
    pub fn number(&self) -> u16 {
        self.number
    }
}

/// Fails where somebody listens. It does not listen itself: a process that another thread is just starting
/// has a copy of the socket until it runs its program, and would keep the port from whoever it is for.
fn probe(number: u16) -> io::Result<()> {
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.bind((Ipv4Addr::LOCALHOST, number).into())
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::process::Command;
    use std::sync::atomic::AtomicBool;
    use std::thread;

    use super::*;

    #[test]
    fn a_free_port_can_be_listened_on_while_other_threads_start_processes() {
        let is_done = AtomicBool::new(false);
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    while !is_done.load(Ordering::Relaxed) {
                        Command::new("true").status().expect("`true` runs");
                    }
                });
            }
            let refused = (0..3000).find_map(|_| {
                let port = Port::free().expect("a port is free");
                TcpListener::bind((Ipv4Addr::LOCALHOST, port.number())).err()
            });
            is_done.store(true, Ordering::Relaxed);
            assert!(refused.is_none(), "{refused:?}");
        });
    }

    #[test]
    fn a_port_that_somebody_listens_on_is_not_free() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port is free");
        let number = listener.local_addr().expect("it is bound").port();
        assert!(probe(number).is_err());
        drop(listener);
        assert!(probe(number).is_ok());
    }
}
