//! The known word nearest to one that was mistyped.

/// The candidate with the smallest edit distance, if it is near enough to be what was meant.
pub(crate) fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let near = candidates
        .into_iter()
        .map(|candidate| (distance(word, candidate), candidate));
    near.min()
        .filter(|(distance, candidate)| *distance <= candidate.len().div_ceil(3))
        .map(|(_, word)| word)
}

/// Levenshtein's distance.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, y) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_word_is_found_and_a_far_one_is_not() {
        let words = ["node", "data_dir", "cluster_key"];
        assert_eq!(nearest("datadir", words), Some("data_dir"));
        assert_eq!(nearest("nod", words), Some("node"));
        assert_eq!(nearest("clusterkey", words), Some("cluster_key"));
        assert_eq!(nearest("colour", words), None);
        assert_eq!(distance("kitten", "sitting"), 3);
    }
}
