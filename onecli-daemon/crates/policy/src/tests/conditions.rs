//! The conditions of requests: limits and approvals.

use std::sync::Arc;
use std::time::Duration;

use onecli_model::{Clock, RequestId, Rule, RuleId};
use onecli_sys::{OsRandom, SystemClock};
use proptest::prelude::*;

use super::rules::rule;
use super::*;

fn limit(id: u32, rate: &str) -> Arc<Rule> {
    Arc::new(rule(id, None, &format!("limit - - - - - {rate}")))
}

#[test]
fn limits_are_each_agents_own_and_count_all_or_none() {
    let (start, agent) = (SystemClock.instant(), |n| AgentId(Uuid::from_u128(n)));
    let limits = Limits::new(start);
    let both = [limit(1, "2/s"), limit(2, "3/m")];
    let take = |millis, client, rules: &[Arc<Rule>]| {
        limits.take(start + Duration::from_millis(millis), agent(client), rules)
    };
    take(0, 1, &both).unwrap();
    take(0, 1, &both).unwrap();
    let exceeded = take(1, 1, &both).unwrap_err();
    assert_eq!(exceeded.rule.id, RuleId(1));
    assert!(exceeded.retry_after <= Duration::from_millis(1100), "{exceeded:?}");
    take(1, 2, &both).unwrap();
    // The refused request was not counted for the other limit.
    take(1100, 1, &both).unwrap();
    let exceeded = take(2300, 1, &both).unwrap_err();
    assert_eq!(exceeded.rule.id, RuleId(2));
    assert!(
        exceeded.retry_after > Duration::from_secs(50) && exceeded.retry_after <= Duration::from_secs(61)
    );
    take(1, 1, &[]).unwrap();
}

#[test]
fn request_is_allowed_after_retry_after() {
    let start = SystemClock.instant();
    let (limits, rules) = (Limits::new(start), [limit(1, "5/m")]);
    let agent = AgentId(Uuid::from_u128(1));
    let mut now = start + Duration::from_millis(123);
    for _ in 0..200 {
        match limits.take(now, agent, &rules) {
            Ok(()) => now += Duration::from_millis(777),
            Err(exceeded) => {
                now += exceeded.retry_after;
                limits.take(now, agent, &rules).unwrap();
            }
        }
    }
}

proptest! {
    /// No interval as long as the window exceeds a limit, and the count does not stay far below it either.
    #[test]
    fn a_limit_is_never_exceeded(count in 1_u32..20, gaps in proptest::collection::vec(0_u64..400, 1..300)) {
        let start = SystemClock.instant();
        let (limits, rules) = (Limits::new(start), [limit(1, &format!("{count}/s"))]);
        let agent = AgentId(Uuid::from_u128(1));
        let (mut at, mut passed) = (0, Vec::new());
        for gap in gaps {
            at += gap;
            let recent = passed.iter().filter(|then| at - **then < 1017).count();
            match limits.take(start + Duration::from_millis(at), agent, &rules) {
                Ok(()) => passed.push(at),
                Err(_) => prop_assert!(recent >= count as usize, "refused with {recent} of {count}"),
            }
        }
        for from in &passed {
            let within = passed.iter().filter(|at| (*from..*from + 1000).contains(*at)).count();
            prop_assert!(within <= count as usize);
        }
    }
}

fn asked(agent: u128) -> ApprovalRequest {
    ApprovalRequest {
        agent: AgentId(Uuid::from_u128(agent)),
        agent_name: "coder".parse().unwrap(),
        rule: RuleId(1),
        request: RequestId(Uuid::from_u128(1)),
        method: "POST".to_owned(),
        authority: Authority::parse("api.test", Some(443)).unwrap(),
        path: "/".to_owned(),
        query: None,
        secrets: Vec::new(),
        digest: String::new(),
        headers: Arc::default(),
        body: None,
        since: NOW,
        until: NOW,
    }
}

#[tokio::test]
async fn approval_is_for_one_request_and_answered_once() {
    let approvals = Arc::new(Approvals::default());
    let first = approvals.ask(now(), asked(1), &OsRandom).unwrap();
    let second = approvals.ask(now(), asked(1), &OsRandom).unwrap();
    assert_eq!(approvals.list().len(), 2);
    let (id, answer) = (first.id(), ApprovalAnswer { allowed: true, uid: 7 });
    assert_eq!(id.to_string().parse::<ApprovalId>().unwrap(), id);
    approvals.answer(id, answer).unwrap();
    assert_eq!(first.await, answer);
    assert_eq!(approvals.answer(id, answer), Err(NotPending));
    // The client disconnects: no approval is pending any more.
    let gone = second.id();
    drop(second);
    assert_eq!(approvals.answer(gone, answer), Err(NotPending));
    assert!(approvals.list().is_empty());
}

#[test]
fn approvals_of_one_agent_leave_room_for_others() {
    let approvals = Arc::new(Approvals::default());
    let waiting: Vec<_> = (0..16).map(|_| approvals.ask(now(), asked(1), &OsRandom).unwrap()).collect();
    assert!(matches!(approvals.ask(now(), asked(1), &OsRandom), Err(ApprovalError::Full)));
    let _other = approvals.ask(now(), asked(2), &OsRandom).unwrap();
    drop(waiting);
    let _again = approvals.ask(now(), asked(1), &OsRandom).unwrap();
}

/// An agent that requests approval and disconnects, again and again, is refused: each approval is a record in the
/// audit log.
#[test]
fn approvals_of_one_agent_are_limited_per_minute() {
    let approvals = Arc::new(Approvals::default());
    let start = now();
    let ask = |agent, after| approvals.ask(start + Duration::from_secs(after), asked(agent), &OsRandom);
    let asked = (0..200).filter(|_| ask(1, 0).is_ok()).count();
    assert_eq!(asked, 60);
    assert!(matches!(ask(1, 59), Err(ApprovalError::RateLimited)));
    assert!(ask(2, 59).is_ok(), "another agent has its own");
    assert!(ask(1, 60).is_ok());
}

fn now() -> std::time::Instant {
    SystemClock.instant()
}
