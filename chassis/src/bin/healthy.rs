//! Asks the process beside it whether it is ready, and ends with 0 if it is: for the health checks of an
//! image that has no shell. It reads `ADMIN_LISTEN`, as the process does.

use std::{
    env,
    io::{Error, Read as _, Write as _},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream},
    process::ExitCode,
    time::Duration,
};

/// What `ADMIN_LISTEN` is when it is not set.
const ADMIN: &str = "0.0.0.0:9090";
/// A process that does not answer on loopback by then is not well.
const PATIENCE: Duration = Duration::from_secs(2);
/// As much of the answer as is looked at (I12).
const ANSWER_MAX: u64 = 4096;

#[expect(
    clippy::print_stderr,
    reason = "it stands in the container's health log"
)]
fn main() -> ExitCode {
    let listen = env::var("ADMIN_LISTEN").unwrap_or_else(|_| ADMIN.to_owned());
    match ask(&listen) {
        Ok(answer)
            if answer
                .lines()
                .next()
                .is_some_and(|line| line.contains(" 200 ")) =>
        {
            ExitCode::SUCCESS
        }
        Ok(answer) => {
            eprintln!("{answer}");
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("{listen}: {error}");
            ExitCode::FAILURE
        }
    }
}

fn ask(listen: &str) -> Result<String, Error> {
    let mut address: SocketAddr = listen.parse().map_err(Error::other)?;
    match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => address.set_ip(Ipv4Addr::LOCALHOST.into()),
        IpAddr::V6(ip) if ip.is_unspecified() => address.set_ip(Ipv6Addr::LOCALHOST.into()),
        _ => {}
    }
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.write_all(b"GET /readyz HTTP/1.0\r\nHost: localhost\r\n\r\n")?;
    let mut answer = String::new();
    stream.take(ANSWER_MAX).read_to_string(&mut answer)?;
    Ok(answer)
}
