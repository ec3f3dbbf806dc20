//! Input that is meant to do harm: SQL and odd text, sizes and depths, headers and log lines that are smuggled
//! in; and secrets, which are shown to nobody.

mod headers;
mod logs;
mod secrets;
mod size;
mod text;
