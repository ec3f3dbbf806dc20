//! The configuration file: TOML, whose values become the defaults of the arguments.
//!
//! It is read before the command line is parsed, so that what it sets counts as set: a required
//! argument may stand in it. Danger: it may hold passwords. Neither errors nor `--help` repeat a value
//! that the argument keeps secret.

use std::{env, ffi::OsString, fs, path::Path};

use clap::{Arg, Command, builder::Resettable};
use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::keys;

/// A configuration file of more bytes is none.
const BYTES_MAX: u64 = 1024 * 1024;

/// The values for one argument.
struct Setting {
    argument: &'static str,
    /// `[section] key`, with the file and the line before it.
    place: String,
    key: String,
    values: Vec<String>,
}

/// Gives the command, and its subcommands, the values of the file that the command line or the
/// environment names, if one does.
///
/// # Errors
/// Names file, line, key and reason of everything that is wrong in the file, a line each.
pub fn apply(command: Command, given: &[OsString]) -> Result<Command, String> {
    let Some(path) = named(given) else {
        return Ok(command);
    };
    let path = Path::new(&path);
    let (settings, mut wrong) = read(path)?;
    wrong.extend(
        settings
            .iter()
            .filter_map(|setting| refusal(&command, setting)),
    );
    if !wrong.is_empty() {
        return Err(wrong.join("\n"));
    }
    let with = |arg: Arg| match settings.iter().find(|one| arg.get_id() == one.argument) {
        Some(setting) => arg
            .required(false)
            .default_values(setting.values.iter().map(OsString::from))
            .hide_default_value(true),
        None => arg,
    };
    let command = command.mut_args(&with);
    Ok(command.mut_subcommands(|subcommand| subcommand.mut_args(&with)))
}

/// The file that `--config` or `CDC_CONFIG` names.
fn named(given: &[OsString]) -> Option<OsString> {
    let mut words = given.iter().skip(1).take_while(|word| *word != "--");
    while let Some(word) = words.next() {
        if word == "--config" {
            return words.next().cloned();
        }
        let assigned = word
            .to_str()
            .and_then(|word| word.strip_prefix("--config="));
        if let Some(path) = assigned {
            return Some(path.into());
        }
    }
    env::var_os("CDC_CONFIG").filter(|path| !path.is_empty())
}

/// The file's settings, and what is wrong with its keys.
fn read(path: &Path) -> Result<(Vec<Setting>, Vec<String>), String> {
    let name = path.display();
    let cannot = |why: &dyn std::fmt::Display| format!("{name}: cannot be read: {why}");
    let length = fs::metadata(path).map_err(|error| cannot(&error))?.len();
    if length > BYTES_MAX {
        return Err(cannot(&format!("it has more than {BYTES_MAX} bytes")));
    }
    let text = fs::read_to_string(path).map_err(|error| cannot(&error))?;
    let line = |at: usize| text[..at].matches('\n').count() + 1;
    let root = DeTable::parse(&text).map_err(|error| {
        // Not its own rendering, which repeats the line.
        let at = error.span().map_or(1, |span| line(span.start));
        format!("{name}, line {at}: is not TOML: {}", error.message())
    })?;
    let (mut settings, mut wrong) = (Vec::new(), Vec::new());
    for (section, content) in root.get_ref() {
        let section_name: &str = section.get_ref();
        let DeValue::Table(content) = content.get_ref() else {
            let place = format!(
                "{name}, line {}: {section_name}",
                line(section.span().start)
            );
            wrong.push(format!("{place} {}", unknown("", section_name)));
            continue;
        };
        for (key, value) in content {
            let at = line(key.span().start);
            let key: &str = key.get_ref();
            let place = format!("{name}, line {at}: [{section_name}] {key}");
            match keys::argument(section_name, key) {
                None => wrong.push(format!("{place} {}", unknown(section_name, key))),
                Some(argument) => match values(value) {
                    Err(why) => wrong.push(format!("{place}: {why}")),
                    Ok(values) => settings.push(Setting {
                        argument,
                        place: format!("{name}, line {at}: [{section_name}]"),
                        key: key.to_owned(),
                        values,
                    }),
                },
            }
        }
    }
    Ok((settings, wrong))
}

fn unknown(section: &str, key: &str) -> String {
    match keys::nearest(section, key) {
        Some(nearest) => format!("is not a key that the relay knows; is {nearest} meant?"),
        None => "is not a key that the relay knows".to_owned(),
    }
}

/// A value as the command line would give it: lists as several, a table as JSON.
fn values(value: &Spanned<DeValue<'_>>) -> Result<Vec<String>, String> {
    match value.get_ref() {
        DeValue::Array(items) => items.iter().map(scalar).collect(),
        DeValue::Table(table) => {
            let member = |(name, value): (&Spanned<_>, _)| {
                let name: &std::borrow::Cow<'_, str> = name.get_ref();
                Ok((name.to_string(), scalar(value)?.into()))
            };
            let members: Result<serde_json::Map<_, _>, String> = table.iter().map(member).collect();
            Ok(vec![serde_json::Value::Object(members?).to_string()])
        }
        _ => Ok(vec![scalar(value)?]),
    }
}

fn scalar(value: &Spanned<DeValue<'_>>) -> Result<String, String> {
    match value.get_ref() {
        DeValue::String(text) => Ok(text.to_string()),
        DeValue::Integer(number) => match i64::from_str_radix(number.as_str(), number.radix()) {
            Ok(number) => Ok(number.to_string()),
            Err(_) => Err("is a number beyond 64 bits".to_owned()),
        },
        DeValue::Boolean(flag) => Ok(flag.to_string()),
        _ => Err("must be a string, a number, true or false, or a list of these".to_owned()),
    }
}

/// Why the argument refuses what the file sets, in the words of its own parser.
fn refusal(command: &Command, setting: &Setting) -> Option<String> {
    let of = |command: &Command| {
        let mut arguments = command.get_arguments();
        arguments
            .find(|arg| arg.get_id() == setting.argument)
            .cloned()
    };
    let argument = of(command).or_else(|| command.get_subcommands().find_map(of))?;
    let list = argument
        .get_num_args()
        .is_some_and(|range| range.max_values() > 1)
        || argument.get_value_delimiter().is_some();
    if setting.values.len() > 1 && !list {
        return Some(format!(
            "{} {}: must be one value",
            setting.place, setting.key
        ));
    }
    // Alone and without its variable, it speaks of the key.
    let alone = argument
        .id(setting.key.clone())
        .env(Resettable::Reset)
        .long("value")
        .short(None)
        .required(false);
    let probe = Command::new("file").no_binary_name(true).arg(alone);
    let given = setting
        .values
        .iter()
        .map(|value| format!("--value={value}"));
    // A list is given as one: a flag is not repeated.
    let given: Vec<String> = if list {
        vec![format!("--value={}", setting.values.join(","))]
    } else {
        given.collect()
    };
    let error = probe.try_get_matches_from(given).err()?.to_string();
    let why = error.trim().trim_start_matches("error: ");
    Some(format!("{} {why}", setting.place))
}
