//! What can be typed: the load, where it goes, and what is asked of it.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, ensure};
use chassis::config;
use chassis::grpc::client::Address;
use clap::{Args, Parser, ValueEnum};
use serde::Serialize;

use crate::mix::Mix;
use crate::reach::caller::Caller;
use crate::schedule::{ArrivalKind, Profile, Stage};
use crate::slo::Slo;
use crate::value::{rate, share, time};

/// More customers than this take longer to create than any load lasts (I12).
const CUSTOMERS_MAX: u64 = 1_000_000;
/// Requests on their way at once (I12): each holds a few kilobytes here and a stream over there.
const IN_FLIGHT_MAX: u64 = 100_000;

const EXIT_STATUS: &str = "\
Exit status:
  0  the run is done; every --slo is met, and the books balance
  1  it could not be done; standard error says why
  2  the options cannot be understood
  3  an --slo was missed
  4  the books do not balance, or an order did not settle in time; standard error names it";

/// Load on the Order Service that holds its rate, whatever the services do, and a report on what came of it
#[derive(Debug, Parser)]
#[command(name = "loadgen", version, after_help = EXIT_STATUS)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) load: Load,
    #[command(flatten)]
    pub(crate) judgement: Judgement,
    #[command(flatten)]
    pub(crate) connection: Connection,
}

/// What is sent, and when.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Load")]
pub(crate) struct Load {
    /// Requests that are due each second; with --stages, the rate of the warm-up
    #[arg(long, default_value = "100", value_parser = rate)]
    pub(crate) rate: f64,
    /// Whether arrivals are random, as those of many clients are, or evenly spaced
    #[arg(long, default_value = "poisson")]
    pub(crate) arrivals: ArrivalKind,
    /// For how long requests are due and counted, such as 30s or 10m
    #[arg(long, default_value = "30s", value_parser = time, conflicts_with = "stages")]
    pub(crate) duration: Duration,
    /// Instead of a duration: rates that are approached in a straight line, such as 30s:500,1m:500,10s:0
    #[arg(long, value_name = "TIME:RATE,…", value_delimiter = ',')]
    pub(crate) stages: Vec<Stage>,
    /// For how long requests are sent before they are counted
    #[arg(long, default_value = "5s", value_parser = time)]
    pub(crate) warm_up: Duration,
    /// Shares of the operations
    #[arg(long, default_value = "create=70,get=20,cancel=5,watch=5")]
    pub(crate) mix: Mix,
    /// Customers, created before the load, who place the orders
    #[arg(long, default_value = "1000", value_parser = clap::value_parser!(u64).range(1..=CUSTOMERS_MAX))]
    pub(crate) customers: u64,
    /// The exponent of the Zipf distribution by which customers are drawn; 0 draws all alike
    #[arg(long, default_value = "1", value_parser = rate)]
    pub(crate) zipf: f64,
    /// What each order is for, in cents
    #[arg(long, value_name = "CENTS", default_value = "100",
          value_parser = clap::value_parser!(i64).range(1..=1_000_000_000))]
    pub(crate) amount: i64,
    /// Each customer's credit limit, in cents; a low one makes orders that are refused
    #[arg(long, value_name = "CENTS", default_value = "1000000000000",
          value_parser = clap::value_parser!(i64).range(0..=1_000_000_000_000_000))]
    pub(crate) credit_limit: i64,
    /// Requests on their way at once; those that are due meanwhile wait here, and are late
    #[arg(long, default_value = "1024", value_parser = clap::value_parser!(u64).range(1..=IN_FLIGHT_MAX))]
    pub(crate) in_flight: u64,
    /// How long after it was due a request is given up; one that was not sent by then counts as unsent
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = time)]
    pub(crate) request_timeout: Duration,
    /// How long after it was due an order may take to be settled, and the books to balance after the load
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = time)]
    pub(crate) settle_timeout: Duration,
    /// The share of the orders whose outcome is awaited, by a request of its own for each
    #[arg(long, value_name = "SHARE", default_value = "100%", value_parser = share)]
    pub(crate) track: f64,
    /// Places orders without a `request_id`, as who never tries again, and as other programs can
    #[arg(long, hide = true)]
    pub(crate) without_request_ids: bool,
    /// Repeats the arrivals, operations and customers of another run; drawn if not given
    #[arg(long)]
    pub(crate) seed: Option<u64>,
}

/// What is asked of it, and where it is written.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Judgement")]
pub(crate) struct Judgement {
    /// What must hold, such as p99=250ms, settled-p99.9=2s, errors=0.1%; may be given several times
    #[arg(long, value_name = "WHAT=BOUND")]
    pub(crate) slo: Vec<Slo>,
    /// Writes the report for people to this file, `-` for standard output: one page, with its charts in it
    #[arg(long, value_name = "FILE")]
    pub(crate) html: Option<PathBuf>,
    /// Writes the report for programs to this file, `-` for standard output; loadgen/report.schema.json says what it holds
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
}

/// Where the services are, and how they are asked.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Connection")]
pub(crate) struct Connection {
    /// How requests travel
    #[arg(long, default_value = "grpc")]
    pub(crate) via: Via,
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
    /// gRPC connections that the requests are spread over; each carries 256 at a time
    #[arg(long, default_value = "4", value_parser = clap::value_parser!(u16).range(1..=256))]
    pub(crate) connections: u16,
    #[command(flatten)]
    pub(crate) caller: Caller,
    #[command(flatten, next_help_heading = "NATS")]
    pub(crate) nats: config::Nats,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Via {
    Grpc,
    Nats,
}

impl Load {
    /// The rate over time: the warm-up, and then what is counted.
    pub(crate) fn profile(&self) -> Result<Profile> {
        ensure!(self.rate > 0.0, "--rate must be more than 0");
        let counted = match self.stages.as_slice() {
            [] => vec![Stage {
                lasts: self.duration,
                rate: self.rate,
            }],
            stages => stages.to_vec(),
        };
        let profile = Profile::new(self.rate, self.warm_up, &counted);
        ensure!(
            profile.end() > self.warm_up,
            "nothing is counted: --duration or --stages must be longer than 0"
        );
        Ok(profile)
    }
}
