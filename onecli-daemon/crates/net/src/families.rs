//! A and AAAA records of a name, queried in parallel (RFC 8305 section 3).

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use hickory_resolver::TokioResolver;
use hickory_resolver::lookup::Lookup;
use hickory_resolver::net::NetError;
use hickory_resolver::proto::rr::RecordType;
use tokio::sync::Semaphore;

/// The time to wait for AAAA records once A records have arrived: the Resolution Delay of RFC 8305 section 8.
const RESOLUTION_DELAY: Duration = Duration::from_millis(50);
/// The number of AAAA queries that continue when no lookup waits for them, so that a late answer is cached. The
/// resolver's own timeout ends them.
const LATE_QUERIES: usize = 64;

/// Looks up both address families.
#[derive(Clone)]
pub(super) struct Families {
    resolver: TokioResolver,
    late: Arc<Semaphore>,
}

impl Families {
    /// Uses `resolver`.
    pub(super) fn new(resolver: TokioResolver) -> Families {
        Families { resolver, late: Arc::new(Semaphore::new(LATE_QUERIES)) }
    }

    /// Returns the addresses of `name`, IPv6 first, and the shortest TTL in seconds. The list may be empty.
    ///
    /// # Errors
    /// [`NetError`] if neither family has an answer.
    pub(super) async fn lookup(&self, name: &str) -> Result<(Vec<IpAddr>, u32), NetError> {
        let mut v4 = Box::pin(self.clone().query(name.to_owned(), RecordType::A));
        let mut v6 = Box::pin(self.clone().query(name.to_owned(), RecordType::AAAA));
        let (v6, v4) = tokio::select! {
            // A cached A answer is ready at once, and so may an AAAA answer be.
            biased;
            v6 = &mut v6 => (v6, v4.await),
            v4 = &mut v4 => match v4 {
                // The name does not exist for any type (RFC 8020). The reverse does not hold: some servers are known
                // to return NXDOMAIN for AAAA alone (RFC 4074 section 4.2).
                Err(error) if error.is_nx_domain() => return Err(error),
                Ok(v4) if addresses(&v4).next().is_some() => {
                    let Ok(v6) = tokio::time::timeout(RESOLUTION_DELAY, &mut v6).await else {
                        self.finish_late(v6);
                        return Ok(gather(&[v4]));
                    };
                    (v6, Ok(v4))
                }
                v4 => (v6.await, v4),
            },
        };
        match (v6, v4) {
            (Ok(v6), Ok(v4)) => Ok(gather(&[v6, v4])),
            (Ok(one), Err(_)) | (Err(_), Ok(one)) => Ok(gather(&[one])),
            (Err(v6), Err(v4)) => Err(weightier(v6, v4)),
        }
    }

    async fn query(self, name: String, record_type: RecordType) -> Result<Lookup, NetError> {
        self.resolver.lookup(name, record_type).await
    }

    /// Lets a query finish in the background, so that the resolver caches its answer.
    fn finish_late(&self, query: impl Future<Output = Result<Lookup, NetError>> + Send + 'static) {
        let Ok(permit) = Arc::clone(&self.late).try_acquire_owned() else { return };
        tokio::spawn(async move {
            let _ = query.await;
            drop(permit);
        });
    }
}

fn addresses(lookup: &Lookup) -> impl Iterator<Item = IpAddr> {
    lookup.answers().iter().filter_map(|record| record.data.ip_addr())
}

fn gather(lookups: &[Lookup]) -> (Vec<IpAddr>, u32) {
    let ttl = lookups.iter().flat_map(Lookup::answers).map(|record| record.ttl).min();
    (lookups.iter().flat_map(addresses).collect(), ttl.unwrap_or_default())
}

/// Selects the error to report. A nonexistent name comes first, then a failed server, then a name without addresses.
fn weightier(v6: NetError, v4: NetError) -> NetError {
    if v4.is_nx_domain() || (!v6.is_nx_domain() && v6.is_no_records_found()) { v4 } else { v6 }
}
