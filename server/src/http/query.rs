//! Query parameters. An unknown one is refused rather than ignored: a misspelt precondition must not be no precondition.

use super::problem::Refusal;
use crate::{nearest::nearest, units};
use kontiki::{Code, Consistency, Expect};
use std::{collections::BTreeMap, time::Duration};

/// What `consistency` may be.
const CONSISTENCIES: [&str; 4] = ["linearizable", "lease", "stale", "at_least"];

/// The most and the fewest heartbeats of a tail that can be asked for.
const HEARTBEAT_MIN: Duration = Duration::from_secs(1);
const HEARTBEAT_MAX: Duration = Duration::from_secs(60);

/// The parameters of a request, by name.
pub(super) struct Query<'a> {
    values: BTreeMap<&'a str, &'a str>,
}

impl<'a> Query<'a> {
    /// Reads the query of a URL that may have the parameters `known`.
    pub(super) fn parse(query: Option<&'a str>, known: &[&str]) -> Result<Self, Refusal> {
        let mut values = BTreeMap::new();
        for pair in query
            .unwrap_or_default()
            .split('&')
            .filter(|pair| !pair.is_empty())
        {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            if !known.contains(&name) {
                return Err(unknown(name, known));
            }
            if values.insert(name, value).is_some() {
                return Err(Refusal::new(Code::BadRequest, format!("`{name}` is given twice")));
            }
        }
        Ok(Self { values })
    }

    /// A whole number.
    pub(super) fn number(&self, name: &str) -> Result<Option<u64>, Refusal> {
        self.value(name, "a whole number", |value| value.parse().ok())
    }

    /// An index, which counts from 1.
    pub(super) fn index(&self, name: &str) -> Result<Option<u64>, Refusal> {
        self.value(name, "an index, from 1", |value| {
            value.parse().ok().filter(|index| *index > 0)
        })
    }

    /// The first index of a range, where the log begins without one, and the index after its last.
    pub(super) fn range(&self) -> Result<(Option<u64>, Option<u64>), Refusal> {
        let (from, to) = (self.index("from")?, self.index("to")?);
        match from.zip(to).filter(|(from, to)| to < from) {
            None => Ok((from, to)),
            Some((from, to)) => {
                let detail = format!("the range ends at {to}, before it begins at {from}");
                Err(Refusal::new(Code::BadRequest, detail))
            }
        }
    }

    /// How long the request may take.
    pub(super) fn timeout(&self) -> Result<Option<Duration>, Refusal> {
        self.value("timeout", "a duration such as 500ms or 10s", |value| {
            units::duration(value).ok()
        })
    }

    /// How often a tail is to say that it is alive.
    pub(super) fn heartbeat(&self) -> Result<Option<Duration>, Refusal> {
        self.value("heartbeat", "a duration from 1s to 60s", |value| {
            let every = units::duration(value).ok();
            every.filter(|every| (HEARTBEAT_MIN..=HEARTBEAT_MAX).contains(every))
        })
    }

    /// How fresh a read must be.
    pub(super) fn consistency(&self) -> Result<Consistency, Refusal> {
        let known = |kind: &str| CONSISTENCIES.into_iter().find(|name| *name == kind);
        let kind = self.value(
            "consistency",
            "`linearizable`, `lease`, `stale` or `at_least`",
            known,
        )?;
        let max_lag = self.value("max_lag", "a duration such as 500ms or 10s", |value| {
            units::duration(value).ok()
        })?;
        let index = self.index("index")?;
        let kind = kind.unwrap_or("linearizable");
        let bad = |detail: &str| Err(Refusal::new(Code::BadRequest, detail));
        if max_lag.is_some() && kind != "stale" {
            return bad("`max_lag` is for `consistency=stale`");
        }
        match (kind, index) {
            ("at_least", Some(index)) => Ok(Consistency::AtLeast(index)),
            ("at_least", None) => bad("`consistency=at_least` needs `index`: the entry to wait for"),
            (_, Some(_)) => bad("`index` is for `consistency=at_least`"),
            ("lease", None) => Ok(Consistency::Lease),
            ("stale", None) => Ok(Consistency::Stale { max_lag }),
            (_, None) => Ok(Consistency::Linearizable),
        }
    }

    /// The precondition of an append.
    pub(super) fn expect(&self) -> Result<Expect, Refusal> {
        expect_of(self.number("expect_index")?, self.number("expect_term")?)
    }

    fn value<T>(
        &self,
        name: &str,
        allowed: &str,
        read: impl FnOnce(&str) -> Option<T>,
    ) -> Result<Option<T>, Refusal> {
        let Some(value) = self.values.get(name) else {
            return Ok(None);
        };
        let wrong = || {
            Refusal::new(
                Code::BadRequest,
                format!("`{name}` is `{value}`; it must be {allowed}"),
            )
        };
        read(value).map(Some).ok_or_else(wrong)
    }
}

/// What an append expects that names this index and this term.
pub(super) fn expect_of(index: Option<u64>, term: Option<u64>) -> Result<Expect, Refusal> {
    match (index, term) {
        (None, None) => Ok(Expect::Any),
        (Some(0), None) => Ok(Expect::Empty),
        (Some(0), Some(_)) => Err(Refusal::new(
            Code::BadRequest,
            "an empty log has no term: drop `expect_term`",
        )),
        (Some(index), term) => Ok(Expect::Last { index, term }),
        (None, Some(_)) => Err(Refusal::new(
            Code::BadRequest,
            "`expect_term` needs `expect_index`",
        )),
    }
}

fn unknown(name: &str, known: &[&str]) -> Refusal {
    let refusal = Refusal::new(Code::BadRequest, format!("unknown parameter `{name}`"));
    match nearest(name, known.iter().copied()) {
        Some(near) => refusal.advise(format!("did you mean `{near}`?")),
        None => refusal.advise(format!("known are {}", known.join(", "))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KNOWN: [&str; 5] = ["from", "to", "expect_index", "expect_term", "timeout"];

    fn query(text: &str) -> Result<Query<'_>, Refusal> {
        Query::parse(Some(text), &KNOWN)
    }

    fn expect(text: &str) -> Result<Expect, Refusal> {
        query(text)?.expect()
    }

    #[test]
    fn a_precondition_is_read() {
        assert!(matches!(expect(""), Ok(Expect::Any)));
        assert!(matches!(expect("expect_index=0"), Ok(Expect::Empty)));
        assert!(matches!(
            expect("expect_index=7"),
            Ok(Expect::Last { index: 7, term: None })
        ));
        assert!(matches!(
            expect("expect_index=7&expect_term=2"),
            Ok(Expect::Last {
                index: 7,
                term: Some(2)
            })
        ));
        assert!(expect("expect_term=2").is_err());
        assert!(expect("expect_index=0&expect_term=2").is_err());
        assert!(expect("expect_index=").is_err());
    }

    #[test]
    fn how_fresh_a_read_must_be_is_read_and_what_does_not_go_together_is_refused() {
        let consistency = |text| {
            let query = Query::parse(Some(text), &["consistency", "max_lag", "index"])?;
            query.consistency()
        };
        let max_lag = Some(Duration::from_millis(500));
        for (text, meant) in [
            ("", Consistency::Linearizable),
            ("consistency=linearizable", Consistency::Linearizable),
            ("consistency=lease", Consistency::Lease),
            ("consistency=stale", Consistency::STALE),
            ("consistency=stale&max_lag=500ms", Consistency::Stale { max_lag }),
            ("consistency=at_least&index=7", Consistency::AtLeast(7)),
        ] {
            assert_eq!(consistency(text).ok(), Some(meant), "{text}");
        }
        for text in [
            "consistency=fresh",
            "max_lag=500ms",
            "consistency=lease&max_lag=500ms",
            "consistency=at_least",
            "consistency=at_least&index=0",
            "consistency=at_least&index=7&max_lag=1s",
            "consistency=stale&index=7",
            "index=7",
        ] {
            assert!(consistency(text).is_err(), "{text}");
        }
    }

    #[test]
    fn heartbeats_come_every_second_to_every_minute() {
        let heartbeat = |text| Query::parse(Some(text), &["heartbeat"])?.heartbeat();
        assert_eq!(heartbeat("").unwrap(), None);
        for (text, seconds) in [("heartbeat=1s", 1), ("heartbeat=10s", 10), ("heartbeat=1m", 60)] {
            assert_eq!(
                heartbeat(text).unwrap(),
                Some(Duration::from_secs(seconds)),
                "{text}"
            );
        }
        for text in [
            "heartbeat",
            "heartbeat=0",
            "heartbeat=999ms",
            "heartbeat=61s",
            "heartbeat=x",
        ] {
            assert!(heartbeat(text).is_err(), "{text}");
        }
    }

    #[test]
    fn what_is_unknown_or_doubled_is_refused() {
        assert!(query("expected_index=7").is_err());
        assert!(query("from=1&from=2").is_err());
        assert!(query("from=0").unwrap().index("from").is_err());
        assert!(query("from=5&to=4").unwrap().range().is_err());
        assert_eq!(query("from=5&to=5").unwrap().range().unwrap(), (Some(5), Some(5)));
        assert_eq!(query("").unwrap().range().unwrap(), (None, None));
        assert_eq!(query("from=3").unwrap().index("from").unwrap(), Some(3));
        assert_eq!(
            query("timeout=250ms").unwrap().timeout().unwrap(),
            Some(Duration::from_millis(250))
        );
    }
}
