//! The strength of a value against guessing, estimated from its characters.

use super::secret_value::SecretValue;

/// The minimum. A value with fewer bits may be guessed: an agent that can store text at a service sees which guess is
/// masked.
pub const ENOUGH_BITS: u32 = 60;
/// The bits of a letter within a word. English has about two, names and abbreviations more.
const WORD_LETTER: f64 = 2.5;
/// The number of letters of one case in a row that count as a word. Random tokens seldom have them.
const WORD: usize = 5;
/// The bits of a character that continues a sequence or repeats earlier text.
const EXPECTED: f64 = 1.0;

/// Estimates the bits of entropy of a value. The result is an upper bound for random text. Words, sequences and
/// repetitions count for little. The estimate cannot recognize known texts, such as a leaked password.
pub fn estimated_bits(value: &SecretValue) -> u32 {
    let text = value.expose();
    let alphabet = f64::from(alphabet(text)).log2();
    let mut bits = 0.0;
    for at in 0..text.len() {
        bits += match () {
            () if is_expected(text, at) => EXPECTED,
            () if word_around(text, at) >= WORD => WORD_LETTER.min(alphabet),
            () => alphabet,
        };
    }
    // At most 16 KiB of at most seven bits each.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "it is small and not negative"
    )]
    let bits = bits as u32;
    bits
}

/// Returns the number of characters that a guesser would try at each position.
fn alphabet(text: &[u8]) -> u32 {
    if text.iter().all(u8::is_ascii_hexdigit) {
        return if text.iter().all(u8::is_ascii_digit) { 10 } else { 16 };
    }
    let class = |size: u32, is: fn(&u8) -> bool| if text.iter().any(is) { size } else { 0 };
    let other = |byte: &u8| byte.is_ascii_punctuation() || *byte == b' ';
    // One or two separators count less than a whole set of punctuation.
    let punctuation = match text.iter().filter(|byte| other(byte)).count() {
        0 => 0,
        1 | 2 => 4,
        _ => 33,
    };
    class(26, u8::is_ascii_lowercase)
        + class(26, u8::is_ascii_uppercase)
        + class(10, u8::is_ascii_digit)
        + class(64, |byte| !byte.is_ascii())
        + punctuation
}

/// Returns whether the character continues the two before it (`aaa`, `123`), or ends a repetition of four earlier
/// characters.
fn is_expected(text: &[u8], at: usize) -> bool {
    let step = |at: usize| text[at].wrapping_sub(text[at - 1]);
    let continues = at >= 2 && step(at) == step(at - 1) && matches!(step(at), 0 | 1 | 0xff);
    // Only a limited part of the earlier text is compared, so that the work stays linear.
    let lately = |at: usize| at.saturating_sub(64)..at;
    let repeats = at >= 3 && {
        let tail = &text[at - 3..=at];
        text[lately(at)].windows(4).any(|before| before == tail)
    };
    continues || repeats
}

/// Returns the length of the run of letters of one case around `at`.
fn word_around(text: &[u8], at: usize) -> usize {
    let is_lower = text[at].is_ascii_lowercase();
    if !is_lower && !text[at].is_ascii_uppercase() {
        return 0;
    }
    let same = |byte: &&u8| byte.is_ascii_alphabetic() && byte.is_ascii_lowercase() == is_lower;
    let near = |count: usize| count.min(WORD);
    let before = near(text[..at].iter().rev().take(WORD).take_while(same).count());
    let after = near(text[at..].iter().take(WORD).take_while(same).count());
    before + after
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bits(text: &str) -> u32 {
        estimated_bits(&SecretValue::new(text.as_bytes().to_vec()).unwrap())
    }

    #[test]
    fn weak_values_are_below_the_threshold_and_tokens_above() {
        for weak in [
            "hunter22",
            "password123",
            "Password123!",
            "correcthorsebattery",
            "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
            "12345678901234567890",
            "abcabcabcabcabcabcabcabc",
            "admin:admin:admin:admin",
            "8d7f2a91",
            "4711081547",
        ] {
            assert!(bits(weak) < ENOUGH_BITS, "{weak}: {}", bits(weak));
        }
        for strong in [
            "8d7f2a910c3be5f64e1b",
            "sk-live-0f3Azq7LmX2vRt9Kw",
            "ghp_16C7e42F292c6912E7710c838347Ae178B4a",
            "6e0b3f9c-52d4-4a81-9e7b-1c2d8f5a7e60",
            "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
            "JBSWY3DPEHPK3PXPJBQX2",
        ] {
            assert!(bits(strong) >= ENOUGH_BITS, "{strong}: {}", bits(strong));
        }
    }

    #[test]
    fn the_largest_value_is_estimated() {
        assert!(bits(&"x9".repeat(8192)) > ENOUGH_BITS);
    }
}
