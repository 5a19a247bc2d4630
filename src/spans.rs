//! Lengths of time as people write and read them.

use std::time::Duration;

use backupbot_actors::board::Moment;

/// Longer than anybody waits, short enough for every clock.
const LONGEST: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// Reads `500ms`, `60s`, `5m`, `1h`; the error is a sentence for the operator.
pub fn parse(text: &str) -> Result<Duration, String> {
    parse_up_to(text, LONGEST, "7 days")
}

fn parse_up_to(text: &str, longest: Duration, shown: &str) -> Result<Duration, String> {
    const WHAT: &str = "expected a duration with its unit, such as 500ms, 60s, 5m or 1h";
    let span: jiff::Span = text.parse().map_err(|_| WHAT.to_owned())?;
    let signed = span.to_duration(jiff::SpanRelativeTo::days_are_24_hours()).map_err(|_| WHAT.to_owned())?;
    match Duration::try_from(signed) {
        Ok(duration) if duration > longest => Err(format!("a duration here is at most {shown}")),
        Ok(duration) => Ok(duration),
        Err(_) => Err("a duration cannot be negative".to_owned()),
    }
}

/// The same for what may last longer: up to a year.
pub fn parse_long(text: &str) -> Result<Duration, String> {
    const YEAR: Duration = Duration::from_secs(366 * 24 * 60 * 60);
    match parse_up_to(text, YEAR, "366 days")? {
        Duration::ZERO => Err("that is no time at all".to_owned()),
        duration => Ok(duration),
    }
}

/// `42 s`, `5 min`, `3 h 5 min`, `2 d 4 h`: the two largest units.
pub fn in_words(seconds: u64) -> String {
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3_600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds} s"),
        (0, 0, _) => format!("{minutes} min"),
        (0, _, 0) => format!("{hours} h"),
        (0, ..) => format!("{hours} h {minutes} min"),
        (_, 0, _) => format!("{days} d"),
        _ => format!("{days} d {hours} h"),
    }
}

/// The day of a moment, as it is in UTC.
pub fn day(at: Moment) -> String {
    at.to_string().chars().take(10).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_need_a_unit_and_a_sense() {
        assert_eq!(parse("60s"), Ok(Duration::from_secs(60)));
        assert_eq!(parse("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(parse("1h"), Ok(Duration::from_secs(3600)));
        for wrong in ["", "60", "soon", "-5s", "1 month", "30d", "s"] {
            assert!(parse(wrong).is_err(), "{wrong:?}");
        }
        assert_eq!(parse_long("30d"), Ok(Duration::from_secs(30 * 86_400)));
        assert!(parse_long("400d").is_err() && parse_long("0s").is_err());
    }

    #[test]
    fn lengths_are_told_by_their_two_largest_units() {
        let told = [
            (0, "0 s"),
            (59, "59 s"),
            (60, "1 min"),
            (3_599, "59 min"),
            (3_600, "1 h"),
            (11_100, "3 h 5 min"),
            (86_400, "1 d"),
            (187_200, "2 d 4 h"),
        ];
        for (seconds, text) in told {
            assert_eq!(in_words(seconds), text);
        }
    }
}
