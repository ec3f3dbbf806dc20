//! `check`: the preflight, as a table or as JSON.

use std::{
    io::{self, Write as _},
    process::ExitCode,
};

use clap::Args;
use serde_json::json;

use crate::{
    config::Config,
    preflight::{self, Level, Report},
};

#[derive(Args, Clone, Debug)]
pub struct Check {
    #[command(flatten)]
    pub config: Config,
    /// As one JSON document
    #[arg(long)]
    pub json: bool,
}

/// Looks, and says what it found; fails if something is wrong.
///
/// # Errors
/// When standard output is closed.
pub async fn run(Check { config, json }: Check) -> anyhow::Result<ExitCode> {
    let report = preflight::run(&config).await;
    let text = if json {
        as_json(&report)
    } else {
        as_table(&report)
    };
    io::stdout().write_all(text.as_bytes())?;
    Ok(match report.worst() {
        Level::Wrong => ExitCode::FAILURE,
        Level::Ok | Level::Warning => ExitCode::SUCCESS,
    })
}

fn count(report: &Report, level: Level) -> usize {
    let findings = report.findings.iter();
    findings.filter(|finding| finding.level == level).count()
}

fn as_json(report: &Report) -> String {
    let findings: Vec<_> = report
        .findings
        .iter()
        .map(|finding| {
            json!({
                "level": finding.level.name(),
                "what": finding.what,
                "text": finding.text,
                "mend": finding.mend,
            })
        })
        .collect();
    let document = json!({
        "worst": report.worst().name(),
        "wrong": count(report, Level::Wrong),
        "warnings": count(report, Level::Warning),
        "findings": findings,
    });
    format!("{document:#}\n")
}

fn as_table(report: &Report) -> String {
    let widths = report.findings.iter().map(|finding| finding.what.len());
    let width = widths.max().unwrap_or_default();
    let mut table = String::new();
    for finding in &report.findings {
        let level = finding.level.name();
        table.push_str(&format!(
            "{level:<8} {:<width$}  {}\n",
            finding.what, finding.text
        ));
        if let Some(mend) = &finding.mend {
            table.push_str(&format!("{:<8} {:<width$}  mend: {mend}\n", "", ""));
        }
    }
    let (wrong, warnings) = (count(report, Level::Wrong), count(report, Level::Warning));
    table.push_str(&format!("\n{wrong} wrong, {warnings} to be known\n"));
    table
}
