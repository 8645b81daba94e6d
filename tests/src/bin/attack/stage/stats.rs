//! Compares two samples with the Mann-Whitney U test.
//!
//! The test compares ranks, so outliers of a busy machine weigh no more than other values. Mann, Whitney: "On a Test of
//! Whether one of Two Random Variables is Stochastically Larger than the Other", 1947.

/// The number of standard deviations beyond which a difference counts. By chance, one run in 16,000 exceeds it.
pub(crate) const THRESHOLD: f64 = 4.0;

/// The standard score of U for `a` against `b`, by the normal approximation with the correction for ties. It is
/// positive if `a` tends to be larger, and zero if either sample has fewer than two values.
pub(crate) fn mann_whitney(a: &[f64], b: &[f64]) -> f64 {
    let (of_a, of_b) = (count(a.len()), count(b.len()));
    if a.len() < 2 || b.len() < 2 {
        return 0.0;
    }
    let mut all: Vec<(f64, bool)> =
        a.iter().map(|value| (*value, true)).chain(b.iter().map(|value| (*value, false))).collect();
    all.sort_by(|one, other| one.0.total_cmp(&other.0));
    let (mut ranks_of_a, mut ties, mut before) = (0.0, 0.0, 0.0);
    for group in all.chunk_by(|one, other| one.0.total_cmp(&other.0).is_eq()) {
        let size = count(group.len());
        let rank = before + f64::midpoint(size, 1.0);
        ranks_of_a += rank * count(group.iter().filter(|(_, is_a)| *is_a).count());
        ties += size * size * size - size;
        before += size;
    }
    let u = ranks_of_a - of_a * (of_a + 1.0) / 2.0;
    let (pairs, total) = (of_a * of_b, of_a + of_b);
    let variance = pairs / 12.0 * (total + 1.0 - ties / (total * (total - 1.0)));
    if variance > 0.0 { (u - pairs / 2.0) / variance.sqrt() } else { 0.0 }
}

/// The median.
pub(crate) fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or_default()
}

fn count(number: usize) -> f64 {
    f64::from(u32::try_from(number).expect("few values"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scores_match_the_textbook() {
        // U = 6 of 36; the standard deviation without ties is sqrt(6 * 6 * 13 / 12) = 6.245.
        let a = [1.0, 2.0, 3.0, 4.0, 9.0, 10.0];
        let b = [5.0, 6.0, 7.0, 8.0, 11.0, 12.0];
        assert!((mann_whitney(&a, &b) - (8.0 - 18.0) / 6.245).abs() < 0.001, "{}", mann_whitney(&a, &b));
        assert!((mann_whitney(&a, &b) + mann_whitney(&b, &a)).abs() < 1e-9);
        assert!(mann_whitney(&[1.0; 20], &[1.0; 20]).abs() < 1e-9);
    }

    #[test]
    fn small_shift_is_detected_among_outliers() {
        let mut state = 1_u64;
        let mut noise = |shift: f64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let unit = f64::from(u32::try_from(state >> 33).unwrap()) / f64::from(1_u32 << 31);
            if unit > 0.95 { 1000.0 * unit } else { 1.0 + unit + shift }
        };
        let mut many = |shift: f64| (0..400).map(|_| noise(shift)).collect::<Vec<_>>();
        let (plain, same, shifted) = (many(0.0), many(0.0), many(0.2));
        assert!(mann_whitney(&plain, &same).abs() < THRESHOLD);
        assert!(mann_whitney(&shifted, &plain) > THRESHOLD);
    }
}
