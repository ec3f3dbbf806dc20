//! Configuration: defaults, refusals, secrets, and the table in `docs/configuration.md`.

use chassis::config::{Admin, Database, LogFormat, Nats, Owner, Shutdown, Telemetry};
use clap::{CommandFactory as _, Parser};

#[derive(Debug, Parser)]
#[command(name = "process")]
struct Config {
    #[command(flatten)]
    telemetry: Telemetry,
    #[command(flatten)]
    database: Database,
    #[command(flatten)]
    owner: Owner,
    #[command(flatten)]
    nats: Nats,
    #[command(flatten)]
    admin: Admin,
    #[command(flatten)]
    shutdown: Shutdown,
}

const URL: &str = "--database-url=postgres://ana:hunter2@db/orders";

#[test]
fn only_the_database_has_no_default() {
    let config = Config::try_parse_from(["process", URL]).unwrap();
    assert_eq!(config.telemetry.log_filter, "info,async_nats=warn");
    assert_eq!(config.telemetry.log_format, LogFormat::Text);
    assert_eq!(config.telemetry.otlp_endpoint, None);
    assert_eq!(config.database.pool_size, 8);
    let owner = (
        config.owner.url,
        config.owner.relay_role,
        config.owner.auditor_role,
    );
    assert!(matches!(owner, (None, None, None)), "{owner:?}");
    assert_eq!(config.nats.url.expose(), "nats://127.0.0.1:4222");
    assert_eq!(config.nats.inbox_prefix, "_INBOX");
    assert_eq!(config.admin.listen.to_string(), "0.0.0.0:9090");
    assert_eq!(config.shutdown.deadline_seconds, 25);

    let missing = Config::try_parse_from(["process"]).unwrap_err().to_string();
    assert!(missing.contains("DATABASE_URL"), "{missing}");
}

#[test]
fn a_refusal_names_the_variable_the_reason_and_a_right_example() {
    for (flag, variable, reason) in [
        (
            "--database-pool-size=0",
            "DATABASE_POOL_SIZE",
            "must be a number from 1 to 1024",
        ),
        (
            "--database-relay-role=",
            "DATABASE_RELAY_ROLE",
            "must be a role's name, of 1 to 63 bytes",
        ),
        (
            "--nats-inbox-prefix=_INBOX.>",
            "NATS_INBOX_PREFIX",
            "must be a subject without wildcards",
        ),
        ("--log-format=xml", "LOG_FORMAT", "must be text or json"),
        ("--log-filter=info,,=", "LOG_FILTER", "is not a log filter"),
        (
            "--admin-listen=9090",
            "ADMIN_LISTEN",
            "must be an IP address and a port",
        ),
        (
            "--nats-url=",
            "NATS_URL",
            "must be the URL of a NATS server",
        ),
        (
            "--otel-exporter-otlp-endpoint=db:1",
            "OTEL_EXPORTER_OTLP_ENDPOINT",
            "must be the http",
        ),
        (
            "--shutdown-deadline-seconds=soon",
            "SHUTDOWN_DEADLINE_SECONDS",
            "must be a number",
        ),
    ] {
        let refused = Config::try_parse_from(["process", URL, flag])
            .unwrap_err()
            .to_string();
        for part in [variable, reason, &format!("for example {variable}=")] {
            assert!(refused.contains(part), "{part:?} is missing: {refused}");
        }
    }
}

#[test]
fn no_output_repeats_a_password() {
    for (database, nats) in [
        ("postgres://ana:hunter2@/orders", "nats://n1"),
        ("mysql://ana:hunter2@db/orders", "nats://n1"),
        (
            "postgres://ana:hunter2@db/orders",
            "nats://ana:hunter2@n1:port",
        ),
    ] {
        let (database, nats) = (
            format!("--database-url={database}"),
            format!("--nats-url={nats}"),
        );
        let refused = Config::try_parse_from(["process", &database, &nats]).unwrap_err();
        assert!(
            !format!("{refused} {refused:?}").contains("hunter2"),
            "{refused}"
        );
    }
    let config = Config::try_parse_from(["process", URL, "--nats-url=nats://hunter2@n1"]).unwrap();
    assert!(!format!("{config:?}").contains("hunter2"), "{config:?}");
    for arg in Config::command().get_arguments() {
        let id = arg.get_id().as_str();
        let secret = id.ends_with("_URL") || id.ends_with("_ENDPOINT");
        assert!(
            arg.is_hide_env_values_set() || !secret,
            "{arg} shows in --help"
        );
    }
}

#[test]
fn the_documented_table_is_the_one_in_the_code() {
    let documented = include_str!("../../../docs/configuration.md");
    for arg in Config::command().get_arguments() {
        let Some(variable) = arg.get_env() else {
            continue;
        };
        let variable = variable.to_string_lossy();
        let line = documented
            .lines()
            .find(|line| line.starts_with(&format!("| `{variable}` |")))
            .unwrap_or_else(|| panic!("docs/configuration.md does not tell of {variable}"));
        for default in arg.get_default_values() {
            let default = format!("`{}`", default.to_string_lossy());
            assert!(
                line.contains(&default),
                "{variable}: the default {default} is missing"
            );
        }
        let help = arg.get_help().unwrap().to_string();
        assert!(
            line.contains(&help),
            "{variable}: not the help text {help:?}"
        );
    }
}
