//! The cluster key: one small file that makes a set of machines a cluster.
//!
//! It holds the cluster's id, which survives a change of the key, and the seed of the cluster's certificate authority.
//! Invariants: the seed is never printed; a key file is made readable for its owner only, and refused if others can read it;
//! nothing existing is overwritten.

use crate::{Error, random};
use kontiki_wire::ClusterId;
use ring::digest;
use std::{
    fmt,
    fs::{self, File, OpenOptions},
    io::{self, ErrorKind, Read, Write},
    path::Path,
};

/// The only format there is.
const FORMAT: &str = "1";

/// How much of a file is looked at; a key is much smaller.
const FILE_BYTES_MAX: u64 = 16 << 10;

/// What all nodes of a cluster share, and nobody else may have.
#[derive(Clone)]
pub struct ClusterKey {
    cluster: ClusterId,
    seed: [u8; 32],
}

impl ClusterKey {
    /// A key for a new cluster.
    ///
    /// # Errors
    /// [`Error::Io`] if the system has no randomness.
    pub fn generate() -> Result<Self, Error> {
        let cluster = ClusterId(u128::from_le_bytes(random::bytes()?));
        Ok(Self {
            cluster,
            seed: random::bytes()?,
        })
    }

    /// The cluster it belongs to. No secret.
    #[must_use]
    pub fn cluster(&self) -> ClusterId {
        self.cluster
    }

    /// The seed of the cluster's certificate authority.
    pub(crate) fn seed(&self) -> &[u8; 32] {
        &self.seed
    }

    /// Writes it to a new file that only its owner can read.
    ///
    /// # Errors
    /// [`Error::Io`] if the file exists or cannot be written.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<(), Error> {
        let path = path.as_ref();
        let mut options = OpenOptions::new();
        options.write(true).create_new(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let written = options.open(path).and_then(|mut file| {
            let written = file.write_all(self.render().as_bytes());
            let whole = written
                .and_then(|()| file.sync_all())
                .and_then(|()| sync_parent(path));
            whole.inspect_err(|_| {
                // Half a key would be in the way of the next attempt; what went wrong is told in any case.
                let _ = fs::remove_file(path);
            })
        });
        written.map_err(|error| Error::file("write the cluster key", path, &error))
    }

    /// Reads it from a file.
    ///
    /// # Errors
    /// [`Error::ClusterKey`] if the file is missing, others can read it, or it is not a whole key.
    pub fn load(path: impl AsRef<Path>) -> Result<Self, Error> {
        let path = path.as_ref();
        let wrong = |why: String| Error::ClusterKey(format!("the cluster key {}: {why}", path.display()));
        let file = File::open(path).map_err(|error| match error.kind() {
            ErrorKind::NotFound => wrong("there is no such file".to_owned()),
            _ => wrong(error.to_string()),
        })?;
        let metadata = file.metadata().map_err(|error| wrong(error.to_string()))?;
        if metadata.len() > FILE_BYTES_MAX {
            return Err(wrong("the file is much too large for a key".to_owned()));
        }
        refuse_readable(&metadata).map_err(|mode| {
            wrong(format!(
                "others may read it (mode {mode:03o}): chmod 600 {}",
                path.display()
            ))
        })?;
        // What was looked at is what is read, however the name is used meanwhile.
        let mut text = String::new();
        file.take(FILE_BYTES_MAX)
            .read_to_string(&mut text)
            .map_err(|error| wrong(error.to_string()))?;
        Self::parse(&text).map_err(|why| wrong(why.to_owned()))
    }

    fn render(&self) -> String {
        let (cluster, seed) = (self.cluster, hex(&self.seed));
        format!(
            "# The key of a Kontiki cluster. Whoever holds it can join the cluster: keep it secret.\n\
             # Every node needs a copy, readable for its owner only.\n\
             format = {FORMAT}\ncluster = {cluster}\nseed = {seed}\nchecksum = {}\n",
            self.checksum()
        )
    }

    fn parse(text: &str) -> Result<Self, &'static str> {
        let (mut format, mut cluster, mut seed, mut checksum) = (None, None, None, None);
        for line in text
            .lines()
            .map(str::trim)
            .filter(|line| !line.is_empty() && !line.starts_with('#'))
        {
            let (name, value) = line
                .split_once('=')
                .ok_or("it has a line that is not `name = value`")?;
            let place = match name.trim() {
                "format" => &mut format,
                "cluster" => &mut cluster,
                "seed" => &mut seed,
                "checksum" => &mut checksum,
                _ => return Err("it has a field that this version does not know"),
            };
            *place = Some(value.trim());
        }
        if format.ok_or("`format` is missing")? != FORMAT {
            return Err("it is of a format that this version does not know");
        }
        let cluster =
            unhex(cluster.ok_or("`cluster` is missing")?).ok_or("`cluster` is not 32 hex digits")?;
        let seed = unhex(seed.ok_or("`seed` is missing")?).ok_or("`seed` is not 64 hex digits")?;
        let key = Self {
            cluster: ClusterId(u128::from_be_bytes(cluster)),
            seed,
        };
        if checksum.ok_or("`checksum` is missing")? != key.checksum() {
            return Err("its checksum does not fit: it was changed or cut off");
        }
        Ok(key)
    }

    /// Finds slips, not attackers; tells nothing about the seed.
    fn checksum(&self) -> String {
        let mut context = digest::Context::new(&digest::SHA256);
        context.update(b"kontiki key checksum");
        context.update(&self.cluster.0.to_be_bytes());
        context.update(&self.seed);
        hex(&context.finish().as_ref()[..4])
    }
}

impl fmt::Debug for ClusterKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClusterKey")
            .field("cluster", &self.cluster)
            .finish_non_exhaustive()
    }
}

/// Makes the name of a new file as durable as the file.
#[cfg(unix)]
fn sync_parent(path: &Path) -> io::Result<()> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    File::open(parent.unwrap_or(Path::new(".")))?.sync_all()
}

#[cfg(not(unix))]
fn sync_parent(_: &Path) -> io::Result<()> {
    Ok(())
}

/// `Err` with the mode if others than the owner have any right to the file.
#[cfg(unix)]
fn refuse_readable(metadata: &fs::Metadata) -> Result<(), u32> {
    let mode = std::os::unix::fs::PermissionsExt::mode(&metadata.permissions()) & 0o777;
    if mode & 0o077 == 0 { Ok(()) } else { Err(mode) }
}

#[cfg(not(unix))]
fn refuse_readable(_: &fs::Metadata) -> Result<(), u32> {
    Ok(())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let digits = text.as_bytes();
    if digits.len() != 2 * N {
        return None;
    }
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks(2)) {
        let value = |digit: u8| char::from(digit).to_digit(16);
        let [high, low] = pair else { return None };
        *byte = u8::try_from(value(*high)? * 16 + value(*low)?).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_and_slips_are_seen() {
        let key = ClusterKey::generate().unwrap();
        let text = key.render();
        let read = ClusterKey::parse(&text).unwrap();
        assert_eq!((read.cluster, read.seed), (key.cluster, key.seed));
        let digit = text.find("seed = ").unwrap() + 7;
        let other = if text.as_bytes()[digit] == b'0' { "1" } else { "0" };
        let mut slip = text.clone();
        slip.replace_range(digit..=digit, other);
        assert!(ClusterKey::parse(&slip).unwrap_err().contains("checksum"));
        assert!(ClusterKey::parse(&text[..text.len() - 20]).is_err());
        assert!(
            ClusterKey::parse(&text.replace("format = 1", "format = 2"))
                .unwrap_err()
                .contains("format")
        );
    }

    #[test]
    fn nothing_secret_is_printed() {
        let key = ClusterKey::generate().unwrap();
        assert!(!format!("{key:?}").contains(&hex(&key.seed)));
    }

    #[cfg(unix)]
    #[test]
    fn a_key_that_others_can_read_is_refused_with_what_to_do() {
        use std::os::unix::fs::PermissionsExt;
        let path = std::env::temp_dir().join(format!("kontiki-key-{}", std::process::id()));
        let _ = fs::remove_file(&path);
        let key = ClusterKey::generate().unwrap();
        key.save(&path).unwrap();
        let mode = fs::metadata(&path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o600);
        assert!(key.save(&path).is_err(), "an existing key was overwritten");
        assert_eq!(ClusterKey::load(&path).unwrap().cluster(), key.cluster());
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        let error = ClusterKey::load(&path).unwrap_err().to_string();
        assert!(error.contains("chmod 600"), "{error}");
        let why = |path: &Path| ClusterKey::load(path).unwrap_err().to_string();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        fs::write(&path, vec![b'#'; FILE_BYTES_MAX as usize + 1]).unwrap();
        assert!(why(&path).contains("too large"));
        fs::remove_file(&path).unwrap();
        assert!(why(&path).contains("no such file"));
    }
}
