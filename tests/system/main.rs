//! System tests: the real daemon, the real CLI, real clients and a real upstream.

#![forbid(unsafe_code)]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "a test ends by panicking, and waits in real time"
)]
#![allow(clippy::print_stdout, reason = "figures for a developer who runs one test")]
#![allow(clippy::items_after_statements, reason = "a script is next to its use")]

mod administrators;
mod alerts;
mod anchors;
mod approval_watch;
mod approvals;
mod attack;
mod audit;
mod audit_disk;
mod audit_witness;
mod backends;
mod bad_input;
mod bodies;
mod denied_bodies;
mod disk_full;
mod dns;
mod docker;
mod doctor;
mod early_answers;
mod early_data;
mod edits;
mod escape;
mod exec;
mod expect;
mod explicit_tls;
mod fail_closed;
mod form_field;
mod forms;
mod half_closed;
mod heads;
mod hostile;
mod http1;
mod http2;
mod identity;
mod imports;
mod issued;
mod key_advice;
mod kubernetes;
mod launch;
mod leak;
mod learn;
mod load;
mod main_job;
mod memory;
mod messages;
mod mint;
mod misplaced;
mod named;
mod netns;
mod openssl;
mod output;
mod path_readings;
mod path_segment;
mod placements;
mod pooled;
mod privilege;
mod protocols;
mod raw_tls;
mod refused_names;
mod replaced;
mod retries;
mod returned;
mod revocation;
mod rules;
mod running;
mod scene;
mod second_daemon;
mod secret_test;
mod sessions;
mod settled;
mod setup;
mod sigv4;
mod slow_hello;
mod stage;
mod starvation;
mod stopping;
mod stream_values;
mod streams;
mod templates;
mod trailers;
mod units;
mod unprivileged;
mod upstream_proxy;
mod upstream_timeouts;
mod upstream_tls;
mod value_form;
mod vault;
