//! A file or standard input, read on a thread of its own in pieces, as fast as they are wanted.

use crate::failure::Failure;
use std::{
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
    thread,
};
use tokio::sync::mpsc;

/// Bytes of a piece, at most.
const PIECE_BYTES: usize = 64 << 10;

/// Pieces read ahead.
const AHEAD: usize = 16;

/// Pieces of a stream of bytes.
pub(crate) struct Input {
    pieces: mpsc::Receiver<io::Result<Vec<u8>>>,
    path: PathBuf,
    /// How many bytes there are, where that is known beforehand.
    pub(crate) length: Option<u64>,
}

impl Input {
    /// Opens a file, or standard input for `-`.
    pub(crate) fn open(path: &Path) -> Result<Self, Failure> {
        if path.as_os_str() == "-" {
            return Ok(Self::start(path, None, io::stdin()));
        }
        let failed = |error| Failure::io("read", path, &error);
        let file = File::open(path).map_err(failed)?;
        let metadata = file.metadata().map_err(failed)?;
        if metadata.is_dir() {
            return Err(failed(io::ErrorKind::IsADirectory.into()));
        }
        Ok(Self::start(
            path,
            metadata.is_file().then_some(metadata.len()),
            file,
        ))
    }

    fn start(path: &Path, length: Option<u64>, source: impl Read + Send + 'static) -> Self {
        let (sender, pieces) = mpsc::channel(AHEAD);
        // The thread ends with the stream or with the receiver; nobody waits for it, since a read may never return.
        thread::spawn(move || pump(source, &sender));
        Self {
            pieces,
            path: path.to_owned(),
            length,
        }
    }

    /// The next piece; `None` at the end.
    pub(crate) async fn next(&mut self) -> Result<Option<Vec<u8>>, Failure> {
        let piece = self.pieces.recv().await.transpose();
        piece.map_err(|error| Failure::io("read", &self.path, &error))
    }

    /// Whether a piece, or the end, is at hand.
    pub(crate) fn is_ready(&self) -> bool {
        !self.pieces.is_empty() || self.pieces.is_closed()
    }
}

fn pump(mut source: impl Read, sender: &mpsc::Sender<io::Result<Vec<u8>>>) {
    let mut buffer = vec![0; PIECE_BYTES];
    loop {
        let piece = match source.read(&mut buffer) {
            Ok(0) => return,
            Ok(length) => Ok(buffer[..length].to_vec()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => Err(error),
        };
        let last = piece.is_err();
        if sender.blocking_send(piece).is_err() || last {
            return;
        }
    }
}
