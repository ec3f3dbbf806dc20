//! gRPC over TLS: who is let in, whom a caller trusts, and what becomes of files that change meanwhile.

use std::{fs, io::ErrorKind, net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use anyhow::{Context as _, Result, ensure};
use chassis::{
    auth,
    config::{self, libpq::Roots},
    grpc::{self, Listener, Starting, client::Tls},
    health::Health,
};
use harness::{
    Guard,
    certificates::{Authority, Identity, replace},
    eventually,
};
use tokio::{io::AsyncReadExt as _, net::TcpStream, sync::Semaphore, time::timeout};
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::transport::{Channel, Endpoint};
use tonic_prost::ProstCodec;

use crate::echo::{self, Gate, Text};

/// The files are looked at every two seconds.
const SOON: Duration = Duration::from_secs(20);

struct Server {
    address: SocketAddr,
    gate: Gate,
    _ends: DropGuard,
}

impl Server {
    async fn start(server: &Identity, client_ca: Option<&Authority>) -> Result<Self> {
        Self::serve(Listener::bind(&settings(server, client_ca)).await?)
    }

    fn serve(listener: Listener) -> Result<Self> {
        echo::telemetry();
        let (address, token) = (listener.local_addr()?, CancellationToken::new());
        let gate: Gate = Arc::new(Semaphore::new(0));
        tokio::spawn(grpc::serve(
            listener,
            echo::routes(Arc::clone(&gate)),
            tonic_health::pb::FILE_DESCRIPTOR_SET,
            Health::new(),
            auth::Guard::off(&[]),
            token.clone(),
        ));
        let _ends = token.drop_guard();
        Ok(Self {
            address,
            gate,
            _ends,
        })
    }

    /// A caller that trusts this authority, and shows this certificate.
    fn caller(&self, trusted: &Authority, shown: Option<&Identity>) -> Result<Channel> {
        self.caller_of("127.0.0.1", trusted, shown)
    }

    fn caller_of(
        &self,
        host: &str,
        trusted: &Authority,
        shown: Option<&Identity>,
    ) -> Result<Channel> {
        let endpoint = Endpoint::from_shared(format!("https://{host}:{}", self.address.port()))?;
        let tls = Tls {
            roots: Roots::File(trusted.certificate().to_owned()),
            identity: shown.map(|shown| (shown.certificate.clone(), shown.key.clone())),
            name: None,
            settings: ("THE_CA", "THE_PAIR"),
        };
        Ok(tls.channel(&endpoint))
    }
}

fn settings(server: &Identity, client_ca: Option<&Authority>) -> config::Grpc {
    config::Grpc {
        tls_cert: Some(server.certificate.clone()),
        tls_key: Some(server.key.clone()),
        tls_client_ca: client_ca.map(|ca| ca.certificate().to_owned()),
        ..SocketAddr::from(([127, 0, 0, 1], 0)).into()
    }
}

async fn call(channel: &Channel, operation: &str) -> Result<String> {
    let mut client = tonic::client::Grpc::new(channel.clone());
    client.ready().await?;
    let path = format!("/test.v1.Test/{operation}").parse()?;
    let codec = ProstCodec::<Text, Text>::default();
    let request = tonic::Request::new(Text { text: "in".into() });
    Ok(client.unary(request, path, codec).await?.into_inner().text)
}

async fn is_served(channel: &Channel) -> Result<()> {
    ensure!(call(channel, "Echo").await? == "in");
    Ok(())
}

/// The call fails, and this is said of it.
async fn refused(channel: Result<Channel>, text: &str) -> Result<()> {
    let called = timeout(SOON, call(&channel?, "Echo")).await?;
    let error = called.err().context("it was let in")?;
    let said = format!("{error:#}");
    ensure!(said.contains(text), "no {text:?} in {said:?}");
    Ok(())
}

/// How often that happened to a renewal, in this process.
fn renewals(outcome: &str) -> f64 {
    let metrics = echo::telemetry().metrics().render();
    let line = metrics.lines().find_map(|line| {
        let line = line.strip_prefix("tls_renewals_total{")?;
        line.contains(outcome).then(|| line.rsplit(' ').next())?
    });
    line.map_or(0.0, |count| count.parse().expect("a number"))
}

#[tokio::test]
async fn who_shows_no_certificate_of_the_callers_ca_is_refused() -> Result<()> {
    let guard = Guard::start()?;
    let authority = Authority::new(&guard, "authority")?;
    let (callers, stranger) = (
        Authority::new(&guard, "callers")?,
        Authority::new(&guard, "stranger")?,
    );
    let server = Server::start(&authority.sign(&["127.0.0.1"])?, Some(&callers)).await?;

    let caller = server.caller(&authority, Some(&callers.sign(&["caller"])?))?;
    is_served(&caller).await?;
    let mend = "wants a client certificate that it trusts: set THE_PAIR";
    refused(server.caller(&authority, None), mend).await?;
    let another = stranger.sign(&["caller"])?;
    refused(server.caller(&authority, Some(&another)), mend).await?;
    let expired = callers.sign_expired(&["caller"])?;
    let mend = "certificate in THE_PAIR has expired: renew it";
    refused(server.caller(&authority, Some(&expired)), mend).await?;
    let plain = Endpoint::from_shared(format!("http://{}", server.address))?.connect_lazy();
    refused(Ok(plain), "").await
}

#[tokio::test]
async fn a_caller_refuses_a_server_that_it_cannot_trust() -> Result<()> {
    let guard = Guard::start()?;
    let authority = Authority::new(&guard, "authority")?;
    let stranger = Authority::new(&guard, "stranger")?;
    let server = Server::start(&authority.sign(&["127.0.0.1"])?, None).await?;
    is_served(&server.caller(&authority, None)?).await?;
    let mend = "name the file with the right CA's certificate in THE_CA";
    refused(server.caller(&stranger, None), mend).await?;
    let mend = "made out to another host";
    refused(server.caller_of("localhost", &authority, None), mend).await?;
    let expired = Server::start(&authority.sign_expired(&["127.0.0.1"])?, None).await?;
    let mend = "the server's certificate has expired: renew it";
    refused(expired.caller(&authority, None), mend).await?;
    let plain = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let plain = Server::serve(plain.into())?;
    refused(plain.caller(&authority, None), "does not speak TLS here").await
}

#[tokio::test]
async fn a_renewed_certificate_is_shown_without_a_restart_and_open_connections_go_on() -> Result<()>
{
    let guard = Guard::start()?;
    let (old, new) = (
        Authority::new(&guard, "old")?,
        Authority::new(&guard, "new")?,
    );
    let files = old.sign(&["127.0.0.1"])?;
    let server = Server::start(&files, None).await?;
    let before = server.caller(&old, None)?;
    let held = tokio::spawn({
        let before = before.clone();
        async move { call(&before, "Hold").await }
    });
    is_served(&before).await?;

    // Half of a pair, as somebody who copies by hand makes it, and then no PEM at all.
    let broken = renewals("broken");
    let renewed = new.sign(&["127.0.0.1"])?;
    replace(&renewed.key, &files.key)?;
    eventually("the half to be noticed", SOON, async || {
        Ok((renewals("broken") > broken).then_some(()))
    })
    .await?;
    is_served(&server.caller(&old, None)?).await?;
    let broken = renewals("broken");
    fs::write(&files.certificate, "-----BEGIN CERTIFICATE-----\nMII")?;
    eventually("the rest to be noticed", SOON, async || {
        Ok((renewals("broken") > broken).then_some(()))
    })
    .await?;
    is_served(&server.caller(&old, None)?).await?;

    renewed.replace(&files)?;
    eventually("the new certificate", SOON, async || {
        let after = is_served(&server.caller(&new, None)?).await;
        Ok(after.ok())
    })
    .await?;
    refused(server.caller(&old, None), "right CA's certificate").await?;
    is_served(&before).await?;
    server.gate.add_permits(1);
    ensure!(held.await?? == "held", "the call in hand was cut off");
    Ok(())
}

#[tokio::test]
async fn with_another_ca_callers_of_the_former_are_refused_also_by_a_resumed_session() -> Result<()>
{
    let guard = Guard::start()?;
    let authority = Authority::new(&guard, "authority")?;
    let (old, new) = (
        Authority::new(&guard, "old")?,
        Authority::new(&guard, "new")?,
    );
    let server = Server::start(&authority.sign(&["127.0.0.1"])?, Some(&old)).await?;
    let (former, latter) = (old.sign(&["caller"])?, new.sign(&["caller"])?);
    let remembers = remembers(&authority, &former)?;
    greeted(&server, &remembers).await?;
    ensure!(greeted(&server, &remembers).await?, "no session is resumed");
    let mend = "wants a client certificate that it trusts";
    refused(server.caller(&authority, Some(&latter)), mend).await?;

    replace(new.certificate(), old.certificate())?;
    eventually("callers of the new CA to be let in", SOON, async || {
        let after = is_served(&server.caller(&authority, Some(&latter))?).await;
        Ok(after.ok())
    })
    .await?;
    refused(server.caller(&authority, Some(&former)), mend).await?;
    let resumed = greeted(&server, &remembers).await;
    ensure!(resumed.is_err(), "a session of the former CA was resumed");
    Ok(())
}

/// A client that remembers its sessions.
fn remembers(trusted: &Authority, shown: &Identity) -> Result<Arc<rustls::ClientConfig>> {
    let mut roots = rustls::RootCertStore::empty();
    for certificate in chassis::tls::certificates("the CA", trusted.certificate())? {
        roots.add(certificate)?;
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots);
    let chain = chassis::tls::certificates("the certificate", &shown.certificate)?;
    let mut config =
        builder.with_client_auth_cert(chain, chassis::tls::private_key(&shown.key)?)?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(Arc::new(config))
}

/// Connects, and reads what an HTTP/2 server says first; whether the session was resumed.
async fn greeted(server: &Server, client: &Arc<rustls::ClientConfig>) -> Result<bool> {
    let stream = TcpStream::connect(server.address).await?;
    let connector = tokio_rustls::TlsConnector::from(Arc::clone(client));
    let name = rustls::pki_types::ServerName::try_from("127.0.0.1")?;
    let mut stream = connector.connect(name, stream).await?;
    let read = timeout(SOON, stream.read_u8()).await??;
    ensure!(read == 0, "no frame of settings: {read}");
    let kind = stream.get_ref().1.handshake_kind();
    Ok(kind == Some(rustls::HandshakeKind::Resumed))
}

#[tokio::test]
async fn who_never_ends_a_handshake_holds_up_nobody_and_is_cut_off() -> Result<()> {
    let guard = Guard::start()?;
    let authority = Authority::new(&guard, "authority")?;
    let server = Server::start(&authority.sign(&["127.0.0.1"])?, None).await?;
    let mut silent = TcpStream::connect(server.address).await?;
    is_served(&server.caller(&authority, None)?).await?;
    let held = silent.try_read(&mut [0]).map_err(|error| error.kind());
    ensure!(held == Err(ErrorKind::WouldBlock), "it was waited for");
    let end = timeout(SOON, silent.read_u8())
        .await
        .context("still there")?;
    ensure!(end.is_err(), "the server speaks first");
    Ok(())
}

#[tokio::test]
async fn many_who_never_end_a_handshake_keep_nobody_out() -> Result<()> {
    /// Sooner than the time for a handshake is up, which is five seconds.
    const AT_ONCE: Duration = Duration::from_secs(3);
    let guard = Guard::start()?;
    let authority = Authority::new(&guard, "authority")?;
    let server = Server::start(&authority.sign(&["127.0.0.1"])?, None).await?;
    let mut silent = Vec::new();
    // More than there are places.
    for _ in 0..300 {
        silent.push(TcpStream::connect(server.address).await?);
    }
    let caller = server.caller(&authority, None)?;
    let served = timeout(AT_ONCE, is_served(&caller)).await;
    served.context("it is kept waiting")??;
    let first = timeout(AT_ONCE, silent[0].read_u8()).await;
    ensure!(first.context("the oldest is still there")?.is_err());
    Ok(())
}

#[tokio::test]
async fn a_process_that_still_starts_speaks_tls_too() -> Result<()> {
    let guard = Guard::start()?;
    let authority = Authority::new(&guard, "authority")?;
    let files = authority.sign(&["127.0.0.1"])?;
    let listener = Listener::bind(&settings(&files, Some(&authority))).await?;
    let address = listener.local_addr()?;
    let starting = Starting::new(listener).await?;
    let gate = Gate::new(Semaphore::new(0));
    let _ends = CancellationToken::new().drop_guard();
    let early = Server {
        address,
        gate,
        _ends,
    };
    let caller = early.caller(&authority, Some(&authority.sign(&["caller"])?))?;
    refused(Ok(caller.clone()), "starting: try again").await?;
    let mend = "wants a client certificate";
    refused(early.caller(&authority, None), mend).await?;
    let server = Server::serve(starting.done().await?)?;
    eventually("the server to take over", SOON, async || {
        Ok(is_served(&caller).await.ok())
    })
    .await?;
    refused(server.caller(&authority, None), mend).await
}

#[tokio::test]
async fn settings_that_cannot_work_are_named_at_the_start() -> Result<()> {
    let guard = Guard::start()?;
    let authority = Authority::new(&guard, "authority")?;
    let files = authority.sign(&["127.0.0.1"])?;
    let other = authority.sign(&["other"])?;
    let whole = settings(&files, Some(&authority));
    let set = |change: fn(&mut config::Grpc, PathBuf), path: PathBuf| {
        let mut settings = whole.clone();
        change(&mut settings, path);
        settings
    };
    let nothing = PathBuf::new();
    for (settings, said) in [
        (
            set(|all, path| all.tls_key = Some(path), nothing.clone()),
            "GRPC_TLS_CERT is set without GRPC_TLS_KEY",
        ),
        (
            set(|all, path| all.tls_cert = Some(path), nothing.clone()),
            "GRPC_TLS_KEY is set without GRPC_TLS_CERT",
        ),
        (
            config::Grpc {
                tls_cert: None,
                tls_key: None,
                ..whole.clone()
            },
            "GRPC_TLS_CLIENT_CA is set without",
        ),
        (
            set(|all, path| all.tls_key = Some(path), other.key),
            "do not make a pair",
        ),
        (
            set(|all, path| all.tls_cert = Some(path), "/nowhere.pem".into()),
            "cannot read the server's certificate /nowhere.pem: there is none",
        ),
        (
            set(
                |all, path| all.tls_client_ca = Some(path),
                files.key.clone(),
            ),
            "holds no certificate in PEM form",
        ),
    ] {
        let refused = Listener::bind(&settings).await.err();
        let refused = format!("{:#}", refused.context(said)?);
        ensure!(refused.contains(said), "no {said:?} in {refused:?}");
    }
    Ok(())
}
