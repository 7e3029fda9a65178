//! Figures as lines of DogStatsD, and lines as datagrams. Pure.
//!
//! `PREFIX.NAME:VALUE|TYPE|#TAG:VALUE,…`, as the agent of Datadog, Telegraf and statsd_exporter take it. A counter says by how much it
//! rose since it was last sent, so that a receiver that adds up is right whatever became of the lines in between; a gauge says how it stands.

use std::collections::HashMap;
use std::fmt::Write as _;

use super::{Figure, Sample};

/// What passes every network in one piece: an Ethernet frame less the headers of IPv6 and UDP, with room for a tunnel.
pub(super) const DATAGRAM_BYTES_MAX: usize = 1_432;
/// Characters of a tag's value; beyond that it is cut.
const TAG_CHARACTERS_MAX: usize = 200;

/// What one counter is known by: its name, and what it is of.
type Series = (&'static str, Option<String>);

/// A datagram that is to be sent.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Datagram {
    pub(super) text: String,
    /// What is told once it has left.
    counted: Vec<(Series, u64)>,
}

/// Writes figures down, and remembers what was told of counters.
#[derive(Debug)]
pub(super) struct Writer {
    prefix: String,
    /// Tags of every line, written out.
    common: String,
    told: HashMap<Series, u64>,
}

impl Writer {
    /// `prefix` may be empty; `node` is the value of the tag of that name.
    pub(super) fn new(prefix: &str, node: &str) -> Self {
        let prefix = if prefix.is_empty() { String::new() } else { format!("{prefix}.") };
        Self { prefix, common: format!("node:{}", tag_value(node)), told: HashMap::new() }
    }

    /// The figures in as few datagrams as they fit into.
    pub(super) fn write(&self, samples: &[Sample]) -> Vec<Datagram> {
        let mut datagrams: Vec<Datagram> = Vec::new();
        for sample in samples {
            let line = self.line(sample);
            // What fits into no datagram is nothing that anybody could read; names and tags are bounded well below.
            if line.len() > DATAGRAM_BYTES_MAX {
                continue;
            }
            let fits = |datagram: &&mut Datagram| datagram.text.len() + 1 + line.len() <= DATAGRAM_BYTES_MAX;
            let datagram = match datagrams.last_mut().filter(fits) {
                Some(datagram) => {
                    datagram.text.push('\n');
                    datagram
                }
                None => {
                    datagrams.push(Datagram::default());
                    datagrams.last_mut().expect("one was added just now")
                }
            };
            datagram.text.push_str(&line);
            if let Figure::Counter(count) = sample.figure {
                datagram.counted.push((series(sample), count));
            }
        }
        datagrams
    }

    /// The datagram has left: its counts are told.
    pub(super) fn note_sent(&mut self, datagram: Datagram) {
        self.told.extend(datagram.counted);
    }

    fn line(&self, sample: &Sample) -> String {
        let mut line = format!("{}{}", self.prefix, sample.name);
        let written = match sample.figure {
            Figure::Counter(count) => {
                let told = self.told.get(&series(sample)).copied().unwrap_or_default();
                // What is lower than before was begun anew, and all of it is new.
                write!(line, ":{}|c", count.checked_sub(told).unwrap_or(count))
            }
            Figure::Gauge(value) => write!(line, ":{value}|g"),
        };
        written.expect("text takes text");
        line.push_str("|#");
        line.push_str(&self.common);
        if let Some((tag, value)) = &sample.of {
            write!(line, ",{tag}:{}", tag_value(value)).expect("text takes text");
        }
        line
    }
}

fn series(sample: &Sample) -> Series {
    (sample.name, sample.of.as_ref().map(|(_, value)| value.clone()))
}

/// Without what separates lines, fields and tags.
fn tag_value(text: &str) -> String {
    let plain = |c: char| if c.is_control() || c.is_whitespace() || matches!(c, '|' | ',' | '#') { '_' } else { c };
    text.chars().take(TAG_CHARACTERS_MAX).map(plain).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counter(name: &'static str, group: &str, count: u64) -> Sample {
        Sample { name, of: Some(("group", group.to_owned())), figure: Figure::Counter(count) }
    }

    fn texts(writer: &Writer, samples: &[Sample]) -> Vec<String> {
        writer.write(samples).into_iter().map(|datagram| datagram.text).collect()
    }

    fn send(writer: &mut Writer, samples: &[Sample]) {
        writer.write(samples).into_iter().for_each(|datagram| writer.note_sent(datagram));
    }

    /// OPS-42
    #[test]
    fn a_gauge_says_how_it_stands_and_a_counter_by_how_much_it_rose_since_it_left() {
        let mut writer = Writer::new("fulmar", "web-1:6001");
        let gauge = Sample { name: "webhooks_oldest_pending_seconds", of: None, figure: Figure::Gauge(1.5) };
        let line = "fulmar.webhooks_oldest_pending_seconds:1.5|g|#node:web-1:6001";
        assert_eq!(texts(&writer, std::slice::from_ref(&gauge)), [line]);
        assert_eq!(texts(&writer, std::slice::from_ref(&gauge)), [line], "a gauge stands");

        let rise = |writer: &Writer, count| {
            let text = texts(writer, &[counter("filled_total", "g1", count)]).remove(0);
            let rest = text.strip_prefix("fulmar.filled_total:").unwrap();
            rest.strip_suffix("|c|#node:web-1:6001,group:g1").unwrap().to_owned()
        };
        assert_eq!(rise(&writer, 5), "5");
        assert_eq!(rise(&writer, 7), "7", "nothing has left yet");
        send(&mut writer, &[counter("filled_total", "g1", 7), counter("filled_total", "g2", 50)]);
        assert_eq!(rise(&writer, 7), "0");
        assert_eq!(rise(&writer, 10), "3");
        assert_eq!(rise(&writer, 2), "2", "it was begun anew");
    }

    /// OPS-42
    #[test]
    fn no_datagram_is_larger_than_a_network_carries_and_none_ends_within_a_line() {
        let writer = Writer::new("fulmar", "web-1:6001");
        let samples: Vec<Sample> = (0..200).map(|n| counter("filled_total", &format!("group-{n}"), n)).collect();
        let texts = texts(&writer, &samples);
        assert!(texts.len() > 5 && texts.iter().all(|text| text.len() <= DATAGRAM_BYTES_MAX), "{}", texts.len());
        let lines: Vec<&str> = texts.iter().flat_map(|text| text.split('\n')).collect();
        assert_eq!(lines.len(), 200);
        assert!(lines.iter().all(|line| line.starts_with("fulmar.filled_total:") && line.contains(",group:group-")));
        // All but the last are as full as they can be.
        assert!(texts[..texts.len() - 1].iter().all(|text| text.len() + 100 > DATAGRAM_BYTES_MAX));
    }

    /// OPS-42
    #[test]
    fn what_a_name_holds_cannot_end_its_tag_or_its_line() {
        let writer = Writer::new("", "a b|c\n#d,e");
        assert_eq!(texts(&writer, &[counter("n", "g\n1", 1)]), ["n:1|c|#node:a_b_c__d_e,group:g_1"]);
        let long = texts(&writer, &[counter("n", &"x".repeat(5_000), 1)]);
        assert!(long[0].len() < 300);
    }
}
