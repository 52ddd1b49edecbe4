//! `kontiki read`: prints a range of entries as they come.
//!
//! Reading again does no harm, so an answer that breaks off is continued at another endpoint, from the entry after the
//! last one printed: nothing is printed twice, and nothing is left out.

use crate::{
    cli::{ClientArgs, ReadArgs, ReadConsistency},
    client::{Answer, Call, Client},
    failure::{Failure, Stop},
    http::{FIRST_INDEX, LAST_INDEX, NDJSON, OCTETS},
    output::{Data, say},
    pieces::{Piece, Pieces},
    range::EntryRange,
};
use http_body_util::BodyExt;
use hyper::{body::Incoming, header::HeaderName};
use kontiki::Code;
use std::time::Duration;
use tokio::time::{Instant, sleep, timeout};

/// How long to wait before asking again after an answer broke off.
const PAUSE: Duration = Duration::from_millis(100);

/// Prints a range.
pub(crate) async fn read(args: &ReadArgs) -> Result<(), Stop> {
    let consistency = consistency(args);
    let mut reader = Reader::new(&args.client, args.range.from.unwrap_or(0));
    let mut end = args.range.to;
    let mut log_end = None;
    while end.is_none_or(|end| reader.next < end) {
        let to = end.map(|end| format!("&to={end}")).unwrap_or_default();
        let from = (reader.next > 0).then(|| format!("&from={}", reader.next));
        let target = format!("/v1/entries?{consistency}{}{to}", from.unwrap_or_default());
        let answer = reader.ask(target).await?;
        // The first answer fixes both ends: what is appended meanwhile is not read.
        if reader.next == 0 {
            reader.begin(index_of(&answer, &FIRST_INDEX)?);
        }
        let last = *log_end.get_or_insert(index_of(&answer, &LAST_INDEX)?);
        end = end.or(Some(last.saturating_add(1)));
        match reader.print(answer.into_body()).await? {
            None => break,
            Some(why) => reader.go_on(&why).await?,
        }
    }
    reader.data.flush()?;
    log_end.map_or(Ok(()), |last| beyond(&args.range, last))
}

/// Says where the log ends if more was asked for. That is a failure if it was a single entry.
fn beyond(range: &EntryRange, last: u64) -> Result<(), Stop> {
    let end = match last {
        0 => "the log is empty".to_owned(),
        last => format!("the log ends at entry {last}"),
    };
    match range.from {
        Some(from) if from > last && range.to == from.checked_add(1) => {
            return Err(Failure::new(Code::NotFound, format!("there is no entry {from}: {end}")).into());
        }
        Some(from) if from > last.saturating_add(1) => say!("kontiki: {end}"),
        _ if range.to.is_some_and(|to| to > last.saturating_add(1)) => say!("kontiki: {end}"),
        _ => {}
    }
    Ok(())
}

/// How fresh the range must be, as query parameters. What does not go together the node refuses, and says why.
fn consistency(args: &ReadArgs) -> String {
    let kind = match args.consistency {
        ReadConsistency::Linearizable => "linearizable",
        ReadConsistency::Lease => "lease",
        ReadConsistency::Stale => "stale",
        ReadConsistency::AtLeast => "at_least",
    };
    let lag = args.max_lag.map(|lag| format!("&max_lag={}", lag.as_secs_f64()));
    let index = args.index.map(|index| format!("&index={index}"));
    format!(
        "consistency={kind}{}{}",
        lag.unwrap_or_default(),
        index.unwrap_or_default()
    )
}

fn index_of(answer: &Answer, name: &HeaderName) -> Result<u64, Failure> {
    let header = answer.headers().get(name);
    let index = header
        .and_then(|value| value.to_str().ok())
        .and_then(|text| text.parse().ok());
    index.ok_or_else(|| {
        let text = format!("the answer lacks the header {name}");
        Failure::new(Code::Unreachable, text).advise("is the endpoint a Kontiki node?")
    })
}

/// Prints entries from consecutive answers.
struct Reader {
    client: Client,
    within: Duration,
    json: bool,
    data: Data,
    /// Index of the entry to print next; 0 until it is known where the log begins.
    next: u64,
    progress: Progress,
}

/// When an entry was last printed, so that asking in vain comes to an end.
struct Progress {
    next: u64,
    since: Instant,
}

impl Reader {
    fn new(args: &ClientArgs, from: u64) -> Self {
        let progress = Progress {
            next: from,
            since: Instant::now(),
        };
        let (client, within) = (Client::new(&args.endpoints), args.timeout());
        Self {
            client,
            within,
            json: args.json,
            data: Data::new(),
            next: from,
            progress,
        }
    }

    /// The first entry has this index.
    fn begin(&mut self, from: u64) {
        self.next = from;
        self.progress.next = from;
    }

    async fn ask(&mut self, target: String) -> Result<Answer, Stop> {
        let accept = if self.json { NDJSON } else { OCTETS };
        let answer = self.client.call(&Call::get(target, accept), self.within).await;
        Ok(answer.map_err(|error| error.failure)?)
    }

    /// Prints what a body holds. Says why if the body broke off.
    async fn print(&mut self, mut body: Incoming) -> Result<Option<String>, Stop> {
        let mut pieces = Pieces::new(self.json);
        loop {
            let frame = timeout(self.within, body.frame()).await;
            let piece = match frame {
                Err(_) => return Ok(Some("the answer stopped half way".into())),
                Ok(Some(Err(error))) => return Ok(Some(format!("the answer broke off: {error}"))),
                Ok(None) if pieces.is_empty() => return Ok(None),
                Ok(None) => return Ok(Some("the answer ends inside an entry".into())),
                Ok(Some(Ok(frame))) => frame.into_data().unwrap_or_default(),
            };
            pieces.push(&piece);
            while let Some(piece) = pieces.next() {
                // Heartbeats come where they are asked for, and not here.
                if let Piece::Entry(entry) = piece {
                    self.data.entry(&entry, self.json)?;
                    self.next += 1;
                }
            }
            self.data.flush()?;
        }
    }

    /// After an answer that broke off: turns to another endpoint, unless that has been in vain for too long.
    async fn go_on(&mut self, why: &str) -> Result<(), Stop> {
        if self.next > self.progress.next {
            self.progress = Progress {
                next: self.next,
                since: Instant::now(),
            };
        } else if self.progress.since.elapsed() > self.within {
            let text = format!(
                "cannot read entry {} from {}: {why}",
                self.next,
                self.client.endpoint()
            );
            return Err(Failure::new(Code::Timeout, text).into());
        }
        self.client.next_endpoint();
        sleep(PAUSE).await;
        Ok(())
    }
}
