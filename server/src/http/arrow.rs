//! Bodies of `POST /v1/events` that are Arrow IPC streams.
//!
//! **Guarantees.** A row becomes what the JSON object with the same members would become; what each
//! column may be is listed in `ringlake_arrow`. The content type decides, because a program that
//! sends columns knows what it sends.
//!
//! **Memory.** Beside the body: its unpacked form, at most the limit of a body, and its events, at
//! most twice that. They are put together beside the ring, because a dictionary lets them be longer
//! than what was sent, and while they wait for room they take their body's place in the budget of
//! bodies.

use hyper::header::CONTENT_TYPE;
use hyper::http::request::Parts;
use ringlake_arrow::Body;
use ringlake_engine::ack::Ticket;
use ringlake_event::{Assembly, Decoded, Mode, Rejection, Request as EventRequest};

use super::access::Access;
use super::answer::Problem;
use super::ingest::Packed;
use super::serving_loop::ServingLoop;

/// The content type of an Arrow IPC stream.
pub const CONTENT: &str = "application/vnd.apache.arrow.stream";

/// Whether the body of a request is an Arrow IPC stream.
pub fn is_stream(head: &Parts) -> bool {
    head.headers.get(CONTENT_TYPE).is_some_and(|value| {
        let start = value.as_bytes().get(..CONTENT.len());
        start.is_some_and(|start| start.eq_ignore_ascii_case(CONTENT.as_bytes()))
    })
}

impl ServingLoop {
    /// Reads a stream and hands its events to the shard, waiting a while if the ring is full.
    ///
    /// # Errors
    /// What the stream, the quotas of `access` or the ring say.
    pub async fn store_stream(
        &self,
        body: Packed,
        mode: Mode,
        access: &Access,
        request: &EventRequest<'_>,
    ) -> Result<(Decoded, Option<Ticket>), Problem> {
        let (assembly, rejected) = self.read_stream(&body, mode, request)?;
        let _charge = body.make_way(assembly.record_len(request))?;
        let attempt = || self.commit_assembly(access, &assembly, request, &rejected);
        let ticket = self.patiently(attempt).await?;
        let (accepted, record_len) = (assembly.events(), assembly.record_len(request));
        self.assembly.replace(assembly);
        Ok((Decoded { record_len, accepted, rejected }, ticket))
    }

    fn read_stream(
        &self,
        body: &Packed,
        mode: Mode,
        request: &EventRequest<'_>,
    ) -> Result<(Assembly, Vec<Rejection>), Problem> {
        let config = &self.app.config.http;
        let limit = config.body_max_bytes;
        let how = Body {
            request,
            limits: &config.limits,
            mode,
            unpacked_max_bytes: limit,
            record_max_bytes: 2 * limit,
        };
        self.unpack(body, |bytes| {
            let mut assembly = self.assembly.take();
            assembly.clear();
            let rejected = ringlake_arrow::decode(bytes, &how, &mut assembly)?;
            Ok((assembly, rejected))
        })
    }
}
