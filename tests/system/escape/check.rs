//! Compares the results of the attempts with the table.

use std::fmt::Write as _;
use std::time::Duration;

use onecli_tests::wait_for;
use serde_json::Value;

use super::stage::{Mode, Stage};
use super::table::{Control, Expect, ROWS};
use super::world::{Packet, Report};

/// The time between the end of an attempt and its last packet, at most.
const SETTLE: f64 = 0.01;

/// The control's errors if this kernel lacks the feature, so that there is no way out through it.
const NOT_HERE: [&str; 4] = ["EPROTONOSUPPORT", "EAFNOSUPPORT", "ESOCKTNOSUPPORT", "ENOSYS"];

/// An attempt that was made.
struct Made {
    mode: Mode,
    index: usize,
    report: Report,
    packets: Vec<Packet>,
}

/// The results so far.
pub(super) struct Findings<'s> {
    stage: &'s Stage,
    made: Vec<Made>,
    wrong: Vec<String>,
    /// The number of folded refusals in the audit log equals the number of rows that it does not name.
    folded: bool,
}

impl<'s> Findings<'s> {
    pub(super) fn new(stage: &'s Stage) -> Self {
        Self { stage, made: Vec::new(), wrong: Vec::new(), folded: false }
    }

    /// Adds the reports of one mode, in which the kernel programs counted this many refusals.
    pub(super) fn add(&mut self, mode: Mode, reports: &[Report], refusals: u64) {
        let new: Vec<_> = reports
            .iter()
            .map(|report| Made {
                mode,
                index: ROWS.iter().position(|row| row.name == report.row).expect("a row of the table"),
                report: report.clone(),
                packets: Vec::new(),
            })
            .collect();
        let by_kernel = |m: &&Made| matches!(self.expected(m), Some(Expect::Denied(_)));
        let is_here = |m: &&Made| !NOT_HERE.contains(&m.report.result.as_str());
        let expected = new.iter().filter(by_kernel).filter(is_here).count();
        // The audit log folds similar refusals; the kernel counts each one.
        if refusals < expected as u64 {
            self.wrong
                .push(format!("{mode:?}: {refusals} refusals counted by the kernel, {expected} expected"));
        }
        self.made.extend(new);
    }

    /// Every row with its result, one per line, and all deviations from the table.
    pub(super) fn judge(mut self) -> (String, Vec<String>) {
        // Packets in flight arrive, and outcomes and refusals are recorded.
        std::thread::sleep(Duration::from_millis(300));
        let strays = self.attribute();
        let audit = self.audit();
        let mut table = String::new();
        let mut wrong = std::mem::take(&mut self.wrong);
        for made in &self.made {
            let complaints = self.check(made, &audit);
            let verdict = match (complaints.is_empty(), self.expected(made)) {
                (false, _) => "WRONG",
                (true, _) if self.is_absent(made.index) => "NOT HERE",
                (true, Some(Expect::Open(_))) => "KNOWN OPEN",
                (true, _) => "ok",
            };
            let Made { mode, report, packets, .. } = made;
            let mode = format!("{mode:?}");
            writeln!(
                table,
                "{verdict:10} {mode:8} {:30} {:3} packets, {} {}",
                report.row,
                packets.len(),
                report.result,
                report.detail
            )
            .expect("writing to a String succeeds");
            wrong.extend(complaints.into_iter().map(|c| format!("{mode} {}: {c} ({report:?})", report.row)));
        }
        let others =
            audit.iter().filter(|r| !r["agent"].is_null() && r["agent"] != self.stage.one.name.as_str());
        wrong.extend(others.map(|record| format!("attributed to another agent: {record}")));
        wrong.extend(strays.iter().map(|packet| format!("a packet without an attempt: {packet:?}")));
        (table, wrong)
    }

    /// The audit log, once it contains all refusals of requests. Further refusals of one agent within ten seconds share
    /// one record with a count, which is written at the end of that time.
    fn audit(&mut self) -> Vec<Value> {
        let mut audit = Vec::new();
        let settled = wait_for(Duration::from_secs(20), || {
            audit = self.stage.daemon.audit();
            let unnamed = self.made.iter().filter(|made| {
                made.mode != Mode::Outside
                    && matches!(ROWS[made.index].expect(made.mode), Some(Expect::Judged))
                    && made.report.result.starts_with("answered HTTP/1.1 4")
                    && !audit
                        .iter()
                        .any(|r| self.is_refusal_of(r, &made.report.row, made.mode.port(made.index)))
            });
            let of_one = |r: &&Value| r["code"] == "several" && r["agent"] == self.stage.one.name.as_str();
            let shared: u64 = audit.iter().filter(of_one).filter_map(|r| r["count"].as_u64()).sum();
            (unnamed.count() as u64 <= shared).then_some(())
        });
        self.folded = settled.is_some();
        audit
    }

    /// Assigns every packet to its attempt: by its unique port, by the marker, or by the time. Returns the other
    /// packets.
    fn attribute(&mut self) -> Vec<Packet> {
        let mut strays = Vec::new();
        for packet in self.stage.target.packets() {
            let by_port = |m: &Made| m.mode.port(m.index) == packet.port;
            // The kernel repeats group membership reports, and announces when a group is left.
            let by_marker = |m: &Made| m.report.row == packet.row && m.report.start <= packet.at;
            let by_time = |m: &Made| (m.report.start..m.report.end + SETTLE).contains(&packet.at);
            let of = self.made.iter().position(by_port);
            let of = of.or_else(|| self.made.iter().rposition(by_marker));
            let of = of.or_else(|| self.made.iter().rposition(by_time));
            match of {
                Some(at) => self.made[at].packets.push(packet),
                None => strays.push(packet),
            }
        }
        strays
    }

    /// The deviations of an attempt.
    fn check(&self, made: &Made, audit: &[Value]) -> Vec<String> {
        let Made { mode, index, report, packets } = made;
        let (row, result) = (&ROWS[*index], report.result.as_str());
        let mut wrong = Vec::new();
        if result == "broken" || result.starts_with("ended by") {
            wrong.push("the attempt itself failed".to_owned());
        }
        if self.is_absent(*index) && packets.is_empty() {
            return wrong;
        }
        let arrived: Vec<_> = packets
            .iter()
            .filter(|p| !(row.inbound && p.reaction))
            .filter(|p| p.data || !row.connected || *mode == Mode::Outside)
            .collect();
        if *mode == Mode::Outside {
            wrong.extend(failed_control(row.control, result, !arrived.is_empty()));
            return wrong;
        }
        let expect = self.expected(made).expect("a row of this mode");
        if matches!(expect, Expect::Open(_)) {
            return wrong;
        }
        if !arrived.is_empty() {
            let Packet { protocol, to, port, .. } = arrived[0];
            let first = format!("IP protocol {protocol} to {to} port {port}");
            wrong.push(format!("{} packets reached the target, the first {first}", arrived.len()));
        }
        if result.starts_with("answered TARGET") || result.starts_with("answered HOST") {
            wrong.push("a process answered that no agent may reach".to_owned());
        }
        let as_expected = match expect {
            Expect::Judged => {
                let recorded = audit.iter().any(|r| self.is_refusal_of(r, &report.row, mode.port(*index)));
                result.starts_with("answered HTTP/1.1 4") && (recorded || self.folded)
            }
            Expect::Denied(reason) => result == "EPERM" && audit.iter().any(|r| self.is_denial(r, reason)),
            Expect::Errno(numbers) => numbers.contains(&result),
            Expect::Says(beginning) => result.starts_with(beginning),
            Expect::Nothing | Expect::Open(_) | Expect::Secured(..) | Expect::Scoped(..) => true,
        };
        if !as_expected {
            wrong.push(format!("not {expect:?}"));
        }
        wrong
    }

    /// The expected result of an attempt on this kernel.
    fn expected(&self, made: &Made) -> Option<Expect> {
        Some(match ROWS[made.index].expect(made.mode)? {
            Expect::Secured(&refusal, _) if self.stage.secured => refusal,
            Expect::Scoped(&refusal, _) if self.stage.scoped => refusal,
            Expect::Secured(_, hole) | Expect::Scoped(_, hole) => Expect::Open(hole),
            other => other,
        })
    }

    /// Returns whether the control found that this kernel lacks the feature of the row.
    fn is_absent(&self, index: usize) -> bool {
        let control = self.made.iter().find(|m| m.mode == Mode::Outside && m.index == index);
        control.is_some_and(|m| NOT_HERE.contains(&m.report.result.as_str()))
    }

    /// Returns whether the record is the first agent's refused request of this row.
    fn is_refusal_of(&self, record: &Value, row: &str, port: u16) -> bool {
        let host = format!("{}.escape.test", row.replace('_', "-"));
        let of_row = record["host"] == host.as_str() || record["port"] == port;
        of_row && record["verdict"] == "deny" && record["agent"] == self.stage.one.name.as_str()
    }

    /// Returns whether the record is a refusal by the kernel programs, for this reason, attributed to the first agent.
    fn is_denial(&self, record: &Value, reason: &str) -> bool {
        let rule = record["rule"].as_str().unwrap_or_default();
        rule.starts_with("kernel ")
            && rule.ends_with(&reason.to_lowercase())
            && record["agent"] == self.stage.one.name.as_str()
    }
}

/// The problem of a control with this result, whose packets arrived or not.
fn failed_control(control: Control, result: &str, arrived: bool) -> Option<String> {
    let as_expected = match control {
        Control::Reaches => arrived,
        Control::Says(beginning) => result.starts_with(beginning),
        Control::Absent => true,
    };
    (!as_expected).then(|| format!("the control failed ({control:?}): the row shows nothing"))
}
