//! Lists of what is longer than allowed, which only shrink: an entry may not grow beyond its
//! number, and the number must follow when it gets shorter.

/// An entry of a list.
pub(crate) struct Listed {
    pub(crate) key: String,
    pub(crate) lines: usize,
}

/// Holds what is longer than `most` against the list in the file `list`.
pub(crate) fn faults(
    long: &[(String, usize)],
    listed: &[Listed],
    list: &str,
    most: usize,
) -> Vec<String> {
    let mut faults = Vec::new();
    for (key, lines) in long {
        let mut same = listed.iter().filter(|entry| entry.key == *key);
        match same.next() {
            None => faults.push(format!("{key}: {lines} lines, at most {most} are allowed")),
            Some(entry) if entry.lines != *lines => faults.push(format!(
                "{key}: {lines} lines, {list} says {}; shorten it, and lower the number",
                entry.lines
            )),
            Some(_) => {}
        }
    }
    for entry in listed {
        if !long.iter().any(|(key, _)| *key == entry.key) {
            faults.push(format!(
                "{list}: {} is gone or short enough now, take it off the list",
                entry.key
            ));
        }
    }
    faults
}

#[cfg(test)]
mod tests {
    use super::{Listed, faults};

    #[test]
    fn a_list_only_shrinks() {
        let long = [("a.rs".to_owned(), 700)];
        let listed = |lines| {
            [Listed {
                key: "a.rs".to_owned(),
                lines,
            }]
        };
        assert_eq!(faults(&long, &[], "list", 600).len(), 1);
        assert_eq!(faults(&long, &listed(650), "list", 600).len(), 1);
        assert_eq!(faults(&long, &listed(800), "list", 600).len(), 1);
        assert!(faults(&long, &listed(700), "list", 600).is_empty());
        assert_eq!(faults(&[], &listed(700), "list", 600).len(), 1);
    }
}
