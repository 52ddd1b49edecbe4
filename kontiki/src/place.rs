//! Where a data directory is: what tells the directory that a node has run with from a copy of it.
//!
//! Invariant: what the system does not tell is zero, and counts as unknown; of the machine's id no more is kept than a hash.

use crate::Error;
use kontiki_log::OsDisk;
use kontiki_wire::lives::Place;
use ring::digest::{Context, SHA256};
use std::fs;

/// The id of this machine, as systemd and others make it; not everywhere there is one.
const MACHINE: &str = "/etc/machine-id";
/// The id of this boot.
const BOOT: &str = "/proc/sys/kernel/random/boot_id";
/// A machine's id has 32 hexadecimal digits. Images of containers have the file, but empty or with a word in it.
const ID_DIGITS: usize = 32;

/// Where this directory is.
pub(crate) fn of(disk: &OsDisk) -> Result<Place, Error> {
    Ok(Place {
        machine: id(MACHINE),
        boot: id(BOOT),
        ..disk.place()?
    })
}

/// A number for what this file says, if it says an id.
fn id(path: &str) -> u64 {
    fs::read_to_string(path).map_or(0, |text| hash(path, &text))
}

fn hash(path: &str, text: &str) -> u64 {
    let digits = |text: &str| text.bytes().filter(u8::is_ascii_hexdigit).count();
    if digits(text) != ID_DIGITS {
        return 0;
    }
    let mut context = Context::new(&SHA256);
    context.update(b"kontiki place ");
    context.update(path.as_bytes());
    context.update(text.trim().as_bytes());
    let sum = context.finish();
    sum.as_ref()
        .first_chunk()
        .map_or(0, |first| u64::from_le_bytes(*first))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_told_as_a_number_and_what_is_no_id_as_unknown() {
        let id = "0123456789abcdef0123456789abcdef\n";
        assert_ne!(hash(MACHINE, id), 0);
        assert_eq!(hash(MACHINE, id), hash(MACHINE, id.trim()));
        assert_ne!(hash(MACHINE, id), hash(BOOT, id));
        for none in ["", "uninitialized\n"] {
            assert_eq!(hash(MACHINE, none), 0);
        }
    }
}
