//! A TOML table whose mistakes are told by file, line, field and what is allowed.

use crate::{nearest::nearest, units};
use std::{path::Path, str::FromStr, time::Duration};
use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

/// A parsed table that still knows where everything stood.
pub(crate) struct Table<'a> {
    place: Place<'a>,
    fields: DeTable<'a>,
}

/// The file, for telling where something stands in it.
#[derive(Clone, Copy)]
struct Place<'a> {
    file: &'a Path,
    source: &'a str,
}

impl Place<'_> {
    fn line(&self, offset: usize) -> usize {
        let before = self.source.as_bytes().iter().take(offset);
        before.filter(|byte| **byte == b'\n').count() + 1
    }

    fn mistake(&self, offset: usize, what: &str) -> String {
        format!("{}:{}: {what}", self.file.display(), self.line(offset))
    }
}

impl<'a> Table<'a> {
    /// Parses a whole file.
    pub(crate) fn parse(file: &'a Path, source: &'a str) -> Result<Self, String> {
        let place = Place { file, source };
        match DeTable::parse(source) {
            Ok(fields) => Ok(Self {
                place,
                fields: fields.into_inner(),
            }),
            Err(error) => {
                let at = error.span().map_or(0, |span| span.start);
                Err(place.mistake(at, error.message()))
            }
        }
    }

    /// Refuses every field that is not among `known`, and says which one was probably meant.
    pub(crate) fn only(&self, known: &[&str]) -> Result<(), String> {
        let unknown = self
            .fields
            .keys()
            .filter(|name| !known.contains(&name.get_ref().as_ref()));
        let Some(name) = unknown.min_by_key(|name| name.span().start) else {
            return Ok(());
        };
        let hint = match nearest(name.get_ref(), known.iter().copied()) {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("known are {}", known.join(", ")),
        };
        Err(self.place.mistake(
            name.span().start,
            &format!("unknown field `{}`; {hint}", name.get_ref()),
        ))
    }

    /// The line a field stands on.
    pub(crate) fn line(&self, name: &str) -> Option<usize> {
        self.field(name).map(|(offset, _)| self.place.line(offset))
    }

    /// What stands there, or that the field is missing.
    pub(crate) fn required<T>(&self, name: &str, allowed: &str, value: Option<T>) -> Result<T, String> {
        value.ok_or_else(|| {
            format!(
                "{}: `{name}` is missing; it is {allowed}",
                self.place.file.display()
            )
        })
    }

    /// A whole number from 1.
    pub(crate) fn number(&self, name: &str, allowed: &str) -> Result<Option<u64>, String> {
        self.value(name, allowed, |value| match value {
            DeValue::Integer(number) => positive(number),
            _ => None,
        })
    }

    /// A text that is not empty.
    pub(crate) fn text(&self, name: &str, allowed: &str) -> Result<Option<String>, String> {
        self.value(name, allowed, |value| {
            value.as_str().filter(|text| !text.is_empty()).map(str::to_owned)
        })
    }

    /// A text that means something.
    pub(crate) fn parsed<T: FromStr>(&self, name: &str, allowed: &str) -> Result<Option<T>, String> {
        self.value(name, allowed, |value| {
            value.as_str().and_then(|text| text.parse().ok())
        })
    }

    /// A duration, as a text with a unit.
    pub(crate) fn duration(&self, name: &str) -> Result<Option<Duration>, String> {
        self.value(name, "a duration such as \"300ms\" or \"10s\"", |value| {
            value.as_str().and_then(|text| units::duration(text).ok())
        })
    }

    /// A size, as a number of bytes or a text with a unit.
    pub(crate) fn size(&self, name: &str) -> Result<Option<u64>, String> {
        self.value(
            name,
            "a size such as 65536, \"64KiB\" or \"4MiB\"",
            |value| match value {
                DeValue::Integer(number) => positive(number),
                other => other.as_str().and_then(|text| units::size(text).ok()),
            },
        )
    }

    /// A table whose keys are node ids and whose values are texts.
    pub(crate) fn by_node(&self, name: &str, allowed: &str) -> Result<Option<Vec<(u64, String)>>, String> {
        let Some((offset, value)) = self.field(name) else {
            return Ok(None);
        };
        let DeValue::Table(table) = value.get_ref() else {
            return Err(self.wrong(offset, name, value, allowed));
        };
        let pairs = table
            .iter()
            .map(|(key, value)| self.pair(name, allowed, key.get_ref(), value));
        pairs.collect::<Result<_, _>>().map(Some)
    }

    fn pair(
        &self,
        name: &str,
        allowed: &str,
        key: &str,
        value: &Spanned<DeValue<'_>>,
    ) -> Result<(u64, String), String> {
        let id = key.parse().ok().filter(|id| *id > 0);
        let text = value.get_ref().as_str().filter(|text| !text.is_empty());
        id.zip(text.map(str::to_owned))
            .ok_or_else(|| self.wrong(value.span().start, &format!("{name}.{key}"), value, allowed))
    }

    fn value<T>(
        &self,
        name: &str,
        allowed: &str,
        read: impl FnOnce(&DeValue<'_>) -> Option<T>,
    ) -> Result<Option<T>, String> {
        let Some((offset, value)) = self.field(name) else {
            return Ok(None);
        };
        read(value.get_ref())
            .map(Some)
            .ok_or_else(|| self.wrong(offset, name, value, allowed))
    }

    fn field(&self, name: &str) -> Option<(usize, &Spanned<DeValue<'a>>)> {
        let found = self.fields.iter().find(|(key, _)| key.get_ref() == name);
        found.map(|(key, value)| (key.span().start, value))
    }

    fn wrong(&self, offset: usize, name: &str, value: &Spanned<DeValue<'_>>, allowed: &str) -> String {
        let given = self.place.source.get(value.span()).unwrap_or_default();
        self.place
            .mistake(offset, &format!("`{name}` is {given}; it must be {allowed}"))
    }
}

fn positive(number: &toml::de::DeInteger<'_>) -> Option<u64> {
    u64::from_str_radix(number.as_str(), number.radix())
        .ok()
        .filter(|number| *number > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(source: &str) -> Result<Table<'_>, String> {
        Table::parse(Path::new("n1.toml"), source)
    }

    #[test]
    fn an_unknown_field_is_named_with_its_line_and_the_nearest_known_one() {
        let table = parse("node = 1\n\ndatadir = \"x\"\n").unwrap();
        assert_eq!(
            table.only(&["node", "data_dir"]).unwrap_err(),
            "n1.toml:3: unknown field `datadir`; did you mean `data_dir`?"
        );
        assert_eq!(
            table.only(&["node", "http"]).unwrap_err(),
            "n1.toml:3: unknown field `datadir`; known are node, http"
        );
        assert!(table.only(&["node", "datadir"]).is_ok());
    }

    #[test]
    fn a_wrong_value_is_shown_with_what_is_allowed() {
        let table = parse("# head\nnode = \"one\"\nwait = 5\nmax = \"4MB\"").unwrap();
        assert_eq!(
            table.number("node", "a number").unwrap_err(),
            "n1.toml:2: `node` is \"one\"; it must be a number"
        );
        assert!(
            table
                .duration("wait")
                .unwrap_err()
                .starts_with("n1.toml:3: `wait` is 5; ")
        );
        assert!(
            table
                .size("max")
                .unwrap_err()
                .starts_with("n1.toml:4: `max` is \"4MB\"; ")
        );
        assert_eq!(table.number("absent", "a number").unwrap(), None);
    }

    #[test]
    fn broken_toml_is_named_by_line() {
        assert!(
            parse("node = 1\nhttp = \n")
                .err()
                .unwrap()
                .starts_with("n1.toml:2: ")
        );
    }

    #[test]
    fn peers_are_read_by_node() {
        let table = parse("[peers]\n1 = \"a:1\"\n22 = \"b:2\"").unwrap();
        let mut peers = table.by_node("peers", "addresses").unwrap().unwrap();
        peers.sort();
        assert_eq!(peers, [(1, "a:1".into()), (22, "b:2".into())]);
        let wrong = parse("[peers]\none = \"a:1\"")
            .unwrap()
            .by_node("peers", "addresses")
            .unwrap_err();
        assert_eq!(wrong, "n1.toml:2: `peers.one` is \"a:1\"; it must be addresses");
    }
}
