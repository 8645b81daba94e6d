//! Subordinate users (subuid(5)): a user may become each of some thousands, with newuidmap(1).

use std::fs::File;
use std::io::Read as _;

use nix::unistd::User;

/// The file that lists them.
const SUBUID: &str = "/etc/subuid";
/// Bytes of the file that are read. The tools of shadow write about 30 for each user.
const MAX_READ: u64 = 1024 * 1024;

/// Returns the user to whom the subordinate `uid` belongs, or `uid` itself if it is not subordinate. Ranges from a
/// directory service (`subid` of nsswitch.conf(5)) are not known.
pub(crate) fn owner(uid: u32) -> u32 {
    let mut listed = String::new();
    // An unreadable file counts as empty.
    let _ = File::open(SUBUID).and_then(|file| file.take(MAX_READ).read_to_string(&mut listed));
    let by_name = |name: &str| User::from_name(name).ok().flatten().map(|user| user.uid.as_raw());
    owner_in(&listed, uid, by_name).unwrap_or(uid)
}

/// Looks `uid` up in `listed`, lines of the form `NAME-OR-UID:FIRST:COUNT`.
fn owner_in(listed: &str, uid: u32, by_name: impl Fn(&str) -> Option<u32>) -> Option<u32> {
    listed.lines().find_map(|line| {
        let mut fields = line.trim().split(':');
        let name = fields.next()?;
        let first: u32 = fields.next()?.parse().ok()?;
        let count: u32 = fields.next()?.parse().ok()?;
        let is_in = uid.checked_sub(first).is_some_and(|offset| offset < count);
        if is_in { by_name(name).or_else(|| name.parse().ok()) } else { None }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subordinate_uid_maps_to_its_owner() {
        let listed = "# ranges\nalice:100000:65536\n1007:165536:10\nbroken:x:1\ngone:300000:5\n";
        let owner = |uid| owner_in(listed, uid, |name| (name == "alice").then_some(1000));
        for (uid, expected) in [
            (99_999, None),
            (100_000, Some(1000)),
            (165_535, Some(1000)),
            (165_536, Some(1007)),
            (165_545, Some(1007)),
            (165_546, None),
            (300_000, None),
            (1000, None),
        ] {
            assert_eq!(owner(uid), expected, "{uid}");
        }
    }
}
