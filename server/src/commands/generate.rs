//! `ringlake generate`: realistic events on standard output.

use std::io::{self, BufWriter, Write};

use anyhow::Result;
use ringlake_event::generate::Generator;

use crate::EXIT_FINE;
use crate::cli::Generate;

/// Lines are gathered to this size before they are written.
const CHUNK_BYTES: usize = 256 << 10;

/// Runs the command. A reader that has had enough (`| head`) ends it without a complaint.
///
/// # Errors
/// When standard output cannot be written.
pub fn run(arguments: &Generate) -> Result<u8> {
    let output = BufWriter::with_capacity(0, io::stdout().lock());
    match write(arguments, output) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(anyhow::Error::new(error).context("cannot write to standard output"))
        }
        _ => Ok(EXIT_FINE),
    }
}

fn write(arguments: &Generate, mut output: impl Write) -> io::Result<()> {
    let mut generator = Generator::new(arguments.seed);
    let mut lines = Vec::with_capacity(CHUNK_BYTES + 4_096);
    for _ in 0..arguments.events {
        generator.write_event(&mut lines);
        if lines.len() >= CHUNK_BYTES {
            output.write_all(&lines)?;
            lines.clear();
        }
    }
    output.write_all(&lines)?;
    output.flush()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed test should panic")]
    use super::*;

    fn generate(events: u64, seed: u64) -> Vec<u8> {
        let mut bytes = Vec::new();
        write(&Generate { events, seed }, &mut bytes).unwrap();
        bytes
    }

    #[test]
    fn it_writes_as_many_lines_as_asked_for() {
        let text = String::from_utf8(generate(1_000, 1)).unwrap();
        assert_eq!(text.lines().count(), 1_000);
        assert!(text.ends_with('\n'));
    }

    #[test]
    fn the_same_seed_gives_the_same_bytes() {
        assert_eq!(generate(100, 7), generate(100, 7));
        assert_ne!(generate(100, 7), generate(100, 8));
    }
}
