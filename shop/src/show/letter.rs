//! Dead letters as they are printed.

use proto::dead_letters::v1::{
    DeadLetter, DiscardDeadLettersResponse, GetDeadLetterResponse, RedriveOutcome, RedriveResult,
};

use super::{Form, Out, Shown, time, words};
use crate::failure::Failure;

impl Shown for DeadLetter {
    const COLUMNS: &'static [(&'static str, bool)] = &[
        ("LETTER", true),
        ("OF", false),
        ("EVENT", false),
        ("ABOUT", false),
        ("DEAD SINCE", false),
        ("TRIES", true),
        ("REASON", false),
    ];

    fn id(&self) -> String {
        self.sequence.to_string()
    }

    fn row(&self) -> Vec<String> {
        vec![
            self.sequence.to_string(),
            self.durable.clone(),
            self.event_type.clone(),
            self.aggregate_id.clone(),
            time(self.dead_time.as_ref()),
            self.attempts.to_string(),
            self.reason.clone(),
        ]
    }

    fn record(&self) -> Vec<(&'static str, String)> {
        let about = format!("{} {}", self.aggregate_type, self.aggregate_id);
        let origin = format!("{} {}", self.origin_stream, self.origin_sequence);
        vec![
            ("letter", self.sequence.to_string()),
            ("of", self.durable.clone()),
            ("reason", self.reason.clone()),
            ("tries", self.attempts.to_string()),
            ("dead since", time(self.dead_time.as_ref())),
            ("event", self.event_type.clone()),
            ("event id", self.event_id.clone()),
            ("about", about.trim().to_owned()),
            ("origin", origin),
        ]
    }
}

impl Shown for GetDeadLetterResponse {
    const COLUMNS: &'static [(&'static str, bool)] = DeadLetter::COLUMNS;

    fn id(&self) -> String {
        self.dead_letter.as_ref().map(Shown::id).unwrap_or_default()
    }

    fn row(&self) -> Vec<String> {
        self.dead_letter
            .as_ref()
            .map(Shown::row)
            .unwrap_or_default()
    }

    fn record(&self) -> Vec<(&'static str, String)> {
        let mut record = self
            .dead_letter
            .as_ref()
            .map(Shown::record)
            .unwrap_or_default();
        // They come in any order; those of one name in their own.
        let mut headers: Vec<_> = self.headers.iter().collect();
        headers.sort_by_key(|header| &header.name);
        for header in headers {
            record.push(("header", format!("{}: {}", header.name, header.value)));
        }
        record.push(match self.payload_unreadable.as_str() {
            "" => ("payload", self.payload_json.clone()),
            why => ("unreadable", why.to_owned()),
        });
        record
    }
}

impl Shown for RedriveResult {
    const COLUMNS: &'static [(&'static str, bool)] =
        &[("LETTER", true), ("OUTCOME", false), ("WHY", false)];

    fn id(&self) -> String {
        self.sequence.to_string()
    }

    fn row(&self) -> Vec<String> {
        let outcome = match RedriveOutcome::try_from(self.outcome) {
            Ok(outcome) => words(outcome.as_str_name(), "REDRIVE_OUTCOME_"),
            Err(_) => format!("outcome {}, which a newer shop knows", self.outcome),
        };
        vec![self.sequence.to_string(), outcome, self.why.clone()]
    }

    fn record(&self) -> Vec<(&'static str, String)> {
        let names = ["letter", "outcome", "why"];
        names.into_iter().zip(self.row()).collect()
    }
}

impl Out {
    /// Which letters were discarded, and which are not there.
    pub(crate) fn discarded(&mut self, answer: &DiscardDeadLettersResponse) -> Result<(), Failure> {
        if matches!(self.form, Form::Json) {
            return self.document(answer);
        }
        for letter in &answer.discarded {
            match self.form {
                Form::People => self.line(&format!("{letter} discarded")),
                Form::Ids | Form::Json => self.line(&letter.to_string()),
            }?;
        }
        for letter in &answer.not_found {
            self.note(&format!("there is no dead letter {letter}"))?;
        }
        Ok(())
    }
}
