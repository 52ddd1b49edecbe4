//! Values of a program as bytes: postcard, with a bound on the stack and an order for the entries of maps.
//!
//! Serde recurses into a nested value, and an overflowing stack aborts the process. Both directions therefore measure, at
//! every byte, how much of the stack the recursion has taken, and fail instead. Invariants: a value that [`round_trip`]
//! accepts is decoded by the same build on every thread with [`DECODE_STACK_BYTES_MAX`] bytes of stack to spare, with a
//! factor of eight for other builds; the verdict of [`round_trip`] never depends on the order of a hash map; [`encode_ordered`]
//! gives equal bytes for maps with equal entries, whatever their order.

mod ordered;

use bytes::Bytes;
use ordered::{Ordered, Sort};
use postcard::{Deserializer, Serializer, de_flavors, ser_flavors};
use serde::{Serialize, de::DeserializeOwned};
use std::{
    any::type_name,
    cell::Cell,
    hint::black_box,
    panic::{AssertUnwindSafe, catch_unwind},
};

/// How many bytes of stack a value may take to be encoded or decoded on the thread that submits it: about 120 levels of
/// nesting for an enum of boxes in a debug build, several hundred in a release build.
pub const SUBMIT_STACK_BYTES_MAX: usize = 128 << 10;

/// How many bytes of stack decoding may take on any other thread: that of the state machine, or one that reads. Eight times
/// [`SUBMIT_STACK_BYTES_MAX`], because the frames of a debug build are larger than those of a release build.
pub const DECODE_STACK_BYTES_MAX: usize = 1 << 20;

/// Stack of the threads on which a node runs a state machine, in bytes.
pub const MACHINE_STACK_BYTES: usize = 4 * DECODE_STACK_BYTES_MAX;

const _: () = assert!(DECODE_STACK_BYTES_MAX >= 8 * SUBMIT_STACK_BYTES_MAX);

/// How many zeros a type is tried on by [`check_type`].
const PROBE_BYTES: usize = 1024;

/// Why a type whose values postcard cannot decode cannot be decoded.
const NOT_SELF_DESCRIBING: &str = "it can only be decoded from a format that describes itself, which postcard is not: serde_json::Value, \
    #[serde(tag)], #[serde(untagged)] and #[serde(flatten)] need one. Use plain types, or carry it as a String or bytes of JSON";

/// The bytes of a value.
///
/// # Errors
/// In words, if serde cannot encode it, or it is nested so deeply that more than [`DECODE_STACK_BYTES_MAX`] bytes of stack
/// were needed.
pub fn encode(value: &(impl Serialize + ?Sized)) -> Result<Bytes, String> {
    encode_within(value, DECODE_STACK_BYTES_MAX).map(Bytes::from)
}

/// The same with the entries of every map in the order of their keys' bytes: equal on all nodes for an output that holds a
/// `HashMap`. A sequence keeps its order, so a `HashSet` has none.
///
/// # Errors
/// As [`encode`].
pub fn encode_ordered(value: &(impl Serialize + ?Sized)) -> Result<Bytes, String> {
    encode_sorted(value, Sort::Maps, DECODE_STACK_BYTES_MAX).map(Bytes::from)
}

/// The value of these bytes, which must be all of it.
///
/// # Errors
/// In words, if they are not the encoding of one, or decoding takes more than [`DECODE_STACK_BYTES_MAX`] bytes of stack.
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, String> {
    decode_within(bytes, DECODE_STACK_BYTES_MAX)
}

/// The bytes of a value, once it is certain that the value comes back from them: it is encoded, decoded, and encoded again.
/// Maps and sets may come back in another order, for a hash map has none. Takes at most [`SUBMIT_STACK_BYTES_MAX`] bytes of
/// stack.
///
/// # Errors
/// In words, if the value does not come back.
pub fn round_trip<T: Serialize + DeserializeOwned>(value: &T) -> Result<Bytes, String> {
    let bytes = encode_within(value, SUBMIT_STACK_BYTES_MAX)?;
    let back: T = decode_within(&bytes, SUBMIT_STACK_BYTES_MAX)?;
    let again = encode_within(&back, SUBMIT_STACK_BYTES_MAX)?;
    if bytes != again && !are_equal_unordered(value, &back)? {
        return Err("the value that is decoded from its bytes has other bytes".to_owned());
    }
    Ok(bytes.into())
}

/// Whether two values have the same bytes once the entries of maps and the elements of sequences are sorted.
fn are_equal_unordered<T: Serialize>(one: &T, other: &T) -> Result<bool, String> {
    let sorted = |value| encode_sorted(value, Sort::MapsAndSequences, SUBMIT_STACK_BYTES_MAX);
    Ok(sorted(one)? == sorted(other)?)
}

/// Whether postcard can decode a type at all, as far as that shows without a value: an attempt on zeros, which reaches the
/// fields of structs and the first variant of enums.
///
/// # Errors
/// In words, if it cannot.
pub fn check_type<T: DeserializeOwned>() -> Result<(), String> {
    let too_deep = Cell::new(false);
    let mut zeros = Deserializer::from_flavor(Input {
        rest: &[0; PROBE_BYTES],
        stack: Stack::new(SUBMIT_STACK_BYTES_MAX, &too_deep),
    });
    // A type's own code may panic over zeros, which are no value of it.
    match catch_unwind(AssertUnwindSafe(|| T::deserialize(&mut zeros))) {
        Ok(Err(postcard::Error::WontImplement)) => Err(NOT_SELF_DESCRIBING.to_owned()),
        _ => Ok(()),
    }
}

fn encode_within(value: &(impl Serialize + ?Sized), stack_bytes_max: usize) -> Result<Vec<u8>, String> {
    let too_deep = Cell::new(false);
    let mut serializer = Serializer {
        output: Output::new(stack_bytes_max, &too_deep),
    };
    match value.serialize(&mut serializer) {
        Ok(()) => Ok(serializer.output.bytes),
        Err(_) if too_deep.get() => Err(nested_too_deeply(stack_bytes_max)),
        Err(error) => Err(error.to_string()),
    }
}

fn encode_sorted(
    value: &(impl Serialize + ?Sized),
    sort: Sort,
    stack_bytes_max: usize,
) -> Result<Vec<u8>, String> {
    let too_deep = Cell::new(false);
    let mut serializer = Ordered::new(Output::new(stack_bytes_max, &too_deep), sort);
    match value.serialize(&mut serializer) {
        Ok(()) => Ok(serializer.into_bytes()),
        Err(_) if too_deep.get() => Err(nested_too_deeply(stack_bytes_max)),
        Err(error) => Err(error.to_string()),
    }
}

fn decode_within<T: DeserializeOwned>(bytes: &[u8], stack_bytes_max: usize) -> Result<T, String> {
    let too_deep = Cell::new(false);
    let mut deserializer = Deserializer::from_flavor(Input {
        rest: bytes,
        stack: Stack::new(stack_bytes_max, &too_deep),
    });
    let value = match T::deserialize(&mut deserializer) {
        Ok(value) => value,
        Err(_) if too_deep.get() => return Err(nested_too_deeply(stack_bytes_max)),
        Err(postcard::Error::WontImplement) => {
            return Err(format!("{}: {NOT_SELF_DESCRIBING}", type_name::<T>()));
        }
        Err(error) => return Err(error.to_string()),
    };
    match deserializer.finalize() {
        Ok([]) => Ok(value),
        Ok(rest) => Err(format!("{} bytes are left over", rest.len())),
        Err(error) => Err(error.to_string()),
    }
}

fn nested_too_deeply(stack_bytes_max: usize) -> String {
    format!(
        "it is nested too deeply: it takes more than {} KiB of stack. Flatten it, into a vector of nodes that name each other, say",
        stack_bytes_max >> 10
    )
}

/// How far the stack may grow from where this was made.
#[derive(Clone, Copy)]
struct Stack<'a> {
    base: usize,
    bytes_max: usize,
    too_deep: &'a Cell<bool>,
}

impl<'a> Stack<'a> {
    #[inline(never)]
    fn new(bytes_max: usize, too_deep: &'a Cell<bool>) -> Self {
        Self {
            base: address_here(),
            bytes_max,
            too_deep,
        }
    }

    /// False, and noted, once the stack has grown too far.
    #[inline]
    fn has_room(&self) -> bool {
        let has_room = self.base.abs_diff(address_here()) <= self.bytes_max;
        if !has_room {
            self.too_deep.set(true);
        }
        has_room
    }
}

/// An address within the current frame.
#[inline(always)]
fn address_here() -> usize {
    let here = 0u8;
    std::ptr::from_ref(black_box(&here)).addr()
}

/// The output of postcard's serializer.
struct Output<'a> {
    bytes: Vec<u8>,
    stack: Stack<'a>,
}

impl<'a> Output<'a> {
    fn new(stack_bytes_max: usize, too_deep: &'a Cell<bool>) -> Self {
        Self {
            bytes: Vec::new(),
            stack: Stack::new(stack_bytes_max, too_deep),
        }
    }

    fn check(&self) -> postcard::Result<()> {
        if self.stack.has_room() {
            Ok(())
        } else {
            Err(postcard::Error::SerializeBufferFull)
        }
    }
}

impl ser_flavors::Flavor for Output<'_> {
    type Output = Vec<u8>;

    #[inline]
    fn try_extend(&mut self, data: &[u8]) -> postcard::Result<()> {
        self.check()?;
        self.bytes.extend_from_slice(data);
        Ok(())
    }

    #[inline]
    fn try_push(&mut self, data: u8) -> postcard::Result<()> {
        self.check()?;
        self.bytes.push(data);
        Ok(())
    }

    fn finalize(self) -> postcard::Result<Vec<u8>> {
        Ok(self.bytes)
    }
}

/// The input of postcard's deserializer.
struct Input<'de> {
    rest: &'de [u8],
    stack: Stack<'de>,
}

impl<'de> de_flavors::Flavor<'de> for Input<'de> {
    type Remainder = &'de [u8];
    type Source = &'de [u8];

    #[inline]
    fn pop(&mut self) -> postcard::Result<u8> {
        let (byte, rest) = self
            .rest
            .split_first()
            .ok_or(postcard::Error::DeserializeUnexpectedEnd)?;
        if !self.stack.has_room() {
            return Err(postcard::Error::DeserializeBadEncoding);
        }
        self.rest = rest;
        Ok(*byte)
    }

    #[inline]
    fn size_hint(&self) -> Option<usize> {
        Some(self.rest.len())
    }

    #[inline]
    fn try_take_n(&mut self, n: usize) -> postcard::Result<&'de [u8]> {
        let (taken, rest) = self
            .rest
            .split_at_checked(n)
            .ok_or(postcard::Error::DeserializeUnexpectedEnd)?;
        self.rest = rest;
        Ok(taken)
    }

    fn finalize(self) -> postcard::Result<&'de [u8]> {
        Ok(self.rest)
    }
}

#[cfg(test)]
mod tests;
