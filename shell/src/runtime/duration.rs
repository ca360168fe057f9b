//! Durations as people write them.

use std::time::Duration;

/// Reads a duration written as in 10s, 500ms or 2m. `Err` is the reason, for the person who wrote it.
pub(crate) fn duration_within(text: &str, min: Duration, max: Duration) -> Result<Duration, String> {
    let duration =
        humantime::parse_duration(text).map_err(|error| format!("{error}; write it as in 10s, 500ms or 2m"))?;
    if (min..=max).contains(&duration) {
        Ok(duration)
    } else {
        Err(format!("it must be {} to {}", humantime::format_duration(min), humantime::format_duration(max)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn duration_has_a_unit_and_bounds() {
        let read = |text| duration_within(text, Duration::from_millis(100), Duration::from_secs(60));
        assert_eq!(read("100ms"), Ok(Duration::from_millis(100)));
        assert_eq!(read("1m"), Ok(Duration::from_secs(60)));
        for text in ["99ms", "61s"] {
            assert_eq!(read(text), Err("it must be 100ms to 1m".into()));
        }
        assert!(read("10").unwrap_err().contains("write it as in 10s"));
    }
}
