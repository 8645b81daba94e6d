//! Medians, ratios, and the table.

use std::fmt;

use crate::load::Measured;

/// What is printed in the end: the first way is what the others are compared with.
pub(crate) struct Report {
    ways: Vec<String>,
    rows: Vec<Row>,
}

struct Row {
    name: String,
    ways: Vec<Measured>,
}

impl Report {
    /// A report on `ways`.
    pub(crate) fn new(ways: &[&str]) -> Self {
        Self { ways: ways.iter().map(|&w| w.to_owned()).collect(), rows: Vec::new() }
    }

    /// Adds a workload: the rounds of each way, in the order of the ways.
    pub(crate) fn add(&mut self, name: &str, rounds: &[Vec<Measured>]) {
        let ways = rounds.iter().map(|of_way| Measured {
            rate: median(of_way.iter().map(|m| m.rate)),
            p50: median(of_way.iter().map(|m| m.p50)),
            p99: median(of_way.iter().map(|m| m.p99)),
        });
        self.rows.push(Row { name: name.to_owned(), ways: ways.collect() });
    }
}

impl Report {
    /// How much more of `first` than of `second` a workload has, in requests per second.
    pub(crate) fn times(&self, workload: &str, first: &str, second: &str) -> Option<f64> {
        let row = self.rows.iter().find(|row| row.name == workload)?;
        let rate = |name: &str| {
            let at = self.ways.iter().position(|way| way == name)?;
            row.ways.get(at).map(|measured| measured.rate)
        };
        Some(rate(first)? / rate(second)?)
    }
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<_> = values.collect();
    values.sort_by(f64::total_cmp);
    match values.len() {
        0 => f64::NAN,
        n if n % 2 == 1 => values[n / 2],
        n => f64::midpoint(values[n / 2 - 1], values[n / 2]),
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{:<32} {:<12} {:>9} {:>7} {:>9} {:>9} {:>7}",
            "", "", "req/s", "ratio", "p50 us", "p99 us", "ratio"
        )?;
        for row in &self.rows {
            let base = row.ways.first();
            for (number, (way, measured)) in self.ways.iter().zip(&row.ways).enumerate() {
                let name = if number == 0 { row.name.as_str() } else { "" };
                let ratio = |of: fn(&Measured) -> f64| base.map_or(f64::NAN, |base| of(measured) / of(base));
                writeln!(
                    f,
                    "{name:<32} {way:<12} {:>9.0} {:>7.2} {:>9.0} {:>9.0} {:>7.2}",
                    measured.rate,
                    ratio(|m| m.rate),
                    measured.p50,
                    measured.p99,
                    ratio(|m| m.p50),
                )?;
            }
        }
        writeln!(
            f,
            "\nratio: to {}, of req/s (more is better) and of p50 (less is better); medians over rounds",
            self.ways[0]
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_and_ratios() {
        let m = |rate| Measured { rate, p50: 1e6 / rate, p99: 2e6 / rate };
        let mut report = Report::new(&["direct", "explicit"]);
        report.add("small", &[vec![m(900.0), m(1000.0), m(5000.0)], vec![m(500.0), m(400.0), m(600.0)]]);
        assert!((report.times("small", "direct", "explicit").unwrap() - 2.0).abs() < 1e-9);
        assert_eq!(report.times("small", "direct", "none"), None);
        let text = report.to_string();
        let line = text.lines().find(|l| l.contains("explicit")).unwrap();
        assert_eq!(
            line.split_whitespace().collect::<Vec<_>>(),
            ["explicit", "500", "0.50", "2000", "4000", "2.00"]
        );
        assert!(median([1.0, 2.0].into_iter()) - 1.5 < 1e-9);
    }

    #[test]
    fn a_round_is_three_numbers() {
        assert_eq!(Measured::parse("noise\n1.5 2 3\n").unwrap(), Measured { rate: 1.5, p50: 2.0, p99: 3.0 });
        for bad in ["", "1 2", "1 2 x"] {
            assert!(Measured::parse(bad).is_err(), "{bad}");
        }
    }
}
