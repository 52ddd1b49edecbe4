//! `kontiki append`: append texts, or the lines of a file.
//!
//! Lines are sent batch after batch over one connection, so their order in the log is their order in the file. Each batch is an
//! append of a session, so that one whose answer is lost can be sent again, to any node, and is there once. Without a session,
//! only a batch that certainly was not appended is tried again; one that may have been is not, but reported.

mod report;
mod sender;
mod through_http;

pub(crate) use report::Report;
pub(crate) use sender::Appender;

use crate::{
    api::Appended,
    cli::AppendArgs,
    failure::{Failure, Stop},
    frames,
    input::Input,
    interrupts::Interrupts,
    lines::{Batches, ENTRY_BYTES_MAX},
    output::{Data, say},
};
use bytes::BytesMut;
use kontiki::Code;
use sender::Sender;
use std::{
    ffi::OsString,
    io::{self, IsTerminal},
    os::unix::ffi::OsStrExt,
    path::Path,
};
use through_http::HttpAppender;

/// Appends what the command line names.
pub(crate) async fn run(args: &AppendArgs) -> Result<(), Stop> {
    match &args.lines {
        Some(path) => lines(args, path).await,
        None => texts(args).await,
    }
}

/// Appends texts, all or none, and prints their indexes.
async fn texts(args: &AppendArgs) -> Result<(), Stop> {
    let mut appender = HttpAppender::new(args);
    let appended = appender.append_body(framed(&args.text).await?.freeze()).await;
    let appended = appended.map_err(|error| error.into_append_failure())?;
    print(args, &appended).map_err(|stop| match stop {
        // A caller that sees this fail must not append again.
        Stop::Failed(failure) => {
            let Appended { first, last, .. } = appended;
            let text = format!("appended as entries {first}..={last}, but {}", failure.text);
            Stop::Failed(Failure { text, ..failure })
        }
        stop => stop,
    })
}

fn print(args: &AppendArgs, appended: &Appended) -> Result<(), Stop> {
    let mut data = Data::new();
    if args.client.json {
        let mut report = Report::default();
        report.acknowledge(1..=args.text.len() as u64, appended);
        data.json(&report)?;
    } else {
        (appended.first..=appended.last).try_for_each(|index| data.bytes(format!("{index}\n").as_bytes()))?;
    }
    data.flush()
}

/// The entries that the texts are; `-` is what standard input holds.
async fn framed(texts: &[OsString]) -> Result<BytesMut, Failure> {
    let mut body = BytesMut::new();
    let mut has_input = false;
    for text in texts {
        let read;
        let entry = if text == "-" {
            if std::mem::replace(&mut has_input, true) {
                return Err(Failure::new(
                    Code::Usage,
                    "`-` was given twice, and standard input ends once",
                ));
            }
            read = whole_input().await?;
            &read
        } else {
            text.as_bytes()
        };
        frames::put(&mut body, entry).map_err(too_long)?;
    }
    Ok(body)
}

/// All of standard input, as one entry.
async fn whole_input() -> Result<Vec<u8>, Failure> {
    hint("an entry");
    let mut input = Input::open(Path::new("-"))?;
    let mut entry = Vec::new();
    while let Some(piece) = input.next().await? {
        entry.extend_from_slice(&piece);
        if entry.len() > ENTRY_BYTES_MAX {
            return Err(too_long(entry.len()));
        }
    }
    Ok(entry)
}

/// Says what is waited for, if that is to be typed.
fn hint(what: &str) {
    if io::stdin().is_terminal() {
        say!("kontiki: reading {what} from standard input; ^D ends it");
    }
}

fn too_long(length: usize) -> Failure {
    Failure::new(
        Code::TooLarge,
        format!("an entry of {length} bytes or more is taken by no node"),
    )
}

/// Appends the lines of a file through HTTP and says at the end what became of them.
async fn lines(args: &AppendArgs, path: &Path) -> Result<(), Stop> {
    if path.as_os_str() == "-" {
        hint("lines");
    }
    let input = Input::open(path)?;
    let report = append_lines(
        HttpAppender::new(args),
        input,
        args.verbose,
        &mut Interrupts::listen()?,
    )
    .await;
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
