//! NATS and the stream.

use std::time::Duration;

use async_nats::{
    Client,
    jetstream::{self, ErrorCode, context::GetStreamErrorKind, stream::Info},
};
use tokio::time::timeout;

use super::{LOOK_TIMEOUT, Report};
use crate::{
    config::{Config, Create},
    publish::covers,
    retention::enough,
    stream,
};

/// How long NATS may take to be reached.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Looks, and returns for how long the stream keeps its events (zero: for ever), if that is known.
pub(super) async fn look(
    config: &Config,
    largest: Option<usize>,
    report: &mut Report,
) -> Option<Duration> {
    let connecting = chassis::nats::connect(&config.nats, "cdc-relay-check");
    let client = match timeout(CONNECT_TIMEOUT, connecting).await {
        Ok(Ok(client)) => client,
        Ok(Err(error)) => {
            report.wrong("NATS", format!("{error:#}"), "mend NATS_URL or the login");
            return None;
        }
        Err(_) => {
            let text = format!(
                "{} did not answer within {CONNECT_TIMEOUT:?}",
                config.nats.url
            );
            report.wrong("NATS", text, "start it, or mend NATS_URL or the network");
            return None;
        }
    };
    let server = client.server_info();
    let text = format!("nats-server {} at {}", server.version, config.nats.url);
    if client.is_server_compatible(2, 12, 0) {
        report.ok("NATS", text);
    } else {
        report.warning(
            "NATS",
            format!("{text} has no atomic batches: each event waits for the acknowledgement of the one before"),
            "upgrade nats-server to 2.12 or newer",
        );
    }
    let looked = timeout(LOOK_TIMEOUT, streams(&client, config, largest, report)).await;
    looked.unwrap_or_else(|_| {
        let text = format!("JetStream did not answer within {LOOK_TIMEOUT:?}");
        report.wrong(
            "JetStream",
            text,
            "look for a cluster without a leader: `nats server report jetstream`",
        );
        None
    })
}

async fn streams(
    client: &Client,
    config: &Config,
    largest: Option<usize>,
    report: &mut Report,
) -> Option<Duration> {
    let jetstream = jetstream::new(client.clone());
    if let Err(error) = jetstream.query_account().await {
        let mend =
            "start the server with `-js` or a `jetstream` block, and enable it for the account";
        report.wrong("JetStream", error.to_string(), mend);
        return None;
    }
    report.ok("JetStream", "enabled for the account");
    let name = &config.stream.name;
    match jetstream.get_stream(name).await {
        Ok(stream) => {
            let info = stream.cached_info();
            existing(client, config, info, largest, report);
            enough::max_age(config, Some(info))
        }
        Err(error) => match error.kind() {
            GetStreamErrorKind::JetStream(refused)
                if refused.error_code() == ErrorCode::STREAM_NOT_FOUND =>
            {
                missing(client, config, largest, report).await;
                enough::max_age(config, None)
            }
            _ => {
                let text = format!("{name}: {error}");
                report.wrong("stream", text, "mend the rights of the login");
                None
            }
        },
    }
}

async fn missing(client: &Client, config: &Config, largest: Option<usize>, report: &mut Report) {
    let (name, subjects) = (&config.stream.name, &config.stream.subjects);
    if config.stream.create == Create::Never {
        let text = format!(
            "{name} does not exist, and CDC_STREAM_CREATE=never leaves its making to others"
        );
        report.wrong("stream", text, format!("nats stream add {name}"));
    } else {
        report.ok(
            "stream",
            format!(
                "{name} does not exist: the relay makes it for {}",
                subjects.join(", ")
            ),
        );
        taken(client, config, report).await;
    }
    covered(config, subjects, report);
    payload(
        client.max_payload(),
        "max_payload of the server",
        largest,
        report,
    );
    durability(config.stream.replicas.into(), report);
}

/// Subjects belong to one stream each.
async fn taken(client: &Client, config: &Config, report: &mut Report) {
    let jetstream = jetstream::new(client.clone());
    for subject in &config.stream.subjects {
        if let Ok(other) = jetstream.stream_by_subject(subject.as_str()).await {
            report.wrong(
                "stream subjects",
                format!("{subject} is taken by stream {other} already"),
                "choose other subjects in CDC_STREAM_SUBJECTS and CDC_SUBJECT, or name that stream",
            );
        }
    }
}

fn existing(
    client: &Client,
    config: &Config,
    info: &Info,
    largest: Option<usize>,
    report: &mut Report,
) {
    let (name, found) = (&config.stream.name, &info.config);
    match stream::unsuitable(found) {
        Some(why) => report.wrong("stream", why, ""),
        None => report.ok(
            "stream",
            format!("{name} holds {} events", info.state.messages),
        ),
    }
    if !found.allow_atomic_publish && client.is_server_compatible(2, 12, 0) {
        report.warning(
            "atomic batches",
            format!("{name} does not allow them: each event waits for the acknowledgement of the one before"),
            format!("nats stream edit {name} --allow-batch"),
        );
    }
    if config.stream.create == Create::Missing {
        for difference in stream::differences(found, &config.stream) {
            let mend = format!("`nats stream edit {name}`, or set what is meant in [stream]");
            report.warning("stream settings", difference, mend);
        }
    }
    covered(config, &found.subjects, report);
    match usize::try_from(found.max_message_size) {
        Ok(bytes) if bytes > 0 && bytes < client.max_payload() => {
            payload(bytes, "max_msg_size of the stream", largest, report);
        }
        _ => payload(
            client.max_payload(),
            "max_payload of the server",
            largest,
            report,
        ),
    }
    let window = found.duplicate_window;
    report.ok(
        "duplicate window",
        format!("{window:?}; the relay does not rely on it"),
    );
    durability(found.num_replicas, report);
}

/// Whether the stream takes what the template can become.
fn covered(config: &Config, subjects: &[String], report: &mut Report) {
    let pattern = config.message.subject.pattern();
    // A `>` stands for any text here: what covers it covers whatever comes.
    if subjects.iter().any(|taken| covers(taken, &pattern)) {
        return report.ok("subjects", format!("the stream takes all of {pattern}"));
    }
    let head = pattern.trim_end_matches('>');
    let text = format!(
        "the stream takes {}, and events go to {pattern}",
        subjects.join(", ")
    );
    let mend = "add the subject to the stream, or mend CDC_SUBJECT";
    let some = |taken: &String| {
        let taken = taken
            .trim_end_matches('>')
            .split('*')
            .next()
            .unwrap_or_default();
        taken.starts_with(head) || head.starts_with(taken)
    };
    if pattern.ends_with('>') && subjects.iter().any(some) {
        report.warning("subjects", format!("{text}: some may not be taken"), mend);
    } else {
        report.wrong("subjects", text, mend);
    }
}

fn payload(limit: usize, which: &str, largest: Option<usize>, report: &mut Report) {
    match largest {
        Some(largest) if largest > limit => report.wrong(
            "payload",
            format!("a row of the table has {largest} bytes, and {which} is {limit}"),
            format!("raise {which}"),
        ),
        Some(largest) if largest > limit / 2 => report.warning(
            "payload",
            format!("a row of the table has {largest} bytes, over half of {which}, {limit}"),
            format!("raise {which}"),
        ),
        Some(largest) => report.ok(
            "payload",
            format!("{which} is {limit}; the largest row has {largest} bytes"),
        ),
        None => report.ok("payload", format!("{which} is {limit}")),
    }
}

fn durability(replicas: usize, report: &mut Report) {
    if replicas > 1 {
        return report.ok("replicas", replicas.to_string());
    }
    report.warning(
        "replicas",
        "1: the events stand on one disk",
        "run a cluster of three, and set CDC_STREAM_REPLICAS=3 (`nats stream edit --replicas 3` for a stream \
         that exists)",
    );
}
