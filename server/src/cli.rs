//! The command line: what each command is called, takes and says about itself.
//!
//! Values that also have a configuration key stay optional here; [`crate::config`] puts file,
//! environment and flags together, in that order.

use std::path::{Path, PathBuf};

use clap::{Args, Parser, Subcommand, ValueEnum};

/// Takes web beacons and product events over HTTP, makes them durable before it says so, answers
/// SQL about them within a second, and leaves them as Parquet in a Delta table.
#[derive(Debug, Parser)]
#[command(name = "ringlake", version, max_term_width = 100, propagate_version = true)]
#[command(after_help = "Exit codes: 0 fine, 1 the work failed, 2 wrong usage.")]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,

    /// How log lines on standard error are written [default: text].
    #[arg(long, global = true, value_name = "FORMAT")]
    pub log_format: Option<LogFormat>,
}

/// The variable that holds the key of commands that speak to a server.
pub const KEY_VARIABLE: &str = "RINGLAKE_KEY";

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the server.
    Serve(Serve),
    /// Load files of events, through a data directory or a running server.
    Import(Import),
    /// Run one SQL query over the table `events`.
    Query(Query),
    /// Write files of events, from a data directory or a running server.
    Export(Export),
    /// Check log, table and sequence numbers, and count what is there.
    Verify(Verify),
    /// Copy a data directory, also while a server works on it.
    Backup(Backup),
    /// Join the table's small files now. The server also does it by itself.
    Compact(Maintenance),
    /// Remove files of the table that nobody needs now. The server also does it by itself.
    Vacuum(Maintenance),
    /// Make, list, rotate and revoke the keys of a server.
    Keys(Keys),
    /// Write realistic events to standard output, one JSON object a line.
    Generate(Generate),
    /// Look at the configuration.
    #[command(subcommand)]
    Config(Settings),
    /// Do the whole way once: serve, send, roll, query, and print the figures.
    Demo(Demo),
}

/// Where a command finds its data; shared by all that open a data directory.
#[derive(Debug, Args, Default)]
pub struct Place {
    /// Data directory: the log, the node's identity and, unless told otherwise, the table
    /// [default: ./ringlake-data].
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,

    /// Where the Delta table lives: a path or a file:// URL [default: DIR/events].
    #[arg(long, value_name = "URL")]
    pub lake: Option<String>,

    /// Configuration file in TOML. Environment variables (RINGLAKE_*) override it, flags override
    /// both.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
}

/// What `serve` does that its flags do not tell.
const SERVE_NOTES: &str = "\
While no key exists the server is open, and therefore listens on loopback addresses only;
`ringlake keys create` makes keys.
SIGTERM and SIGINT stop it in order; a second one stops it at once.";

/// `ringlake serve`
#[derive(Debug, Args)]
#[command(
    after_help = format!("{SERVE_NOTES}\n--help lists the keys of the configuration file."),
    after_long_help = format!("{SERVE_NOTES}\n\n{}", crate::config::help())
)]
pub struct Serve {
    /// Where the data lies.
    #[command(flatten)]
    pub place: Place,

    /// Address and port to listen on; port 0 takes a free one [default: 127.0.0.1:8080].
    #[arg(long, value_name = "ADDR")]
    pub listen: Option<String>,

    /// What a 2xx promises when the request does not say: `disk` survives kill -9 and power loss,
    /// `memory` means accepted [default: disk].
    #[arg(long, value_name = "LEVEL")]
    pub ack: Option<Ack>,

    /// Chain of certificates in PEM: connections are encrypted then, and may speak HTTP/2.
    #[arg(long, value_name = "FILE")]
    pub tls_cert: Option<PathBuf>,

    /// Private key of the first certificate, in PEM.
    #[arg(long, value_name = "FILE")]
    pub tls_key: Option<PathBuf>,

    /// Send traces to the OpenTelemetry collector at this URL, in OTLP over HTTP, for example
    /// http://127.0.0.1:4318.
    #[arg(long, value_name = "URL")]
    pub traces: Option<String>,

    /// Part of the requests that are traced, between 0 and 1 [default: 0.001].
    #[arg(long, value_name = "RATIO")]
    pub trace_sample: Option<f64>,
}

/// `ringlake config`
#[derive(Debug, Subcommand)]
pub enum Settings {
    /// Print every key with its value, its unit, its default and where the value comes from: a file,
    /// the environment, a flag. With --config the output gives the same configuration.
    Show(Serve),
}

/// `ringlake import`
#[derive(Debug, Args)]
#[command(after_help = "Files compressed with gzip or zstd are recognised by their content. Bad \
events are reported\nwith their line and left out; the exit code is then 1.\n\nAn .arrow file from the \
directory quarantine/ goes back into the table under its old numbers, while\nno server runs.")]
pub struct Import {
    /// Files to load, in this order; `-` is standard input.
    #[arg(required = true, value_name = "FILE")]
    pub files: Vec<PathBuf>,

    /// Where the data lies.
    #[command(flatten)]
    pub place: Place,

    /// Send the events to a running server instead, for example http://127.0.0.1:8080.
    #[arg(long, value_name = "URL", conflicts_with_all = ["data", "lake"])]
    pub url: Option<String>,

    /// What the server wants to see.
    #[command(flatten)]
    pub key: SentKey,

    /// What the files hold: one event a line, JSON arrays of events, or Arrow IPC.
    #[arg(long, value_name = "FORMAT", default_value = "ndjson")]
    pub format: ImportFormat,
}

/// `ringlake query`
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  ringlake query \"SELECT type, count(*) FROM events GROUP BY \
ALL\" --url http://127.0.0.1:8080")]
pub struct Query {
    /// The query: one SELECT over the table `events`.
    #[arg(value_name = "SQL")]
    pub sql: String,

    /// Where the data lies.
    #[command(flatten)]
    pub place: Place,

    /// Ask a running server instead, for example http://127.0.0.1:8080.
    #[arg(long, value_name = "URL", conflicts_with_all = ["data", "lake"])]
    pub url: Option<String>,

    /// What the server wants to see.
    #[command(flatten)]
    pub key: SentKey,

    /// How to write the result [default: table on a terminal, else ndjson].
    #[arg(long, value_name = "FORMAT")]
    pub format: Option<QueryFormat>,

    /// Write the result to this file; it appears only once it is complete.
    #[arg(long, value_name = "FILE")]
    pub output: Option<PathBuf>,
}

/// `ringlake export`
#[derive(Debug, Args)]
#[command(after_help = "From a server, the same command goes on where an earlier one was broken \
off.")]
pub struct Export {
    /// Where the data lies.
    #[command(flatten)]
    pub place: Place,

    /// Let a running server write them and fetch them from there, for example
    /// http://127.0.0.1:8080.
    #[arg(long, value_name = "URL", conflicts_with_all = ["data", "lake"])]
    pub url: Option<String>,

    /// What the server wants to see.
    #[command(flatten)]
    pub key: SentKey,

    /// Events received at this moment or later: an RFC 3339 time, a day, or an epoch number.
    #[arg(long, value_name = "T")]
    pub from: Option<String>,

    /// Events received before this moment.
    #[arg(long, value_name = "T")]
    pub to: Option<String>,

    /// Events of this type.
    #[arg(long = "type", value_name = "T")]
    pub kind: Option<String>,

    /// Events of this name.
    #[arg(long, value_name = "E")]
    pub event: Option<String>,

    /// What to write.
    #[arg(long, value_name = "FORMAT", default_value = "parquet")]
    pub format: ExportFormat,

    /// Directory for the files; it is created when it is not there.
    #[arg(long, value_name = "DIR")]
    pub output: PathBuf,
}

/// `ringlake verify`
#[derive(Debug, Args)]
#[command(after_help = "Exits with 1 when anything is lost, doubled or damaged.")]
pub struct Verify {
    /// Where the data lies.
    #[command(flatten)]
    pub place: Place,
}

/// `ringlake backup`
#[derive(Debug, Args)]
#[command(after_help = "The copy holds every event acknowledged before, once, and is a data \
    directory: `ringlake serve --data DIR` starts it, `ringlake verify --data DIR` checks it. \
    Today's visitor salt is not copied.")]
pub struct Backup {
    /// Where the data lies.
    #[command(flatten)]
    pub place: Place,

    /// Where the copy goes: a directory that is not there yet.
    #[arg(long, value_name = "DIR")]
    pub output: PathBuf,
}

/// `ringlake compact` and `ringlake vacuum`
#[derive(Debug, Args)]
#[command(after_help = "When a server runs on the data directory, it is asked to do the work.")]
pub struct Maintenance {
    /// Where the data lies.
    #[command(flatten)]
    pub place: Place,

    /// Ask this running server, for example http://127.0.0.1:8080.
    #[arg(long, value_name = "URL", conflicts_with_all = ["data", "lake"])]
    pub url: Option<String>,

    /// What the server wants to see.
    #[command(flatten)]
    pub key: SentKey,
}

/// The key that a command shows a running server.
#[derive(Debug, Args, Default)]
pub struct SentKey {
    /// Key to send with --url. Better in the environment, where other users do not see it.
    #[arg(long, value_name = "KEY", env = KEY_VARIABLE, hide_env_values = true)]
    key: Option<Secret>,

    /// Certificates in PEM that an https server's own must be signed by [default: those that the
    /// system trusts].
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
}

impl SentKey {
    /// A key that was not on the command line.
    #[cfg(test)]
    pub fn of(key: &str) -> Self {
        Self { key: Some(Secret(key.to_owned())), ca: None }
    }

    /// Who must have signed the certificate of an https server.
    #[must_use]
    pub fn ca(&self) -> Option<&Path> {
        self.ca.as_deref()
    }

    /// The key, if there is one.
    #[must_use]
    pub fn get(&self) -> Option<&str> {
        self.key.as_ref().map(|key| key.0.as_str()).filter(|key| !key.is_empty())
    }
}

/// A text that no debug text shows.
#[derive(Clone)]
struct Secret(String);

impl std::str::FromStr for Secret {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(Self(text.to_owned()))
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("…")
    }
}

/// `ringlake keys`
#[derive(Debug, Args)]
#[command(
    after_help = "The first key ends the open mode: from then on every request needs one. A \
running server\nsees a change within a second."
)]
pub struct Keys {
    /// What to do with them.
    #[command(subcommand)]
    pub action: KeysAction,
}

/// `ringlake keys …`
#[derive(Debug, Subcommand)]
pub enum KeysAction {
    /// Make a key and print it, this once, alone on the last line.
    Create(CreateKey),
    /// Show all keys, without their secrets.
    List(KeysPlace),
    /// Give a key a new secret and print the key; the old one is refused from now on.
    Rotate(OneKey),
    /// Refuse a key from now on.
    Revoke(OneKey),
}

/// Where keys are changed: in a data directory, whether a server runs on it or not, or through a
/// server.
#[derive(Debug, Args)]
pub struct KeysPlace {
    /// Data directory [default: ./ringlake-data].
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,

    /// Configuration file in TOML.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// Ask a running server instead, for example http://127.0.0.1:8080; it wants to see an admin
    /// key.
    #[arg(long, value_name = "URL", conflicts_with = "data")]
    pub url: Option<String>,

    /// What the server wants to see.
    #[command(flatten)]
    pub key: SentKey,
}

/// `ringlake keys create`
#[derive(Debug, Args)]
pub struct CreateKey {
    /// What the key is for.
    #[arg(long, value_name = "SCOPE")]
    pub scope: KeyScope,

    /// Whose events it sends or reads [default: default]; an admin key has no tenant.
    #[arg(long, value_name = "TENANT")]
    pub tenant: Option<String>,

    /// Another name of a write key, which some SDKs send instead: a domain (Plausible), a website id
    /// (Umami). May be given several times.
    #[arg(long = "alias", value_name = "DOMAIN-OR-ID")]
    pub aliases: Vec<String>,

    /// Origin of the pages that may send with a write key, such as `https://shop.example`; without
    /// one those of the configuration may. May be given several times.
    #[arg(long = "origin", value_name = "ORIGIN")]
    pub origins: Vec<String>,

    /// Where the keys are.
    #[command(flatten)]
    pub place: KeysPlace,
}

/// `ringlake keys rotate` and `revoke`
#[derive(Debug, Args)]
pub struct OneKey {
    /// The key's id, the part between the underscores.
    #[arg(value_name = "ID")]
    pub id: String,

    /// Where the keys are.
    #[command(flatten)]
    pub place: KeysPlace,
}

/// What a key is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum KeyScope {
    /// Sending events of a tenant; may be public.
    Write,
    /// Reading the events of a tenant.
    Read,
    /// Everything.
    Admin,
}

/// `ringlake generate`
#[derive(Debug, Args)]
pub struct Generate {
    /// How many events to write.
    #[arg(long, value_name = "N", default_value_t = 1_000_000)]
    pub events: u64,

    /// Seed of the random numbers: the same seed gives the same bytes.
    #[arg(long, value_name = "S", default_value_t = 1)]
    pub seed: u64,
}

/// `ringlake demo`
#[derive(Debug, Args)]
pub struct Demo {
    /// Work in this directory and keep it, instead of in a temporary one.
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,

    /// How many events to send.
    #[arg(long, value_name = "N", default_value_t = 1_000_000,
          value_parser = clap::value_parser!(u64).range(1..))]
    pub events: u64,

    /// Keep the temporary directory.
    #[arg(long)]
    pub keep: bool,
}

/// What an acknowledgement promises.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Ack {
    /// Synced to the medium: survives kill -9 and power loss.
    Disk,
    /// Accepted into the ring: survives nothing, costs microseconds.
    Memory,
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line, for collectors.
    Json,
}

/// What an imported file holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ImportFormat {
    /// One event a line.
    Ndjson,
    /// Arrays of events, or events one after the other, over any number of lines.
    Json,
    /// Arrow IPC: a stream or a file (Feather), one event a row.
    Arrow,
}

/// What an export writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ExportFormat {
    /// Parquet files.
    Parquet,
    /// One JSON object a line.
    Ndjson,
    /// Comma-separated values with a header line in each file.
    Csv,
}

impl From<ExportFormat> for ringlake_engine::export::ExportFormat {
    fn from(format: ExportFormat) -> Self {
        match format {
            ExportFormat::Parquet => Self::Parquet,
            ExportFormat::Ndjson => Self::Ndjson,
            ExportFormat::Csv => Self::Csv,
        }
    }
}

/// How a query result is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum QueryFormat {
    /// A table with column types, for reading.
    Table,
    /// Comma-separated values with a header line.
    Csv,
    /// One JSON object a line.
    Ndjson,
    /// An Arrow IPC stream.
    Arrow,
    /// A Parquet file.
    Parquet,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }

    #[test]
    fn import_refuses_two_places_at_once() {
        let words = ["ringlake", "import", "-", "--data", "d", "--url", "http://localhost"];
        assert!(Cli::try_parse_from(words).is_err());
    }
}
