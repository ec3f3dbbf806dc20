//! TLS everywhere: gRPC and NATS mutual, Postgres by verify-full. Orders settle, and `shop` says of each wrong
//! setting what it is.

use std::fs;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use harness::certificates::{Authority, Identity};
use harness::{Guard, System, eventually};

use crate::world::{SETTLE_DEADLINE, Shop};

struct World {
    guard: Guard,
    /// Of Postgres and NATS.
    servers: Authority,
    services: Authority,
    callers: Authority,
    /// What both services show over gRPC.
    shown: Identity,
    system: System,
}

fn path(path: &Path) -> String {
    path.display().to_string()
}

async fn world() -> World {
    let guard = Guard::start().expect("a directory");
    let authority = |name| Authority::new(&guard, name).expect("an authority");
    let [servers, services, callers] = ["servers", "services", "callers"].map(authority);
    let server = servers.sign(&["127.0.0.1"]).expect("it signs");
    let (certificate, key) = (path(&server.certificate), path(&server.key));
    let (trusted, callers_ca) = (path(servers.certificate()), path(callers.certificate()));
    let mut builder = System::builder()
        .postgres("ssl", "on")
        .postgres("ssl_cert_file", &certificate)
        .postgres("ssl_key_file", &key)
        .database(&format!("sslmode=verify-full&sslrootcert={trusted}"))
        .nats(&format!(
            "tls: {{ cert_file: {certificate:?}, key_file: {key:?}, ca_file: {callers_ca:?}, verify: true, \
             timeout: 10 }}"
        ));
    // In its last hour.
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let now = now.expect("a time").as_secs() as i64;
    let last = now - 86_400..now + 3_600;
    let shown = services.sign_for(&["127.0.0.1"], last).expect("it signs");
    for program in ["order-service", "customer-service", "cdc-relay"] {
        let caller = callers.sign(&[program]).expect("it signs");
        builder = builder
            .env(program, "NATS_TLS_CA", &trusted)
            .env(program, "NATS_TLS_CERT", &path(&caller.certificate))
            .env(program, "NATS_TLS_KEY", &path(&caller.key));
        if program != "cdc-relay" {
            builder = builder
                .env(program, "GRPC_TLS_CERT", &path(&shown.certificate))
                .env(program, "GRPC_TLS_KEY", &path(&shown.key))
                .env(program, "GRPC_TLS_CLIENT_CA", &callers_ca);
        }
    }
    let system = builder.start().await.expect("the system starts");
    World {
        guard,
        servers,
        services,
        callers,
        shown,
        system,
    }
}

impl World {
    /// `shop` with all that it needs.
    fn shop(&self, via: &str) -> Shop {
        let own = self.callers.sign(&["shop"]).expect("it signs");
        let (certificate, key) = (path(&own.certificate), path(&own.key));
        let address = |service| self.system.grpc_url(service).replace("http:", "https:");
        Shop::new(&self.system, via)
            .with("ORDERS_GRPC", &address("order-service"))
            .with("CUSTOMERS_GRPC", &address("customer-service"))
            .with("SHOP_TLS_CA", &path(self.services.certificate()))
            .with("SHOP_TLS_CERT", &certificate)
            .with("SHOP_TLS_KEY", &key)
            .with("NATS_TLS_CA", &path(self.servers.certificate()))
            .with("NATS_TLS_CERT", &certificate)
            .with("NATS_TLS_KEY", &key)
    }
}

/// At once: no second try would be answered better.
async fn refused(shop: Shop, said: &str) {
    let told = fails(shop, said).await;
    assert!(!told.contains("Tried for"), "{told}");
}

async fn fails(shop: Shop, said: &str) -> String {
    let ran = shop.run(&["order", "list"]).await;
    assert_eq!(
        (ran.status, ran.stdout.as_str()),
        (1, ""),
        "{said}: {ran:?}"
    );
    assert!(ran.stderr.contains(said), "no {said:?} in {}", ran.stderr);
    ran.stderr
}

/// Each process tells until when its certificates are good, and warns of the one in its last hour.
async fn expiry_is_told(system: &System) {
    let all = "tls_certificate_not_after_seconds";
    for process in system.processes() {
        let is_service = !process.name().ends_with("relay");
        for (setting, is_set) in [
            ("NATS_TLS_CERT", true),
            ("NATS_TLS_CA", true),
            ("sslrootcert of DATABASE_URL", true),
            ("GRPC_TLS_CERT", is_service),
            ("GRPC_TLS_CLIENT_CA", is_service),
        ] {
            let series = format!("{all}{{setting=\"{setting}\"}}");
            let told = process.metric(&series).await.expect("metrics");
            assert_eq!(told.is_some(), is_set, "{} {setting}", process.name());
        }
        let warned = process
            .log()
            .text()
            .contains("a certificate is about to expire");
        assert_eq!(warned, is_service, "{}", process.log().tail());
    }
}

#[tokio::test]
async fn orders_settle_with_tls_everywhere_and_each_wrong_setting_is_told() {
    let world = world().await;
    for via in ["grpc", "nats"] {
        let shop = world.shop(via);
        let customer = shop
            .id(&["customer", "create", "Ada", "100 EUR", "-q"])
            .await;
        let order = [
            "order", "create", &customer, "60 EUR", "--wait", "60s", "-q",
        ];
        let ran = shop.run(&order).await;
        assert_eq!(ran.status, 0, "it is not approved: {ran:?}");
    }
    expiry_is_told(&world.system).await;
    let query = "SELECT count(*) FILTER (WHERE ssl), count(*) FROM pg_stat_ssl \
                 JOIN pg_stat_activity USING (pid) WHERE usename <> 'postgres' AND client_addr IS NOT NULL";
    let client = world.system.postgres().connect("postgres").await.unwrap();
    let row = client.query_one(query, &[]).await.unwrap();
    let (encrypted, all): (i64, i64) = (row.get(0), row.get(1));
    assert!(encrypted == all && all > 3, "{encrypted} of {all}");

    wrong_over_grpc(&world).await;
    let shop = world.shop("nats");
    let (none, other) = ("", path(world.callers.certificate()));
    let without = shop
        .clone()
        .with("NATS_TLS_CERT", none)
        .with("NATS_TLS_KEY", none);
    refused(without, "set NATS_TLS_CERT and NATS_TLS_KEY").await;
    let mend = "the right CA's certificate in NATS_TLS_CA";
    refused(shop.with("NATS_TLS_CA", &other), mend).await;
    renewed(&world).await;
}

async fn wrong_over_grpc(world: &World) {
    let shop = || world.shop("grpc");
    let none = shop().with("SHOP_TLS_CERT", "").with("SHOP_TLS_KEY", "");
    let mend = "wants a client certificate that it trusts: set --tls-cert and --tls-key";
    refused(none.clone(), mend).await;
    let other = world.services.sign(&["stranger"]).expect("it signs");
    let show = |identity: &Identity| {
        shop()
            .with("SHOP_TLS_CERT", &path(&identity.certificate))
            .with("SHOP_TLS_KEY", &path(&identity.key))
    };
    refused(show(&other), mend).await;
    let expired = world.callers.sign_expired(&["shop"]).expect("it signs");
    let mend = "certificate in --tls-cert and --tls-key has expired: renew it";
    refused(show(&expired), mend).await;
    let half = shop().with("SHOP_TLS_KEY", "");
    refused(half, "--tls-cert is set without --tls-key").await;
    let unmatched = shop().with("SHOP_TLS_KEY", &path(&other.key));
    refused(unmatched, "do not make a pair").await;
    let lost = shop().with("SHOP_TLS_CA", "/nowhere/ca.pem");
    refused(lost, "cannot read the CA's certificate /nowhere/ca.pem").await;
    let stranger = shop().with("SHOP_TLS_CA", &path(world.servers.certificate()));
    let mend = "the right CA's certificate in --tls-ca or SHOP_TLS_CA";
    refused(stranger, mend).await;
    let elsewhere = shop().with("SHOP_TLS_NAME", "elsewhere.example");
    refused(elsewhere, "made out to another host").await;
    let address = world.system.grpc_url("order-service");
    let local = address.replace("http://127.0.0.1", "https://localhost");
    let by_name = shop().with("ORDERS_GRPC", &local);
    refused(by_name.clone(), "made out to another host").await;
    by_name
        .with("SHOP_TLS_NAME", "127.0.0.1")
        .says(&["order", "list"])
        .await;
    let plain = none.with("SHOP_TLS_CA", "").with("SHOP_TIMEOUT", "300ms");
    let plain = plain.with("ORDERS_GRPC", &address);
    fails(
        plain.clone(),
        "where it is served over TLS, the address begins with https://",
    )
    .await;
    let mend = "--tls-name is set, and http://";
    refused(plain.with("SHOP_TLS_NAME", "a"), mend).await;
    let monitoring = world.system.nats().monitoring_port();
    let no_tls = shop().with("ORDERS_GRPC", &format!("https://127.0.0.1:{monitoring}"));
    refused(no_tls, "does not speak TLS here").await;
}

/// A file that is broken, and then new ones, while the services run.
async fn renewed(world: &World) {
    let log = world.system.process("order-service").log();
    let says = async |said: &str| {
        let waited = eventually(said, SETTLE_DEADLINE, async || {
            Ok(log.text().contains(said).then_some(()))
        });
        waited.await.expect(said);
    };
    says("callers must show a certificate (mutual TLS)").await;
    let certificate = fs::read(&world.shown.certificate).expect("a file");
    fs::write(
        &world.shown.certificate,
        &certificate[..certificate.len() / 2],
    )
    .expect("it is written");
    says("going on with what was read before; mend the file").await;
    let shop = world.shop("grpc");
    shop.says(&["order", "list"]).await;

    let authority = Authority::new(&world.guard, "renewed").expect("an authority");
    authority
        .sign(&["127.0.0.1"])
        .expect("it signs")
        .replace(&world.shown)
        .expect("it is written");
    says("TLS: renewed, for who connects from now on").await;
    let renewed = shop.with("SHOP_TLS_CA", &path(authority.certificate()));
    renewed.says(&["order", "list"]).await;
}
