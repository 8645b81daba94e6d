//! `~/.netrc`, parsed as curl(1) and ftp(1) do. A crate would copy passwords into memory that is not zeroed, and quote
//! the file in its errors.

use zeroize::Zeroizing;

/// The largest number of entries to read.
const MOST: usize = 256;

/// One entry with a password.
pub(super) struct Machine {
    /// The host.
    pub(super) host: String,
    /// The user; may be empty.
    pub(super) login: String,
    /// The password.
    pub(super) password: Zeroizing<String>,
}

/// Returns the entries that have a password.
pub(super) fn read(text: &str) -> Vec<Machine> {
    let mut machines = Vec::new();
    let mut tokens = Tokens { rest: text };
    while let Some(word) = tokens.next() {
        match word.as_str() {
            "machine" => {
                let host = tokens.next().map(|host| host.to_string()).unwrap_or_default();
                machines.push(Machine { host, login: String::new(), password: Zeroizing::default() });
            }
            // This entry applies to every other host.
            "default" => machines.push(Machine {
                host: String::new(),
                login: String::new(),
                password: Zeroizing::default(),
            }),
            "macdef" => tokens.skip_macro(),
            "login" => set(machines.last_mut().map(|machine| &mut machine.login), tokens.next()),
            "password" => {
                if let (Some(machine), Some(password)) = (machines.last_mut(), tokens.next()) {
                    machine.password = password;
                }
            }
            "account" => drop(tokens.next()),
            _ => {}
        }
    }
    machines.retain(|machine| !machine.host.is_empty() && !machine.password.is_empty());
    machines.truncate(MOST);
    machines
}

fn set(place: Option<&mut String>, word: Option<Zeroizing<String>>) {
    if let (Some(place), Some(word)) = (place, word) {
        (*word).clone_into(place);
    }
}

/// Tokens separated by white space, quoted with escapes or plain.
struct Tokens<'t> {
    rest: &'t str,
}

impl Tokens<'_> {
    fn next(&mut self) -> Option<Zeroizing<String>> {
        loop {
            self.rest = self.rest.trim_start();
            // A comment is a whole line.
            match self.rest.strip_prefix('#') {
                Some(comment) => self.rest = comment.split_once('\n').map_or("", |(_, rest)| rest),
                None => break,
            }
        }
        match self.rest.strip_prefix('"') {
            Some(quoted) => self.quoted(quoted),
            None => self.plain(),
        }
    }

    fn plain(&mut self) -> Option<Zeroizing<String>> {
        let end = self.rest.find(char::is_whitespace).unwrap_or(self.rest.len());
        let (word, rest) = self.rest.split_at(end);
        self.rest = rest;
        (!word.is_empty()).then(|| Zeroizing::new(word.to_owned()))
    }

    fn quoted(&mut self, quoted: &str) -> Option<Zeroizing<String>> {
        let mut word = Zeroizing::new(String::with_capacity(quoted.len()));
        let mut chars = quoted.char_indices();
        while let Some((at, c)) = chars.next() {
            match c {
                '"' => {
                    self.rest = &self.rest[at + 2..];
                    return Some(word);
                }
                '\\' => word.push(chars.next()?.1),
                c => word.push(c),
            }
        }
        self.rest = "";
        None
    }

    /// A macro ends with an empty line.
    fn skip_macro(&mut self) {
        self.rest = self.rest.split_once("\n\n").map_or("", |(_, rest)| rest);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_parsed_like_curl() {
        let text = "# mine\nmachine api.github.com login alice password ghp_0123456789\n\
                    machine b.test\n\tlogin \"al ice\"\n\tpassword \"p\\\"w 12345\"\n\
                    machine no-password.test login x\n\
                    macdef init\nmachine not.this password no\n\n\
                    default login anonymous password user@site\n\
                    machine c.test password unnamed-1";
        let got: Vec<_> = read(text)
            .into_iter()
            .map(|machine| (machine.host, machine.login, machine.password.to_string()))
            .collect();
        let expected = [
            ("api.github.com", "alice", "ghp_0123456789"),
            ("b.test", "al ice", "p\"w 12345"),
            ("c.test", "", "unnamed-1"),
        ];
        let expected = expected.map(|(a, b, c)| (a.to_owned(), b.to_owned(), c.to_owned()));
        assert_eq!(got, expected);
    }

    #[test]
    fn malformed_files_are_parsed_to_their_end() {
        for text in ["machine", "machine a password \"open", "password x", "macdef", "\"", "# only"] {
            assert!(read(text).is_empty(), "{text}");
        }
    }
}
