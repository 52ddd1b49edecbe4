//! `kontiki append`: append texts, or the lines of a file.
//!
//! Lines are sent batch after batch over one connection, so their order in the log is their order in the file. A batch
//! that certainly was not appended is tried again; one that may have been is never sent twice, but reported.

mod report;
mod sender;

pub(crate) use report::Report;
pub(crate) use sender::Appender;

use crate::{
    api::Appended,
    cli::AppendArgs,
    client::{Call, CallError, Client},
    failure::{Failure, Stop},
    frames,
    http::OCTETS,
    input::Input,
    interrupts::Interrupts,
    lines::{Batch, Batches},
    output::{Data, say},
};
use bytes::BytesMut;
use http_body_util::BodyExt;
use kontiki::Code;
use sender::Sender;
use std::{ffi::OsString, os::unix::ffi::OsStrExt, path::Path, time::Duration};
use tokio::time::timeout;

/// Appends what the command line names.
pub(crate) async fn run(args: &AppendArgs) -> Result<(), Stop> {
    match &args.lines {
        Some(path) => lines(args, path).await,
        None => texts(args).await,
    }
}

/// Appends texts, all or none, and prints their indexes.
async fn texts(args: &AppendArgs) -> Result<(), Stop> {
    let mut client = Client::new(&args.client.endpoints);
    let call = Call::append(framed(&args.text)?.freeze());
    let appended = client.call_json::<Appended>(&call, args.client.timeout()).await;
    let appended = appended.map_err(|error| error.into_append_failure())?;
    let mut data = Data::new();
    if args.client.json {
        let mut report = Report::default();
        report.acknowledge(1..=args.text.len() as u64, &appended);
        data.json(&report)?;
    } else {
        (appended.first..=appended.last).try_for_each(|index| data.line(index.to_string().as_bytes()))?;
    }
    data.flush()
}

fn framed(texts: &[OsString]) -> Result<BytesMut, Failure> {
    let mut body = BytesMut::new();
    for text in texts {
        frames::put(&mut body, text.as_bytes()).map_err(|length| {
            Failure::new(Code::TooLarge, format!("a text of {length} bytes is no entry"))
        })?;
    }
    Ok(body)
}

/// Appends the lines of a file through HTTP and says at the end what became of them.
async fn lines(args: &AppendArgs, path: &Path) -> Result<(), Stop> {
    let client = HttpAppender {
        client: Client::new(&args.client.endpoints),
        within: args.client.timeout(),
    };
    let input = Input::open(path)?;
    let report = append_lines(client, input, args.verbose, &mut Interrupts::listen()?).await;
    say!("{}", report.told());
    if args.client.json {
        let mut data = Data::new();
        data.json(&report)?;
        data.flush()?;
    }
    report.code().map_or(Ok(()), |code| Err(Stop::Said(code)))
}

/// Appends the lines of an input, in order.
pub(crate) async fn append_lines(
    appender: impl Appender,
    input: Input,
    verbose: bool,
    interrupts: &mut Interrupts,
) -> Report {
    let mut sender = Sender::new(appender, input.length, verbose);
    let mut batches = Batches::new(input);
    while !interrupts.any() && sender.is_going() {
        let next = tokio::select! {
            next = batches.next() => next,
            _ = interrupts.next() => break,
        };
        match next {
            Ok(Some(batch)) => sender.send(batch, interrupts).await,
            Ok(None) => break,
            Err(failure) => sender.fail(None, failure),
        }
    }
    sender.finish(interrupts.any())
}

/// Appends to whichever endpoint takes it.
struct HttpAppender {
    client: Client,
    within: Duration,
}

impl Appender for HttpAppender {
    async fn append(&mut self, batch: &Batch) -> Result<Appended, CallError> {
        self.client
            .call_json(&Call::append(batch.body.clone()), self.within)
            .await
    }

    async fn settle(&mut self) -> Result<(), CallError> {
        // No entry stands there, but a majority must confirm that.
        let target = format!("/v1/entries?from={}", u64::MAX);
        let answer = self.client.call(&Call::get(target, OCTETS), self.within).await?;
        // The empty body is taken so that the connection can be used again; if it fails, another is opened.
        drop(timeout(self.within, answer.into_body().collect()).await);
        Ok(())
    }
}
