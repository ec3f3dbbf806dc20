//! What the overlay `production` takes as given, and the README says how to bring: certificates of two CAs, passwords,
//! an identity provider's keys; and what stands for the operator of the databases and the chart of NATS.

use std::collections::BTreeSet;
use std::fs;

use anyhow::{Context, Result, bail};
use harness::Guard;
use harness::Issuer;
use harness::certificates::{Authority, Identity};
use serde_json::{Value, json};
use uuid::Uuid;

use super::objects::secret;
use crate::manifests::object::{Object, Overlay, list, text};
use crate::manifests::yaml;

const SERVERS: &str = include_str!("given.yaml");
const DATABASE: &str = include_str!("given-database.yaml");
const ROLES: &str = include_str!("../../../../deploy/overlays/kind/postgres/server/roles.sql");
const USERS: &str = include_str!("../../../../deploy/nats/users.conf");

const README: &str = include_str!("../../../../deploy/README.md");

/// How somebody with everything that the README gives an operator calls the services.
#[derive(Debug)]
pub(super) struct Caller {
    /// Variables of `shop`.
    pub(super) environment: Vec<(&'static str, String)>,
    pub(super) tls: bool,
}

/// Adds to the overlay whatever it refers to and does not have itself.
pub(super) fn bring(overlay: &mut Overlay, guard: &Guard) -> Result<Caller> {
    if overlay.of_kind("Cluster").next().is_none() {
        return Ok(Caller {
            environment: Vec::new(),
            tls: false,
        });
    }
    add_servers(overlay)?;
    let provider = Provider {
        grpc: Authority::new(guard, "grpc")?,
        nats: Authority::new(guard, "nats")?,
        databases: Authority::new(guard, "databases")?,
        issuer: Issuer::new(guard)?,
    };
    let referred: BTreeSet<_> = overlay
        .objects
        .iter()
        .flat_map(|object| secrets(&object.value))
        .collect();
    for name in referred {
        if !overlay.has("Secret", &name) {
            let brought = provider
                .secret(&name)
                .with_context(|| format!("the secret {name}"))?;
            overlay.objects.push(brought);
        }
    }
    let operator = provider.grpc.sign(&["operator"])?;
    let token = guard.directory().join("operator.jwt");
    fs::write(&token, provider.issuer.operator())?;
    let file = |path: &std::path::Path| path.display().to_string();
    let environment = vec![
        ("SHOP_TLS_CA", file(provider.grpc.certificate())),
        ("SHOP_TLS_CERT", file(&operator.certificate)),
        ("SHOP_TLS_KEY", file(&operator.key)),
        ("SHOP_TOKEN_FILE", file(&token)),
    ];
    Ok(Caller {
        environment,
        tls: true,
    })
}

fn add_servers(overlay: &mut Overlay) -> Result<()> {
    let mut added = yaml::documents(SERVERS)?;
    for object in overlay.of_kind("Cluster") {
        let database = object.text("/spec/bootstrap/initdb/database");
        let written = DATABASE
            .replace("CLUSTER", object.name())
            .replace("DATABASE", database)
            .replace("IMAGE", object.text("/spec/imageName"));
        added.extend(yaml::documents(&written)?);
    }
    for value in &mut added {
        if value["metadata"]["name"] == "db-init" {
            value["data"] = json!({ "roles.sql": ROLES });
        }
    }
    added.push(json!({ "kind": "ConfigMap", "metadata": { "name": "nats-users" }, "data": { "users.conf": USERS } }));
    overlay
        .objects
        .extend(added.into_iter().map(|value| Object { value }));
    Ok(())
}

/// The names of all secrets that it refers to.
fn secrets(value: &Value) -> Vec<String> {
    let mut found = Vec::new();
    match value {
        Value::Object(members) => {
            for (key, member) in members {
                match key.as_str() {
                    "secretKeyRef" => found.push(text(member.get("name")).to_owned()),
                    "secretName" => found.push(text(Some(member)).to_owned()),
                    _ => found.extend(secrets(member)),
                }
            }
        }
        Value::Array(_) => {
            let wrapped = json!({ "all": value });
            found.extend(list(&wrapped, "all").flat_map(secrets));
        }
        _ => {}
    }
    found
}

/// Who signs and gives out.
struct Provider {
    grpc: Authority,
    nats: Authority,
    databases: Authority,
    issuer: Issuer,
}

impl Provider {
    /// A secret by its name, as the README brings it.
    fn secret(&self, name: &str) -> Result<Object> {
        let both = |identity: Result<Identity>| -> Result<Object> {
            let identity = identity?;
            let [certificate, key] = [&identity.certificate, &identity.key].map(fs::read_to_string);
            Ok(secret(
                name,
                &[("tls.crt", certificate?), ("tls.key", key?)],
            ))
        };
        let ca = |authority: &Authority| -> Result<Object> {
            Ok(secret(
                name,
                &[("ca.crt", fs::read_to_string(authority.certificate())?)],
            ))
        };
        match name {
            "nats-ca" => return ca(&self.nats),
            "grpc-ca" => return ca(&self.grpc),
            "nats-tls" => {
                let names = names(name)?;
                let names: Vec<_> = names.iter().map(String::as_str).collect();
                return both(self.nats.sign(&names));
            }
            "auth" => return self.auth(),
            "load-token" => return Ok(secret(name, &[("token", self.issuer.operator())])),
            _ => {}
        }
        let of = |prefix: &str| name.strip_prefix(prefix);
        if let Some(client) = of("nats-client-") {
            return both(self.nats.sign(&[client]));
        }
        if let Some(client) = of("grpc-client-") {
            return both(self.grpc.sign(&[client]));
        }
        if let Some(service) = of("grpc-tls-") {
            return both(
                self.grpc
                    .sign(&[service, &format!("{service}.saga"), "localhost"]),
            );
        }
        if of("nats-login-").is_some() {
            return Ok(secret(name, &[("password", password())]));
        }
        let Some((database, part)) = name.split_once("-db-") else {
            bail!("nothing says how it is brought");
        };
        match part {
            "ca" => ca(&self.databases),
            "server" => both(self.databases.sign(&[&format!("{database}-db-rw")])),
            "app" => Ok(login(name, database)),
            role => Ok(login(name, &format!("{database}_{role}"))),
        }
    }

    fn auth(&self) -> Result<Object> {
        let settings = self.issuer.settings();
        let setting = |key: &str| {
            let found = settings.iter().find(|(name, _)| *name == key);
            found.map(|(_, value)| value.clone()).unwrap_or_default()
        };
        let values = [
            ("jwks.json", fs::read_to_string(setting("AUTH_JWKS"))?),
            ("issuer", setting("AUTH_ISSUER")),
            ("audience", setting("AUTH_AUDIENCE")),
        ];
        Ok(secret("auth", &values))
    }
}

/// The names that the README has a certificate made out to.
fn names(secret: &str) -> Result<Vec<String>> {
    let command = format!("certificate {secret} ");
    let after = README.split(&command).nth(1);
    // Behind the issuer: the usages, and the names.
    let names = after.and_then(|rest| rest.split('\'').nth(3));
    let names = names.with_context(|| format!("deploy/README.md has no {command:?}"))?;
    Ok(names
        .split(',')
        .map(|name| name.trim().trim_matches('"').to_owned())
        .collect())
}

fn login(name: &str, user: &str) -> Object {
    secret(
        name,
        &[("username", user.to_owned()), ("password", password())],
    )
}

/// That begins with a letter, as the README says.
fn password() -> String {
    format!("s{}", Uuid::now_v7().simple())
}
