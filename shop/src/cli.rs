//! What can be typed. `--help` shows all of it; what is set once stands in a variable.

use std::time::Duration;

use chassis::config;
use clap::parser::ValueSource;
use clap::{ArgMatches, Args, CommandFactory as _, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use proto::money::v1::Money;
use uuid::Uuid;

use crate::amount;
use crate::customer::CustomerCommand;
use crate::failure::Failure;
use crate::letters::LettersCommand;
use crate::order::OrderCommand;
use crate::reach::tls::Tls;
use crate::reach::token::Token;
use chassis::grpc::client::Address;

const EXIT_STATUS: &str = "\
Exit status:
  0  done
  1  refused, or failed; standard error says why and what to do
  2  the command is not one that can be understood, or an amount or id in it is not
With --wait, and for watch, the order's outcome:
  0  approved    1  cancelled    3  still pending when the wait was over";

/// Orders and customers from the command line, over gRPC or over NATS
#[derive(Debug, Parser)]
#[command(name = "shop", version, after_help = EXIT_STATUS)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
    #[command(flatten)]
    pub(crate) output: Output,
    #[command(flatten)]
    pub(crate) connection: Connection,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Customers, and the credit that their orders reserve
    #[command(subcommand)]
    Customer(CustomerCommand),
    /// Orders
    #[command(subcommand)]
    Order(OrderCommand),
    /// Events that a service could not apply
    #[command(subcommand)]
    DeadLetters(LettersCommand),
    /// Draws an id for --request-id and the field `requestId`, and prints it
    RequestId,
    /// Prints what makes a shell complete these commands: `source <(shop completions bash)`
    Completions { shell: Shell },
}

/// How answers are printed.
#[derive(Args, Clone, Copy, Debug)]
#[command(next_help_heading = "Output")]
pub(crate) struct Output {
    /// Prints JSON: one document, or a line for each with --all and watch
    #[arg(long, conflicts_with = "quiet")]
    pub(crate) json: bool,
    /// Prints ids alone, one a line
    #[arg(long, short)]
    pub(crate) quiet: bool,
}

/// An amount of money, in one word or two: `12.50 EUR`.
#[derive(Args, Clone, Debug)]
pub(crate) struct Amount {
    /// Such as 12.50 EUR, in no finer steps than the currency has
    #[arg(value_name = "AMOUNT", num_args = 1..=2, required = true)]
    amount: Vec<String>,
}

impl Amount {
    pub(crate) fn money(&self) -> Result<Money, Failure> {
        let text = self.amount.join(" ");
        amount::parse(&text).map_err(|why| Failure::Usage(format!("the amount {text:?}: {why}")))
    }
}

/// What makes a request that is repeated take effect once.
#[derive(Args, Clone, Copy, Debug)]
pub(crate) struct Once {
    /// The id of an earlier try, to learn its answer; without it one is drawn, and sent with each try
    #[arg(long, value_name = "UUID", value_parser = id)]
    request_id: Option<Uuid>,
}

impl Once {
    pub(crate) fn request_id(self) -> Uuid {
        self.request_id.unwrap_or_else(Uuid::now_v7)
    }
}

/// Where the services are, and how they are asked.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Connection")]
pub(crate) struct Connection {
    /// How requests travel; --nats alone means `nats` too
    #[arg(
        id = "SHOP_VIA",
        long = "via",
        env = "SHOP_VIA",
        default_value = "grpc"
    )]
    via: Via,
    /// The address of both services' gRPC, where one address leads to both; it goes before the two below
    #[arg(long, value_name = "URL")]
    pub(crate) grpc: Option<Address>,
    /// The address of the Order Service's gRPC
    #[arg(
        id = "ORDERS_GRPC",
        long = "orders-grpc",
        env = "ORDERS_GRPC",
        value_name = "URL",
        default_value = "http://127.0.0.1:50051"
    )]
    pub(crate) orders: Address,
    /// The address of the Customer Service's gRPC
    #[arg(
        id = "CUSTOMERS_GRPC",
        long = "customers-grpc",
        env = "CUSTOMERS_GRPC",
        value_name = "URL",
        default_value = "http://127.0.0.1:50051"
    )]
    pub(crate) customers: Address,
    /// For how long a request is tried again while there is no answer, such as 10s, 500ms or 2m
    #[arg(id = "SHOP_TIMEOUT", long = "timeout", env = "SHOP_TIMEOUT", value_name = "TIME",
          default_value = "10s", value_parser = time)]
    pub(crate) timeout: Duration,
    #[command(flatten)]
    pub(crate) token: Token,
    #[command(flatten, next_help_heading = "TLS of gRPC")]
    pub(crate) tls: Tls,
    #[command(flatten, next_help_heading = "NATS")]
    pub(crate) nats: config::Nats,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub(crate) enum Via {
    Grpc,
    Nats,
}

impl Connection {
    /// An address that was typed says how requests travel, if nothing else that was typed does.
    pub(crate) fn via(&self, matches: &ArgMatches) -> Via {
        let typed = |id| matches.value_source(id) == Some(ValueSource::CommandLine);
        if typed("SHOP_VIA") {
            self.via
        } else if typed("NATS_URL") {
            Via::Nats
        } else if self.grpc.is_some() || typed("ORDERS_GRPC") || typed("CUSTOMERS_GRPC") {
            Via::Grpc
        } else {
            self.via
        }
    }
}

/// Every option may stand before the command and behind it. Of NATS, the short help shows only where it is, and of TLS
/// nothing.
pub(crate) fn command() -> clap::Command {
    Cli::command().mut_args(|argument| {
        let argument = argument.global(true);
        match argument.get_id().as_str() {
            "NATS_URL" => argument.visible_alias("nats"),
            id if id.starts_with("NATS_") || id.starts_with("SHOP_TLS_") => {
                argument.hide_short_help(true)
            }
            _ => argument,
        }
    })
}

/// The id of an order or a customer.
pub(crate) fn id(text: &str) -> Result<Uuid, String> {
    let wrong = "must be a UUID, such as 0192f8c1-6d3e-7a44-9a51-3c5b8e0d2f17; `list` has them";
    Uuid::try_parse(text).map_err(|_| wrong.to_owned())
}

/// `10s`, `500ms`, `2m`; a number alone is of seconds.
pub(crate) fn time(text: &str) -> Result<Duration, String> {
    let end = text.find(|letter: char| !letter.is_ascii_digit() && letter != '.');
    let (number, unit) = text.split_at(end.unwrap_or(text.len()));
    let milliseconds = match unit {
        "ms" => 1.0,
        "s" | "" => 1_000.0,
        "m" => 60_000.0,
        _ => return Err("must be a time such as 10s, 500ms or 2m".to_owned()),
    };
    let number: f64 = number
        .parse()
        .map_err(|_| "must be a time such as 10s, 500ms or 2m".to_owned())?;
    let seconds = number * milliseconds / 1_000.0;
    Duration::try_from_secs_f64(seconds)
        .ok()
        .filter(|time| *time <= TIME_MAX)
        .ok_or_else(|| format!("must be {} minutes at most", TIME_MAX.as_secs() / 60))
}

/// Nobody waits at a terminal for longer, and a slip of the finger should not (I12).
const TIME_MAX: Duration = Duration::from_secs(3600);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        command().debug_assert();
    }

    #[test]
    fn times_have_units() {
        assert_eq!(time("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(time("2m"), Ok(Duration::from_secs(120)));
        assert_eq!(time("1.5"), Ok(Duration::from_millis(1_500)));
        for wrong in ["", "s", "5h", "-1s", "1e3s", "61m", "1.2.3s"] {
            assert!(time(wrong).is_err(), "{wrong}");
        }
    }

    #[track_caller]
    fn travels(arguments: &[&str], expected: Via) {
        let all = ["shop", "order", "list"].iter().chain(arguments);
        let matches = command().try_get_matches_from(all).expect("it parses");
        let cli = <Cli as clap::FromArgMatches>::from_arg_matches(&matches).expect("it parses");
        assert_eq!(cli.connection.via(&matches), expected, "{arguments:?}");
    }

    #[test]
    fn an_address_says_how_requests_travel() {
        travels(&[], Via::Grpc);
        travels(&["--via", "nats"], Via::Nats);
        travels(&["--nats", "nats://127.0.0.1:4222"], Via::Nats);
        travels(&["--grpc", "127.0.0.1:1"], Via::Grpc);
        travels(
            &["--via", "grpc", "--nats", "nats://127.0.0.1:4222"],
            Via::Grpc,
        );
    }
}
