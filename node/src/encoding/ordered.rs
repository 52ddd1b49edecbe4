//! A serializer that gives the entries of maps an order: that of the bytes of their keys.
//!
//! It writes what postcard writes, in place, and permutes the entries of a map behind its last one. Invariant: the bytes are
//! a postcard encoding of the same value, but for the order of what is sorted.

use super::Output;
use postcard::{Error, Result};
use serde::ser::{self, Serialize};

/// The elements that are sorted.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Sort {
    /// Entries of maps. The order of a sequence is a part of its value.
    Maps,
    /// Entries of maps and elements of sequences, among which are sets.
    MapsAndSequences,
}

pub(super) struct Ordered<'s> {
    postcard: postcard::Serializer<Output<'s>>,
    sort: Sort,
}

impl<'s> Ordered<'s> {
    pub(super) fn new(output: Output<'s>, sort: Sort) -> Self {
        Self {
            postcard: postcard::Serializer { output },
            sort,
        }
    }

    pub(super) fn into_bytes(self) -> Vec<u8> {
        self.postcard.output.bytes
    }

    fn end(&self) -> usize {
        self.postcard.output.bytes.len()
    }
}

/// A value of several parts.
pub(super) struct Parts<'a, 's> {
    of: &'a mut Ordered<'s>,
    /// Where each part begins, if they are to be sorted.
    begins: Option<Vec<usize>>,
}

impl<'a, 's> Parts<'a, 's> {
    fn in_order(of: &'a mut Ordered<'s>) -> Self {
        Self { of, begins: None }
    }

    fn sorted(of: &'a mut Ordered<'s>) -> Self {
        Self {
            of,
            begins: Some(Vec::new()),
        }
    }

    /// Notes where a part begins.
    fn begin(&mut self) {
        let end = self.of.end();
        if let Some(begins) = &mut self.begins {
            begins.push(end);
        }
    }

    fn part(&mut self, value: &(impl Serialize + ?Sized)) -> Result<()> {
        value.serialize(&mut *self.of)
    }

    /// Sorts the parts, unless they are. Keys differ and none is the beginning of another's encoding, so that the order of
    /// whole entries is that of their keys.
    fn finish(self) {
        let Some(begins) = self.begins else { return };
        let Some(&first) = begins.first() else { return };
        let bytes = &mut self.of.postcard.output.bytes;
        let ends = begins.iter().skip(1).copied().chain([bytes.len()]);
        let mut parts: Vec<&[u8]> = begins
            .iter()
            .zip(ends)
            .map(|(begin, end)| &bytes[*begin..end])
            .collect();
        if !parts.is_sorted() {
            parts.sort_unstable();
            let sorted = parts.concat();
            bytes.truncate(first);
            bytes.extend_from_slice(&sorted);
        }
    }
}

/// Values that postcard writes as they are.
macro_rules! plain {
    ($($method:ident($($name:ident: $type:ty),*);)*) => {
        $(fn $method(self $(, $name: $type)*) -> Result<()> {
            (&mut self.postcard).$method($($name),*)
        })*
    };
}

impl<'a, 's> ser::Serializer for &'a mut Ordered<'s> {
    type Ok = ();
    type Error = Error;
    type SerializeSeq = Parts<'a, 's>;
    type SerializeTuple = Parts<'a, 's>;
    type SerializeTupleStruct = Parts<'a, 's>;
    type SerializeTupleVariant = Parts<'a, 's>;
    type SerializeMap = Parts<'a, 's>;
    type SerializeStruct = Parts<'a, 's>;
    type SerializeStructVariant = Parts<'a, 's>;

    plain! {
        serialize_bool(v: bool);
        serialize_i8(v: i8);
        serialize_i16(v: i16);
        serialize_i32(v: i32);
        serialize_i64(v: i64);
        serialize_i128(v: i128);
        serialize_u8(v: u8);
        serialize_u16(v: u16);
        serialize_u32(v: u32);
        serialize_u64(v: u64);
        serialize_u128(v: u128);
        serialize_f32(v: f32);
        serialize_f64(v: f64);
        serialize_char(v: char);
        serialize_str(v: &str);
        serialize_bytes(v: &[u8]);
        serialize_none();
        serialize_unit();
        serialize_unit_struct(name: &'static str);
        serialize_unit_variant(name: &'static str, index: u32, variant: &'static str);
    }

    fn is_human_readable(&self) -> bool {
        false
    }

    fn collect_str<T: std::fmt::Display + ?Sized>(self, value: &T) -> Result<()> {
        (&mut self.postcard).collect_str(value)
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<()> {
        // Postcard marks what is there by a one.
        self.serialize_u8(1)?;
        value.serialize(self)
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(self, _: &'static str, value: &T) -> Result<()> {
        value.serialize(self)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        name: &'static str,
        index: u32,
        variant: &'static str,
        value: &T,
    ) -> Result<()> {
        self.serialize_unit_variant(name, index, variant)?;
        value.serialize(self)
    }

    fn serialize_seq(self, length: Option<usize>) -> Result<Parts<'a, 's>> {
        (&mut self.postcard).serialize_seq(length)?;
        Ok(match self.sort {
            Sort::Maps => Parts::in_order(self),
            Sort::MapsAndSequences => Parts::sorted(self),
        })
    }

    fn serialize_tuple(self, _: usize) -> Result<Parts<'a, 's>> {
        Ok(Parts::in_order(self))
    }

    fn serialize_tuple_struct(self, _: &'static str, _: usize) -> Result<Parts<'a, 's>> {
        Ok(Parts::in_order(self))
    }

    fn serialize_tuple_variant(
        self,
        name: &'static str,
        index: u32,
        variant: &'static str,
        _: usize,
    ) -> Result<Parts<'a, 's>> {
        self.serialize_unit_variant(name, index, variant)?;
        Ok(Parts::in_order(self))
    }

    fn serialize_map(self, length: Option<usize>) -> Result<Parts<'a, 's>> {
        (&mut self.postcard).serialize_map(length)?;
        Ok(Parts::sorted(self))
    }

    fn serialize_struct(self, _: &'static str, _: usize) -> Result<Parts<'a, 's>> {
        Ok(Parts::in_order(self))
    }

    fn serialize_struct_variant(
        self,
        name: &'static str,
        index: u32,
        variant: &'static str,
        _: usize,
    ) -> Result<Parts<'a, 's>> {
        self.serialize_unit_variant(name, index, variant)?;
        Ok(Parts::in_order(self))
    }
}

impl ser::SerializeSeq for Parts<'_, '_> {
    type Ok = ();
    type Error = Error;

    fn serialize_element<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<()> {
        self.begin();
        self.part(value)
    }

    fn end(self) -> Result<()> {
        self.finish();
        Ok(())
    }
}

impl ser::SerializeMap for Parts<'_, '_> {
    type Ok = ();
    type Error = Error;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<()> {
        self.begin();
        self.part(key)
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<()> {
        self.part(value)
    }

    fn end(self) -> Result<()> {
        self.finish();
        Ok(())
    }
}

/// Values whose parts keep their order.
macro_rules! in_order {
    ($($trait:ident: $method:ident($($key:ident)?);)*) => {
        $(impl ser::$trait for Parts<'_, '_> {
            type Ok = ();
            type Error = Error;

            fn $method<T: Serialize + ?Sized>(&mut self, $($key: &'static str,)? value: &T) -> Result<()> {
                $(let _ = $key;)?
                self.part(value)
            }

            fn end(self) -> Result<()> {
                Ok(())
            }
        })*
    };
}

in_order! {
    SerializeTuple: serialize_element();
    SerializeTupleStruct: serialize_field();
    SerializeTupleVariant: serialize_field();
    SerializeStruct: serialize_field(key);
    SerializeStructVariant: serialize_field(key);
}
