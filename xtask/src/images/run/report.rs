//! The overlay's Job: `loadgen`, whose reports stand in its log, as `deploy/README.md` takes them out of it.

use std::fs;

use anyhow::{Context, Result, ensure};

use super::cluster::Cluster;
use super::folder;
use super::pod::Container;
use super::standin::StandIn;

/// Runs it to its end, and keeps its reports. What it judges is the outcome.
pub(super) fn of_load(
    cluster: &mut Cluster,
    job: Container,
    instead: Option<&StandIn>,
    overlay: &str,
) -> Result<()> {
    let target = folder();
    let kept = target
        .parent()
        .context("a folder in none")?
        .join("load")
        .join(overlay);
    fs::create_dir_all(&kept)?;
    let log = kept.join("load.log");
    let status = cluster.run_to_end(job, instead, &log)?;
    let log = fs::read_to_string(&log)?;
    for (file, from, to) in [
        ("report.html", "<!DOCTYPE", "</html>"),
        ("report.json", "{", "}"),
    ] {
        let text = part(&log, from, to).with_context(|| format!("the log has no {file}"))?;
        fs::write(kept.join(file), text)?;
    }
    println!("the reports: {}", kept.display());
    ensure!(status.success(), "the load test did not pass: {status}");
    Ok(())
}

/// From the line that begins so to the one that ends, or for JSON begins, so.
fn part(log: &str, from: &str, to: &str) -> Option<String> {
    let mut lines = log.lines().skip_while(|line| !line.starts_with(from));
    let mut found = String::new();
    loop {
        let line = lines.next()?;
        found.push_str(line);
        found.push('\n');
        let last = if to == "}" {
            line.starts_with(to)
        } else {
            line.ends_with(to)
        };
        if last {
            return Some(found);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_reports_are_taken_out_of_a_log() {
        let log = "preparing\n<!DOCTYPE html>\n<p>a</p>\n</body></html>\n{\n  \"a\": {\n  }\n}\n";
        let html = "<!DOCTYPE html>\n<p>a</p>\n</body></html>\n";
        assert_eq!(part(log, "<!DOCTYPE", "</html>").unwrap(), html);
        assert_eq!(part(log, "{", "}").unwrap(), "{\n  \"a\": {\n  }\n}\n");
        assert_eq!(part("{\n  cut off", "{", "}"), None);
    }
}
