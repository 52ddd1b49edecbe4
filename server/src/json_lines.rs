//! Entries as JSON, one object a line (`application/x-ndjson`), over HTTP and under `--json`.
//!
//! An entry that is UTF-8 stands in `text`, any other in `base64`; exactly one of the two is there.

use crate::{api::Heartbeat, base64};
use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// An entry as it is written.
#[derive(Serialize)]
struct Written<'a> {
    index: u64,
    term: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    base64: Option<String>,
}

/// A heartbeat as it is written: a line of its own kind, which has no `index`.
#[derive(Serialize, Deserialize)]
struct Beat {
    heartbeat: Heartbeat,
}

/// An entry as it is given. Other fields are ignored, so that what was read can be appended again.
#[derive(Deserialize)]
struct Given {
    text: Option<String>,
    base64: Option<String>,
}

/// Appends the line of one entry to `out`.
pub(crate) fn put(out: &mut Vec<u8>, index: u64, term: u64, entry: &[u8]) -> serde_json::Result<()> {
    let text = std::str::from_utf8(entry).ok();
    let base64 = text.is_none().then(|| base64::encode(entry));
    serde_json::to_writer(
        &mut *out,
        &Written {
            index,
            term,
            text,
            base64,
        },
    )?;
    out.push(b'\n');
    Ok(())
}

/// Appends the line of one heartbeat to `out`.
pub(crate) fn put_heartbeat(out: &mut Vec<u8>, heartbeat: Heartbeat) -> serde_json::Result<()> {
    serde_json::to_writer(&mut *out, &Beat { heartbeat })?;
    out.push(b'\n');
    Ok(())
}

/// The heartbeat that a line is, if it is one.
pub(crate) fn heartbeat(line: &[u8]) -> Option<Heartbeat> {
    if !line.starts_with(b"{\"heartbeat\"") {
        return None;
    }
    let beat: Beat = serde_json::from_slice(line).ok()?;
    Some(beat.heartbeat)
}

/// The entries of a body of such lines. A last line without `\n` counts, an empty one after the last `\n` does not.
///
/// # Errors
/// Which line is wrong, and how.
pub(crate) fn parse(body: &[u8]) -> Result<Vec<Bytes>, String> {
    let body = body.strip_suffix(b"\n").unwrap_or(body);
    if body.is_empty() {
        return Ok(Vec::new());
    }
    let lines = body.split(|byte| *byte == b'\n').enumerate();
    lines
        .map(|(at, line)| entry(line).map_err(|what| format!("line {}: {what}", at + 1)))
        .collect()
}

fn entry(line: &[u8]) -> Result<Bytes, String> {
    let given: Given = serde_json::from_slice(line).map_err(|error| error.to_string())?;
    match (given.text, given.base64) {
        (Some(text), None) => Ok(text.into()),
        (None, Some(base64)) => base64::decode(&base64)
            .map(Bytes::from)
            .ok_or_else(|| "`base64` is not valid base64".into()),
        _ => Err("give either `text` or `base64`".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn utf8_is_text_and_the_rest_is_base64() {
        let mut out = Vec::new();
        put(&mut out, 7, 2, "caf\u{e9} \"x\"\r".as_bytes()).unwrap();
        put(&mut out, 8, 2, b"\xff\xfe").unwrap();
        let expected = "{\"index\":7,\"term\":2,\"text\":\"caf\u{e9} \\\"x\\\"\\r\"}\n\
                        {\"index\":8,\"term\":2,\"base64\":\"//4=\"}\n";
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }

    #[test]
    fn what_was_written_can_be_given_back() {
        let entries: [&[u8]; 3] = [b"", b"a\nb", b"\x80"];
        let mut out = Vec::new();
        for entry in entries {
            put(&mut out, 1, 1, entry).unwrap();
        }
        assert_eq!(parse(&out).unwrap(), entries);
    }

    #[test]
    fn a_wrong_line_is_named() {
        assert_eq!(
            parse(b"{\"text\":\"a\"}\n{}").unwrap_err(),
            "line 2: give either `text` or `base64`"
        );
        assert!(
            parse(b"{\"text\":\"a\"}\n\n{\"text\":\"b\"}")
                .unwrap_err()
                .starts_with("line 2: ")
        );
        assert!(
            parse(b"{\"base64\":\"?\"}")
                .unwrap_err()
                .contains("not valid base64")
        );
        assert!(parse(b"").unwrap().is_empty());
    }
}
