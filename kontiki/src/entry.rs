//! What stands in a log, and how it becomes bytes.
//!
//! Two kinds of entries go through one mechanism: any serde type, encoded with postcard, and [`Raw`], bytes as they come.
//! Invariant: what is appended reads back as the same bytes; for serde types that is checked for each entry before it
//! leaves the caller's thread ([`round_trip`]).

use crate::Error;
use bytes::Bytes;
use kontiki_node::encoding::{self, decode, round_trip};
use kontiki_wire::Codec;
use serde::{Serialize, de::DeserializeOwned};
use std::{any::type_name, marker::PhantomData};

/// A log without a state machine: its state is the log itself.
#[derive(Debug)]
pub struct LogOnly<T>(pub(crate) PhantomData<fn(T) -> T>);

/// Bytes as they come, for those who encode their entries themselves.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub struct Raw(pub Bytes);

/// What can stand in a log: any `Serialize + DeserializeOwned + Send + 'static`, and [`Raw`].
///
/// An entry is tried on the thread that appends it: it must come back from its bytes, with at most 128 KiB of stack (about 120
/// levels of nesting in a debug build). The thread that reads it needs no more than 1 MiB; a deeper entry is an
/// [`Error::Decode`], never an overflow.
pub trait LogEntry: sealed::Encode {}

impl<T: sealed::Encode> LogEntry for T {}

/// A value that is appended as an entry of type `T`, or applied as a command: a `T`, a `&T`, text for a `String`, and bytes or
/// text for [`Raw`]. Nothing that can be encoded as it is gets copied.
pub trait IntoEntry<T> {
    /// Calls `with` with the entry.
    fn with_entry<R>(self, with: impl FnOnce(&T) -> R) -> R;
}

impl<T> IntoEntry<T> for T {
    fn with_entry<R>(self, with: impl FnOnce(&T) -> R) -> R {
        with(&self)
    }
}

impl<T> IntoEntry<T> for &T {
    fn with_entry<R>(self, with: impl FnOnce(&T) -> R) -> R {
        with(self)
    }
}

impl IntoEntry<String> for &str {
    fn with_entry<R>(self, with: impl FnOnce(&String) -> R) -> R {
        with(&self.to_owned())
    }
}

/// Entries of bytes.
macro_rules! into_raw {
    ($($type:ty: $value:ident => $bytes:expr;)*) => {
        $(impl IntoEntry<Raw> for $type {
            fn with_entry<R>(self, with: impl FnOnce(&Raw) -> R) -> R {
                let $value = self;
                with(&Raw($bytes))
            }
        })*
    };
}

into_raw! {
    Bytes: bytes => bytes;
    Vec<u8>: bytes => bytes.into();
    String: text => text.into();
    &[u8]: bytes => Bytes::copy_from_slice(bytes);
    &str: text => Bytes::copy_from_slice(text.as_bytes());
}

pub(crate) mod sealed {
    use super::{Bytes, Codec, Error};

    /// How an entry becomes bytes.
    pub trait Encode: Sized + Send + 'static {
        /// What the record says of it.
        const CODEC: Codec;

        /// Refuses a type of which nothing could ever be read back.
        fn check_type() -> Result<(), Error> {
            Ok(())
        }

        /// Its bytes.
        fn encode(&self) -> Result<Bytes, Error>;

        /// The entry of these bytes, which stand at this index and are of this schema.
        fn decode(at: (u64, u32), bytes: Bytes) -> Result<Self, Error>;
    }
}

impl sealed::Encode for Raw {
    const CODEC: Codec = Codec::Bytes;

    fn encode(&self) -> Result<Bytes, Error> {
        Ok(self.0.clone())
    }

    fn decode(_: (u64, u32), bytes: Bytes) -> Result<Self, Error> {
        Ok(Self(bytes))
    }
}

impl<T: Serialize + DeserializeOwned + Send + 'static> sealed::Encode for T {
    const CODEC: Codec = Codec::Postcard;

    fn check_type() -> Result<(), Error> {
        check_type::<T>()
    }

    fn encode(&self) -> Result<Bytes, Error> {
        to_bytes(self)
    }

    fn decode((index, schema): (u64, u32), bytes: Bytes) -> Result<Self, Error> {
        decode(&bytes).map_err(|why| Error::Decode {
            index,
            schema,
            type_name: type_name::<T>(),
            why,
        })
    }
}

/// The bytes of a value, once it is certain that the value comes back from them.
pub(crate) fn to_bytes<T: Serialize + DeserializeOwned>(value: &T) -> Result<Bytes, Error> {
    round_trip(value).map_err(not_round_trip::<T>)
}

/// Refuses a type whose values could never be read back.
pub(crate) fn check_type<T: DeserializeOwned>() -> Result<(), Error> {
    encoding::check_type::<T>().map_err(not_round_trip::<T>)
}

fn not_round_trip<T>(why: String) -> Error {
    Error::NotRoundTrip {
        type_name: type_name::<T>(),
        why,
    }
}

#[cfg(test)]
mod tests {
    use super::{sealed::Encode, *};
    use crate::Code;
    use serde::Deserialize;
    use std::collections::BTreeMap;

    #[derive(Serialize, Deserialize, PartialEq, Debug)]
    struct Plain {
        name: String,
        amounts: BTreeMap<u32, i64>,
    }

    #[derive(Serialize, Deserialize)]
    struct Skipping {
        #[serde(skip_serializing_if = "Option::is_none", default)]
        first: Option<u32>,
        second: u32,
    }

    #[derive(Serialize, Deserialize)]
    #[serde(untagged)]
    enum Untagged {
        Number(u32),
    }

    #[derive(Serialize, Deserialize)]
    struct Forgetful {
        #[serde(skip_deserializing)]
        kept: u32,
    }

    #[test]
    fn a_plain_type_comes_back() {
        let plain = Plain {
            name: "raft".into(),
            amounts: [(1, -1), (2, 7)].into(),
        };
        assert_eq!(Plain::decode((1, 0), plain.encode().unwrap()).unwrap(), plain);
        assert_eq!(
            Raw::decode((1, 0), Raw(Bytes::from_static(b"\xff")).encode().unwrap())
                .unwrap()
                .0[..],
            b"\xff"[..]
        );
    }

    #[test]
    fn what_does_not_come_back_is_refused_where_it_is_appended() {
        let code = |result: Result<Bytes, Error>| result.map_err(|error| error.code());
        assert_eq!(
            code(
                Skipping {
                    first: None,
                    second: 5
                }
                .encode()
            ),
            Err(Code::NotRoundTrip)
        );
        assert_eq!(code(Untagged::Number(1).encode()), Err(Code::NotRoundTrip));
        assert_eq!(code(Forgetful { kept: 9 }.encode()), Err(Code::NotRoundTrip));
    }

    #[test]
    fn an_entry_of_another_type_is_named_by_index() {
        let bytes = String::from("four").encode().unwrap();
        let error = <(u8, u8)>::decode((9, 3), bytes).unwrap_err();
        assert!(
            error
                .to_string()
                .starts_with("entry 9, of schema 3, is not a (u8, u8): "),
            "{error}"
        );
    }
}
