//! Medians, ratios, and the table.

use std::fmt;

use crate::load::Measured;

/// The final report. The first way is the baseline for the others.
pub(crate) struct Report {
    ways: Vec<String>,
    rows: Vec<Row>,
    bounds: Vec<Bound>,
}

/// The allowed throughput cost of one way compared with another.
struct Bound {
    way: String,
    of: String,
    workload: String,
    most: f64,
}

struct Row {
    name: String,
    ways: Vec<Measured>,
}

impl Report {
    /// A report on `ways`.
    pub(crate) fn new(ways: &[&str]) -> Self {
        Self { ways: ways.iter().map(|&w| w.to_owned()).collect(), rows: Vec::new(), bounds: Vec::new() }
    }

    /// Adds a bound: for each measurement of `workload`, the throughput of `way` divided by that of `of`, and its
    /// limit.
    pub(crate) fn bound(&mut self, (way, of): (&str, &str), workload: &str, most: f64) {
        let owned = str::to_owned;
        self.bounds.push(Bound { way: owned(way), of: owned(of), workload: owned(workload), most });
    }

    /// The bounds on the measured workloads, as text.
    fn bounded(&self) -> Vec<String> {
        let rate = |row: &Row, way: &str| {
            let at = self.ways.iter().position(|known| known == way)?;
            row.ways.get(at).map(|measured| measured.rate)
        };
        let limits = self.bounds.iter().flat_map(|bound| {
            self.rows.iter().filter(|row| row.name == bound.workload).filter_map(move |row| {
                let cost = rate(row, &bound.of)? / rate(row, &bound.way)?;
                let kept = if cost <= bound.most { "met" } else { "NOT MET" };
                Some(format!(
                    "{}: {} has {cost:.2} times the throughput of {}; limit <= {}: {kept}",
                    bound.workload, bound.of, bound.way, bound.most
                ))
            })
        });
        limits.collect()
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
        )?;
        self.bounded().into_iter().try_for_each(|line| writeln!(f, "{line}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table_has_medians_and_ratios() {
        let m = |rate| Measured { rate, p50: 1e6 / rate, p99: 2e6 / rate };
        let mut report = Report::new(&["direct", "explicit"]);
        report.add("small", &[vec![m(900.0), m(1000.0), m(5000.0)], vec![m(500.0), m(400.0), m(600.0)]]);
        let text = report.to_string();
        let line = text.lines().find(|l| l.contains("explicit")).unwrap();
        assert_eq!(
            line.split_whitespace().collect::<Vec<_>>(),
            ["explicit", "500", "0.50", "2000", "4000", "2.00"]
        );
        assert!(median([1.0, 2.0].into_iter()) - 1.5 < 1e-9);
    }

    #[test]
    fn bound_is_printed_with_the_measurement() {
        let m = |rate| Measured { rate, p50: 1e6 / rate, p99: 2e6 / rate };
        let limits = |strict: f64| {
            let mut report = Report::new(&["direct", "explicit", "relaxed"]);
            report.bound(("explicit", "relaxed"), "small", 1.3);
            report.add("small", &[vec![m(9000.0)], vec![m(strict)], vec![m(1300.0)]]);
            report.add("large", &[vec![m(9000.0)], vec![m(strict)], vec![m(1300.0)]]);
            let text = report.to_string();
            text.lines().filter(|line| line.contains("limit <=")).map(str::to_owned).collect::<Vec<_>>()
        };
        let line = |cost, kept| {
            format!("small: relaxed has {cost} times the throughput of explicit; limit <= 1.3: {kept}")
        };
        assert_eq!(limits(1000.0), [line("1.30", "met")]);
        assert_eq!(limits(650.0), [line("2.00", "NOT MET")]);
    }

    #[test]
    fn round_parses_three_numbers() {
        assert_eq!(Measured::parse("noise\n1.5 2 3\n").unwrap(), Measured { rate: 1.5, p50: 2.0, p99: 3.0 });
        for bad in ["", "1 2", "1 2 x"] {
            assert!(Measured::parse(bad).is_err(), "{bad}");
        }
    }
}
