//! Durations and sizes as people write them: `300ms`, `10s`, `4 MiB`.

use std::time::Duration;

const DURATIONS: [(&str, f64); 5] = [
    ("ms", 1e-3),
    ("s", 1.0),
    ("m", 60.0),
    ("h", 3600.0),
    ("d", 86_400.0),
];
const SIZES: [(&str, u64); 4] = [("B", 1), ("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30)];

/// The longest duration that is taken: about thirty years.
const SECONDS_MAX: f64 = 1e9;

/// A duration above zero: a number of seconds, or a number with a unit.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let (number, unit) = number_and_unit(text);
    let scale = DURATIONS
        .iter()
        .find(|(name, _)| *name == unit)
        .map(|(_, scale)| *scale);
    let scale = if unit.is_empty() { Some(1.0) } else { scale };
    let seconds = number
        .parse::<f64>()
        .ok()
        .zip(scale)
        .map(|(number, scale)| number * scale);
    match seconds {
        Some(seconds) if seconds > 0.0 && seconds <= SECONDS_MAX => Ok(Duration::from_secs_f64(seconds)),
        _ => Err(format!(
            "`{text}` is not a duration; write 10 (seconds), 500ms, 10s or 2m"
        )),
    }
}

/// A size: a number of bytes, or a number with a unit.
pub(crate) fn size(text: &str) -> Result<u64, String> {
    let (number, unit) = number_and_unit(text);
    let scale = SIZES
        .iter()
        .find(|(name, _)| *name == unit)
        .map(|(_, scale)| *scale);
    let scale = if unit.is_empty() { Some(1) } else { scale };
    let bytes = number
        .parse::<u64>()
        .ok()
        .zip(scale)
        .and_then(|(number, scale)| number.checked_mul(scale));
    bytes.ok_or_else(|| format!("`{text}` is not a size; write 65536 (bytes), 64KiB or 4MiB"))
}

fn number_and_unit(text: &str) -> (&str, &str) {
    let text = text.trim();
    let unit = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    (&text[..unit], text[unit..].trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_take_units() {
        assert_eq!(duration("10").unwrap(), Duration::from_secs(10));
        assert_eq!(duration("0.5").unwrap(), Duration::from_millis(500));
        assert_eq!(duration(" 250 ms").unwrap(), Duration::from_millis(250));
        assert_eq!(duration("2m").unwrap(), Duration::from_secs(120));
        assert_eq!(duration("7d").unwrap(), Duration::from_secs(7 * 86_400));
        for text in [
            "",
            "s",
            "-1",
            "0",
            "0ms",
            "1e9",
            "1y",
            "inf",
            "NaN",
            "9999999999h",
        ] {
            assert!(duration(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn sizes_take_units() {
        assert_eq!(size("65536").unwrap(), 65536);
        assert_eq!(size("4 MiB").unwrap(), 4 << 20);
        assert_eq!(size("1GiB").unwrap(), 1 << 30);
        for text in ["", "MiB", "-1", "1.5MiB", "4MB", "99999999999GiB"] {
            assert!(size(text).is_err(), "{text:?}");
        }
    }
}
