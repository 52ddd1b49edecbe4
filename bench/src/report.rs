//! What was measured, as a table for people and as one JSON object a line for programs.
//!
//! A ratio says how many times better ours is than theirs, whatever the unit: above one, ours is ahead.

use std::fmt::Write as _;

/// What a figure counts, and so which end of it is better.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unit {
    /// More is better.
    EntriesPerSecond,
    /// Less is better.
    CpuNanosPerEntry,
    /// Less is better; zero is possible, so that a target is a bound on ours and not on the ratio.
    AllocationsPerEntry,
    /// More is better.
    ReadsPerSecond,
    /// More is better.
    MegabytesPerSecond,
    /// Half of all requests took no longer, in microseconds. Less is better.
    P50,
    /// 99 % of all requests. Less is better.
    P99,
    /// 99.9 % of all requests. Less is better.
    P999,
    /// 99.99 % of all requests. Less is better.
    P9999,
    /// The request that took longest, in milliseconds. Less is better.
    Longest,
    /// Less is better.
    Millis,
    /// CPU time in percent of one core. Less is better.
    PercentOfCore,
    /// Resident memory. Less is better.
    Mebibytes,
}

impl Unit {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::EntriesPerSecond => "entries/s",
            Self::CpuNanosPerEntry => "CPU ns/entry",
            Self::AllocationsPerEntry => "allocations/entry",
            Self::ReadsPerSecond => "reads/s",
            Self::MegabytesPerSecond => "MB/s",
            Self::P50 => "p50 us",
            Self::P99 => "p99 us",
            Self::P999 => "p99.9 us",
            Self::P9999 => "p99.99 us",
            Self::Longest => "longest ms",
            Self::Millis => "ms",
            Self::PercentOfCore => "% of a core",
            Self::Mebibytes => "MiB",
        }
    }

    fn ratio(self, ours: f64, theirs: f64) -> f64 {
        match self {
            Self::EntriesPerSecond | Self::ReadsPerSecond | Self::MegabytesPerSecond => ours / theirs,
            _ => theirs / ours,
        }
    }
}

/// What is aimed for.
#[derive(Clone, Copy)]
pub(crate) enum Target {
    /// The median ratio is at least this.
    Ratio(f64),
    /// Ours is at most so many times theirs, where less is better: a ratio of at least one over this.
    Within(f64),
    /// Our median is at most this.
    Ours(f64),
    /// The one or the other: a ratio, or ours at least this.
    RatioOrOurs(f64, f64),
}

/// Smallest, median and largest of several runs.
#[derive(Clone, Copy)]
pub(crate) struct Spread {
    pub(crate) min: f64,
    pub(crate) median: f64,
    pub(crate) max: f64,
}

impl Spread {
    /// `None` if there were no runs.
    pub(crate) fn of(values: impl Iterator<Item = f64>) -> Option<Self> {
        let mut values: Vec<f64> = values.collect();
        values.sort_by(f64::total_cmp);
        let (min, max) = (*values.first()?, *values.last()?);
        let half = values.len() / 2;
        let median = if values.len() % 2 == 1 {
            values[half]
        } else {
            f64::midpoint(values[half - 1], values[half])
        };
        Some(Self { min, median, max })
    }
}

/// One figure beside a peer's.
pub(crate) struct Row {
    pub(crate) suite: &'static str,
    pub(crate) case: String,
    pub(crate) peer: &'static str,
    pub(crate) unit: Unit,
    ours: f64,
    theirs: f64,
    ratio: Spread,
    target: Option<Target>,
}

impl Row {
    /// From pairs of runs, ours and theirs, taken one after the other. `None` if there are none.
    pub(crate) fn new(
        suite: &'static str,
        case: &str,
        peer: &'static str,
        unit: Unit,
        pairs: &[(f64, f64)],
        target: Option<Target>,
    ) -> Option<Self> {
        Some(Self {
            suite,
            case: case.into(),
            peer,
            unit,
            ours: Spread::of(pairs.iter().map(|p| p.0))?.median,
            theirs: Spread::of(pairs.iter().map(|p| p.1))?.median,
            ratio: Spread::of(pairs.iter().map(|p| unit.ratio(p.0, p.1)))?,
            target,
        })
    }

    /// From runs that no peer's stand beside. `None` if there are none.
    pub(crate) fn alone(
        suite: &'static str,
        case: &str,
        unit: Unit,
        runs: &[f64],
        target: Option<Target>,
    ) -> Option<Self> {
        let pairs: Vec<(f64, f64)> = runs.iter().map(|ours| (*ours, f64::NAN)).collect();
        Self::new(suite, case, "-", unit, &pairs, target)
    }

    /// Whether the target is met; `None` without one.
    pub(crate) fn met(&self) -> Option<bool> {
        self.target.map(|target| match target {
            Target::Ratio(least) => self.ratio.median >= least,
            Target::Within(most) => self.ratio.median >= 1.0 / most,
            Target::Ours(most) => self.ours <= most,
            Target::RatioOrOurs(ratio, ours) => self.ratio.median >= ratio || self.ours >= ours,
        })
    }

    /// Whether it belongs into a document that has no room for all.
    fn is_told(&self) -> bool {
        let counts = [
            Unit::EntriesPerSecond,
            Unit::ReadsPerSecond,
            Unit::MegabytesPerSecond,
        ];
        self.target.is_some() || counts.contains(&self.unit) || self.suite == "tail"
    }

    fn target_text(&self) -> String {
        match self.target {
            None => String::new(),
            Some(Target::Ratio(least)) => format!(">= {least} x"),
            Some(Target::Within(most)) => format!("<= {most} x theirs"),
            Some(Target::Ours(most)) => format!("ours <= {most}"),
            Some(Target::RatioOrOurs(ratio, ours)) => format!(">= {ratio} x or ours >= {ours}"),
        }
    }

    fn json(&self) -> String {
        let Spread { min, median, max } = self.ratio;
        let target = match self.target {
            None => "null".into(),
            Some(_) => quoted(&self.target_text()),
        };
        format!(
            "{{\"suite\":{},\"case\":{},\"ours\":{},\"peer\":{},\"theirs\":{},\"ratio\":{{\"min\":{},\"median\":{},\"max\":{}}},\"target\":{target},\"met\":{},\"unit\":{}}}",
            quoted(self.suite),
            quoted(&self.case),
            number(self.ours),
            quoted(self.peer),
            number(self.theirs),
            number(min),
            number(median),
            number(max),
            self.met().map_or("null".into(), |m| m.to_string()),
            quoted(self.unit.name()),
        )
    }
}

/// One JSON object a line.
pub(crate) fn json(rows: &[Row]) -> String {
    rows.iter().map(|row| row.json() + "\n").collect()
}

/// The rows that say most, as a table for a document: those with a target, and throughput.
pub(crate) fn markdown(rows: &[Row]) -> String {
    let mut text = String::from(
        "| suite | case | unit | ours | peer | theirs | ratio (min, max) | target | met |\n|---|---|---|---|---|---|---|---|---|\n",
    );
    for row in rows.iter().filter(|row| row.is_told()) {
        let met = row.met().map_or("", |met| if met { "yes" } else { "**no**" });
        let ratio = match row.ratio {
            Spread { median, .. } if !median.is_finite() => "-".into(),
            Spread { min, median, max } => format!("{} ({}, {})", figure(median), figure(min), figure(max)),
        };
        let target = match row.target_text() {
            text if text.is_empty() => text,
            text => text.replace(">=", "≥").replace("<=", "≤").replace(" x", " ×"),
        };
        let _ = writeln!(
            text,
            "| {} | {} | {} | {} | {} | {} | {ratio} | {target} | {met} |",
            row.suite,
            row.case,
            row.unit.name(),
            figure(row.ours),
            row.peer,
            figure(row.theirs),
        );
    }
    text
}

/// A table for people.
pub(crate) fn table(rows: &[Row]) -> String {
    let heads = [
        "suite",
        "case",
        "unit",
        "ours",
        "peer",
        "theirs",
        "ratio: min",
        "median",
        "max",
        "target",
        "met",
    ];
    let lines = rows.iter().map(|row| {
        let met = row.met().map_or("", |met| if met { "yes" } else { "NO" });
        [
            row.suite.into(),
            row.case.clone(),
            row.unit.name().into(),
            figure(row.ours),
            row.peer.into(),
            figure(row.theirs),
            figure(row.ratio.min),
            figure(row.ratio.median),
            figure(row.ratio.max),
            row.target_text(),
            met.into(),
        ]
    });
    let mut lines: Vec<[String; 11]> = lines.collect();
    lines.insert(0, heads.map(Into::into));
    let width = |column: usize| {
        lines
            .iter()
            .map(|line| line[column].chars().count())
            .max()
            .unwrap_or(0)
    };
    let widths: Vec<usize> = (0..heads.len()).map(width).collect();
    let mut text = String::new();
    for line in &lines {
        for (n, (cell, width)) in line.iter().zip(&widths).enumerate() {
            let numeric = matches!(n, 3 | 5..=8);
            let _ = if numeric {
                write!(text, "{cell:>width$}  ")
            } else {
                write!(text, "{cell:<width$}  ")
            };
        }
        text.truncate(text.trim_end().len());
        text.push('\n');
    }
    text
}

/// Three digits that matter.
fn figure(value: f64) -> String {
    match value.abs() {
        _ if !value.is_finite() => "-".into(),
        v if v >= 1e6 => format!("{:.2} M", value / 1e6),
        v if v >= 1e4 => format!("{:.0} k", value / 1e3),
        v if v >= 100.0 => format!("{value:.0}"),
        v if v >= 10.0 => format!("{value:.1}"),
        v if v >= 0.1 || v == 0.0 => format!("{value:.2}"),
        _ => format!("{value:.4}"),
    }
}

/// JSON knows no infinity.
fn number(value: f64) -> String {
    if value.is_finite() {
        format!("{value}")
    } else {
        "null".into()
    }
}

fn quoted(text: &str) -> String {
    let escaped: String = text
        .chars()
        .flat_map(|c| {
            ['\\']
                .into_iter()
                .filter(move |_| matches!(c, '"' | '\\'))
                .chain([c])
        })
        .collect();
    format!("\"{escaped}\"")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(unit: Unit, pairs: &[(f64, f64)], target: Option<Target>) -> Row {
        Row::new("core", "a \"b\"", "peer", unit, pairs, target).expect("there are runs")
    }

    #[test]
    fn a_ratio_above_one_means_that_ours_is_better() {
        let fast = row(
            Unit::EntriesPerSecond,
            &[(20.0, 10.0), (30.0, 10.0), (10.0, 10.0)],
            None,
        );
        assert_eq!(
            (fast.ratio.min, fast.ratio.median, fast.ratio.max),
            (1.0, 2.0, 3.0)
        );
        let lean = row(Unit::CpuNanosPerEntry, &[(5.0, 10.0)], None);
        assert_eq!(lean.ratio.median, 2.0);
    }

    #[test]
    fn a_target_can_be_missed() {
        let pairs = [(20.0, 10.0)];
        assert_eq!(
            row(Unit::EntriesPerSecond, &pairs, Some(Target::Ratio(2.0))).met(),
            Some(true)
        );
        assert_eq!(
            row(Unit::EntriesPerSecond, &pairs, Some(Target::Ratio(2.1))).met(),
            Some(false)
        );
        assert_eq!(
            row(Unit::AllocationsPerEntry, &pairs, Some(Target::Ours(19.0))).met(),
            Some(false)
        );
        assert_eq!(row(Unit::AllocationsPerEntry, &pairs, None).met(), None);
        let within = |most| row(Unit::P50, &pairs, Some(Target::Within(most))).met();
        assert_eq!((within(2.0), within(1.9)), (Some(true), Some(false)));
        let either = |ratio, ours| {
            row(
                Unit::MegabytesPerSecond,
                &pairs,
                Some(Target::RatioOrOurs(ratio, ours)),
            )
            .met()
        };
        assert_eq!(
            (either(2.0, 99.0), either(3.0, 20.0), either(3.0, 21.0)),
            (Some(true), Some(true), Some(false))
        );
        let alone = Row::alone(
            "idle",
            "a node",
            Unit::Mebibytes,
            &[9.0, 11.0],
            Some(Target::Ours(10.0)),
        );
        assert_eq!(alone.and_then(|row| row.met()), Some(true));
    }

    #[test]
    fn json_has_a_line_a_row_and_no_infinity() {
        let rows = [row(
            Unit::AllocationsPerEntry,
            &[(0.0, 1.0)],
            Some(Target::Ours(0.05)),
        )];
        assert_eq!(
            json(&rows),
            "{\"suite\":\"core\",\"case\":\"a \\\"b\\\"\",\"ours\":0,\"peer\":\"peer\",\"theirs\":1,\"ratio\":{\"min\":null,\"median\":null,\"max\":null},\"target\":\"ours <= 0.05\",\"met\":true,\"unit\":\"allocations/entry\"}\n"
        );
    }

    #[test]
    fn a_document_has_what_has_a_target_and_what_is_counted_by_the_second() {
        let rows = [
            row(Unit::P50, &[(2.0, 1.0)], Some(Target::Within(1.4))),
            row(Unit::P99, &[(2.0, 1.0)], None),
            row(Unit::EntriesPerSecond, &[(30_000.0, f64::NAN)], None),
        ];
        let text = markdown(&rows);
        let lines: Vec<&str> = text.lines().skip(2).collect();
        assert_eq!(
            lines,
            [
                "| core | a \"b\" | p50 us | 2.00 | peer | 1.00 | 0.50 (0.50, 0.50) | ≤ 1.4 × theirs | **no** |",
                "| core | a \"b\" | entries/s | 30 k | peer | - | - |  |  |",
            ]
        );
    }

    #[test]
    fn the_median_of_an_even_number_lies_between() {
        let spread = Spread::of([4.0, 1.0, 2.0, 3.0].into_iter()).expect("there are values");
        assert_eq!((spread.min, spread.median, spread.max), (1.0, 2.5, 4.0));
        assert!(Spread::of(std::iter::empty()).is_none());
    }
}
