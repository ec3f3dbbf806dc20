//! docs/api.md, executed: every command of its console blocks as it stands, in one shell, and the answers
//! compared with those on the page but for ids and times.
//!
//! `WRITE_PAGE=1` writes what was answered into the page, for who has changed a command.

mod planted;

use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Output;

use harness::{System, binary};

use crate::foreign::{packages_or_say, say};

const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/api.md");
const CONTRACT: &str = include_str!("../../../proto/contract.txt");
const FOREIGN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/foreign");

/// A line that no command prints.
const MARK: &str = "-- next --";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_pages_examples_answer_as_it_says() {
    let Some(packages) = packages_or_say("docs/api.md").await else {
        return;
    };
    // Of its own: it lists the dead letters.
    let system = System::start().await.expect("the system starts");
    planted::plant(&system).await.expect("dead letters");
    let page = fs::read_to_string(PAGE).expect("the page is there");
    let commands: Vec<_> = page
        .lines()
        .filter_map(|line| line.strip_prefix("$ "))
        .collect();
    assert!(commands.len() > 20, "the page's commands are not found");
    let output = executed(&system, &packages, &commands).await;
    let said = String::from_utf8(output.stdout).expect("text");
    let complained = String::from_utf8_lossy(&output.stderr);
    let answers: Vec<_> = said.split(&format!("{MARK}\n")).collect();
    assert_eq!(answers.len(), commands.len() + 1, "{said}{complained}");
    let answered = with_answers(&page, &answers);
    if std::env::var_os("WRITE_PAGE").is_some() {
        fs::write(PAGE, &answered).expect("the page can be written");
        return say("docs/api.md is written");
    }
    let (told, found) = (plain(&page), plain(&answered));
    for (line, (told, found)) in told.lines().zip(found.lines()).enumerate() {
        assert_eq!(told, found, "docs/api.md, about line {}", line + 1);
    }
    assert_eq!(told, found);
}

#[test]
fn the_page_names_every_operation() {
    let page = fs::read_to_string(PAGE).expect("the page is there");
    let operations = CONTRACT
        .lines()
        .filter_map(|line| line.strip_prefix("rpc "));
    for operation in operations {
        let name = operation.split(' ').nth(1).expect("an operation");
        assert!(
            page.contains(&format!("\n| `{name}` |")),
            "docs/api.md lacks {name}"
        );
    }
}

/// Runs the commands in one shell; their answers, errors too, with the mark behind each.
async fn executed(system: &System, packages: &Path, commands: &[&str]) -> Output {
    let folder = system.directory().join("page");
    fs::create_dir_all(&folder).expect("a folder for the programs");
    let python = |script: &str| {
        format!(
            "PYTHONPATH='{}' exec python3 {FOREIGN}/{script}",
            packages.display()
        )
    };
    let own = |name| binary(name).expect("it is built").display().to_string();
    program(&folder, "shop", &format!("exec {}", own("shop")));
    // `cargo -q xtask …`, without cargo: the tests have built it.
    program(&folder, "cargo", &format!("shift 2; exec {}", own("xtask")));
    program(&folder, "grpcurl", &python("grpcurl.py"));
    program(&folder, "nats", &python("nats_cli.py"));
    let mut script = String::from("exec 2>&1\n");
    for command in commands {
        write!(script, "{command}\necho '{MARK}'\n").expect("a string takes all");
    }
    let path = std::env::var("PATH").unwrap_or_default();
    let address = |name| system.grpc_url(name).replace("http://", "");
    tokio::process::Command::new("bash")
        .args(["-c", &script])
        .env("PATH", format!("{}:{path}", folder.display()))
        .env("ORDERS_GRPC", address("order-service"))
        .env("CUSTOMERS_GRPC", address("customer-service"))
        .env("NATS_URL", system.nats().url())
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .env("SHOP_TIMEOUT", "60s")
        .env_remove("SHOP_VIA")
        .current_dir(&folder)
        .kill_on_drop(true)
        .output()
        .await
        .expect("bash runs")
}

fn program(folder: &Path, name: &str, what: &str) {
    let path: PathBuf = folder.join(name);
    fs::write(&path, format!("#!/bin/sh\n{what} \"$@\"\n")).expect("it can be written");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("and run");
}

/// The page with these answers below its commands.
fn with_answers(page: &str, answers: &[&str]) -> String {
    let (mut text, mut answers) = (String::new(), answers.iter());
    let mut in_console = false;
    for line in page.lines() {
        match line {
            "```console" => in_console = true,
            "```" => in_console = false,
            _ => {}
        }
        let is_command = line.starts_with("$ ");
        if in_console && !is_command && line != "```console" {
            continue; // An answer as it was.
        }
        text.push_str(line);
        text.push('\n');
        if is_command {
            text.push_str(answers.next().copied().unwrap_or_default());
        }
    }
    text
}

/// The text with ids by the order in which they come, and without times: the same id has the same name.
fn plain(text: &str) -> String {
    let mut ids: Vec<&str> = Vec::new();
    let mut plain = String::new();
    let mut rest = text;
    while let Some(next) = rest.chars().next() {
        if let Some(id) = rest.get(..36).filter(|word| fits(word, ID)) {
            let place = ids
                .iter()
                .position(|known| *known == id)
                .unwrap_or(ids.len());
            if place == ids.len() {
                ids.push(id);
            }
            write!(plain, "<id {place}>").expect("a string takes all");
            rest = &rest[36..];
        } else if let Some(time) = rest.get(..19).filter(|word| fits(word, TIME)) {
            let fraction = |letter: char| letter.is_ascii_digit() || letter == '.';
            rest = rest[time.len()..].trim_start_matches(fraction);
            plain.push_str("<time>");
        } else {
            plain.push(next);
            rest = &rest[next.len_utf8()..];
        }
    }
    plain
}

const ID: &str = "xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx";
const TIME: &str = "xxxx-xx-xxTxx:xx:xx";

/// Whether a hexadecimal digit stands for each `x`.
fn fits(word: &str, form: &str) -> bool {
    let fit = |(letter, place): (u8, u8)| match place {
        b'x' => letter.is_ascii_hexdigit(),
        sign => letter == sign,
    };
    word.bytes().zip(form.bytes()).all(fit)
}
