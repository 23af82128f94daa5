//! `GET /v1/admin/profile`: where the processor time of the running server goes.
//!
//! The kernel interrupts the process [`SAMPLES_A_SECOND`] times in each second of processor time that
//! it uses, and the stack of the thread that runs then is kept: a flamegraph (`svg`, one column a
//! thread), or Google's `pprof` format in gzip, which `go tool pprof` and speedscope.app read. A thread
//! that waits uses no processor time and is not seen.
//!
//! **Limits.** One profile at a time, [`SECONDS_MAX`] seconds at most; 128 frames of a stack, the
//! innermost ones. It ends early, with 503, when the server stops, and with its client.
//!
//! **Cost.** None while nobody asks. Names are looked up when the time is over, on a thread that may
//! block; the line tables of the program take some 300 MB then, which the process keeps.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::io::Write as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use flate2::Compression;
use flate2::write::GzEncoder;
use hyper::header::{CACHE_CONTROL, CONTENT_DISPOSITION, CONTENT_TYPE};
use pprof::{Frames, ProfilerGuardBuilder, flamegraph};
use prost::Message as _;

use super::App;
use super::answer::Problem;
use super::ingest::now_micros;
use super::parameters::Parameters;

/// Not a round number: what happens at regular times would be seen always or never.
const SAMPLES_A_SECOND: i32 = 99;
/// When nobody says how long.
const SECONDS: usize = 10;
/// A minute shows what ten do, and a proxy in between waits that long.
const SECONDS_MAX: usize = 60;
const KNOWN: &str = "seconds, format";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    Svg,
    Pprof,
}

/// Takes a profile.
pub async fn answer(State(app): State<Arc<App>>, request: Request) -> Result<Response, Problem> {
    let mut parameters = Parameters::new(request.uri().query());
    let seconds = parameters.count("seconds", SECONDS_MAX, "1 to 60")?.unwrap_or(SECONDS);
    let choices = [("svg", Format::Svg), ("pprof", Format::Pprof)];
    let format = parameters.choice("format", &choices, "svg or pprof")?.unwrap_or(Format::Svg);
    parameters.finish(KNOWN)?;
    let profiler = ProfilerGuardBuilder::default().frequency(SAMPLES_A_SECOND).build();
    let profiler = profiler.map_err(|error| match error {
        pprof::Error::Running => Problem::Profiling,
        error => {
            tracing::error!(%error, "no profile can be taken");
            Problem::Internal("no profile can be taken")
        }
    })?;
    let (began, clock) = (now_micros(), Instant::now());
    let time = Duration::from_secs(seconds as u64);
    if app.stopping.run_until_cancelled(tokio::time::sleep(time)).await.is_none() {
        return Err(Problem::ShuttingDown);
    }
    app.blocking(move |_| {
        let took = clock.elapsed();
        let report = profiler.report().build();
        // The next one may begin.
        drop(profiler);
        let stacks = report.map_err(|error| {
            tracing::error!(%error, "a profile has no report");
            Problem::Internal("the profile cannot be put together")
        })?;
        let stacks = stacks.data;
        let (kind, file, body) = match format {
            Format::Svg => ("image/svg+xml", "profile.svg", draw(&stacks, seconds)),
            Format::Pprof => {
                let mut profile = Tables::of(&stacks);
                profile.time_nanos = began.saturating_mul(1_000);
                profile.duration_nanos = i64::try_from(took.as_nanos()).unwrap_or(i64::MAX);
                ("application/octet-stream", "profile.pb.gz", pack(&profile))
            }
        };
        let body = body.map_err(|error| {
            tracing::error!(%error, "a profile cannot be written");
            Problem::Internal("the profile cannot be written")
        })?;
        let headers = [
            (CONTENT_TYPE, kind.to_owned()),
            (CONTENT_DISPOSITION, format!("inline; filename=\"{file}\"")),
            (CACHE_CONTROL, "no-store".to_owned()),
        ];
        Ok((headers, body).into_response())
    })
    .await
}

/// How often each stack was seen.
type Stacks = HashMap<Frames, isize>;

/// A flamegraph.
fn draw(stacks: &Stacks, seconds: usize) -> std::io::Result<Vec<u8>> {
    let mut lines: Vec<String> = stacks.iter().map(folded).collect();
    if lines.is_empty() {
        lines.push("no processor time was used 1".to_owned());
    }
    // The picture of the same samples is the same.
    lines.sort_unstable();
    let mut options = flamegraph::Options::default();
    options.title = format!("ringlake: processor time in {seconds} s");
    options.count_name = "samples".to_owned();
    let mut svg = Vec::new();
    flamegraph::from_lines(&mut options, lines.iter().map(String::as_str), &mut svg)
        .map_err(std::io::Error::other)?;
    Ok(svg)
}

/// A stack in a line, the thread first, as flamegraphs are made of.
fn folded((frames, count): (&Frames, &isize)) -> String {
    let mut line = frames.thread_name.replace(';', ":");
    for symbol in frames.frames.iter().rev().flat_map(|frame| frame.iter().rev()) {
        line.push(';');
        line.push_str(&symbol.name().replace(';', ":"));
    }
    format!("{line} {count}")
}

/// A profile as files of it are.
fn pack(profile: &Profile) -> std::io::Result<Vec<u8>> {
    let mut packed = GzEncoder::new(Vec::new(), Compression::default());
    packed.write_all(&profile.encode_to_vec())?;
    packed.finish()
}

/// `profile.proto` of <https://github.com/google/pprof>, as far as it is used here. Texts are places
/// in `string_table`, whose first is empty.
#[derive(Clone, PartialEq, prost::Message)]
struct Profile {
    #[prost(message, repeated, tag = "1")]
    sample_type: Vec<ValueType>,
    #[prost(message, repeated, tag = "2")]
    sample: Vec<Sample>,
    #[prost(message, repeated, tag = "4")]
    location: Vec<Location>,
    #[prost(message, repeated, tag = "5")]
    function: Vec<Function>,
    #[prost(string, repeated, tag = "6")]
    string_table: Vec<String>,
    #[prost(int64, tag = "9")]
    time_nanos: i64,
    #[prost(int64, tag = "10")]
    duration_nanos: i64,
    #[prost(message, optional, tag = "11")]
    period_type: Option<ValueType>,
    #[prost(int64, tag = "12")]
    period: i64,
}

#[derive(Clone, Copy, PartialEq, prost::Message)]
struct ValueType {
    #[prost(int64, tag = "1")]
    kind: i64,
    #[prost(int64, tag = "2")]
    unit: i64,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Sample {
    /// The innermost frame first.
    #[prost(uint64, repeated, tag = "1")]
    location_id: Vec<u64>,
    #[prost(int64, repeated, tag = "2")]
    value: Vec<i64>,
    #[prost(message, repeated, tag = "3")]
    label: Vec<Label>,
}

#[derive(Clone, Copy, PartialEq, prost::Message)]
struct Label {
    #[prost(int64, tag = "1")]
    key: i64,
    #[prost(int64, tag = "2")]
    text: i64,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Location {
    #[prost(uint64, tag = "1")]
    id: u64,
    #[prost(message, repeated, tag = "4")]
    line: Vec<Line>,
}

#[derive(Clone, Copy, PartialEq, prost::Message)]
struct Line {
    #[prost(uint64, tag = "1")]
    function_id: u64,
    #[prost(int64, tag = "2")]
    line: i64,
}

#[derive(Clone, Copy, PartialEq, prost::Message)]
struct Function {
    #[prost(uint64, tag = "1")]
    id: u64,
    #[prost(int64, tag = "2")]
    name: i64,
    #[prost(int64, tag = "4")]
    file: i64,
}

/// A profile while it is put together: each text, function and line is there once.
#[derive(Default)]
struct Tables {
    profile: Profile,
    texts: HashMap<String, i64>,
    functions: HashMap<(i64, i64), u64>,
    locations: HashMap<(u64, i64), u64>,
}

impl Tables {
    fn of(stacks: &Stacks) -> Profile {
        let mut tables = Self::default();
        tables.text("");
        let period = 1_000_000_000 / i64::from(SAMPLES_A_SECOND);
        let samples = ValueType { kind: tables.text("samples"), unit: tables.text("count") };
        let time = ValueType { kind: tables.text("cpu"), unit: tables.text("nanoseconds") };
        tables.profile.sample_type = vec![samples, time];
        tables.profile.period_type = Some(time);
        tables.profile.period = period;
        let thread = tables.text("thread");
        for (frames, count) in stacks {
            let symbols = frames.frames.iter().flatten();
            let location_id = symbols
                .map(|symbol| {
                    let line = i64::from(symbol.lineno.unwrap_or_default());
                    tables.location(&symbol.name(), &symbol.filename(), line)
                })
                .collect();
            let count = i64::try_from(*count).unwrap_or(i64::MAX);
            let label = vec![Label { key: thread, text: tables.text(&frames.thread_name) }];
            let value = vec![count, count.saturating_mul(period)];
            tables.profile.sample.push(Sample { location_id, value, label });
        }
        tables.profile
    }

    fn text(&mut self, text: &str) -> i64 {
        if let Some(place) = self.texts.get(text) {
            return *place;
        }
        let place = i64::try_from(self.profile.string_table.len()).unwrap_or(i64::MAX);
        self.profile.string_table.push(text.to_owned());
        self.texts.insert(text.to_owned(), place);
        place
    }

    fn location(&mut self, name: &str, file: &str, line: i64) -> u64 {
        let (name, file) = (self.text(name), self.text(file));
        let (functions, locations) = (&mut self.profile.function, &mut self.profile.location);
        let function_id = match self.functions.entry((name, file)) {
            Entry::Occupied(known) => *known.get(),
            Entry::Vacant(new) => {
                let id = functions.len() as u64 + 1;
                functions.push(Function { id, name, file });
                *new.insert(id)
            }
        };
        match self.locations.entry((function_id, line)) {
            Entry::Occupied(known) => *known.get(),
            Entry::Vacant(new) => {
                let id = locations.len() as u64 + 1;
                locations.push(Location { id, line: vec![Line { function_id, line }] });
                *new.insert(id)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed test should panic")]
    use super::*;

    #[test]
    fn texts_functions_and_lines_are_there_once() {
        let mut tables = Tables::default();
        tables.text("");
        let first = tables.location("decode", "json.rs", 7);
        assert_eq!(tables.location("decode", "json.rs", 7), first);
        let other = tables.location("decode", "json.rs", 8);
        assert_ne!(other, first);
        let profile = Profile::decode(tables.profile.encode_to_vec().as_slice()).unwrap();
        assert_eq!(profile.string_table, ["", "decode", "json.rs"]);
        assert_eq!((profile.function.len(), profile.location.len()), (1, 2));
        let lines: Vec<(u64, i64)> =
            profile.location.iter().map(|it| (it.id, it.line[0].line)).collect();
        assert_eq!(lines, [(first, 7), (other, 8)]);
    }

    #[test]
    fn a_server_that_did_nothing_has_a_picture_too() {
        let svg = String::from_utf8(draw(&Stacks::new(), 3).unwrap()).unwrap();
        assert!(
            svg.contains("processor time in 3 s") && svg.contains("no processor time was used")
        );
    }
}
