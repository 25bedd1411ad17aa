//! Strongly connected components of a graph, by Tarjan's algorithm (1972).

use std::collections::BTreeMap;

use super::Graph;

/// Components of at least two files, the largest first, each in the order of names.
pub(super) fn circles(graph: &Graph) -> Vec<Vec<String>> {
    let mut search = Search {
        graph,
        seen: BTreeMap::new(),
        stack: Vec::new(),
        found: Vec::new(),
    };
    for file in graph.keys() {
        if !search.seen.contains_key(file.as_str()) {
            search.visit(file);
        }
    }
    let mut found = search.found;
    found.sort_by_key(|circle| std::cmp::Reverse(circle.len()));
    found
}

struct Search<'a> {
    graph: &'a Graph,
    /// When a file was first seen: its number in the order of the search.
    seen: BTreeMap<&'a str, usize>,
    /// Files whose component is not complete.
    stack: Vec<&'a str>,
    found: Vec<Vec<String>>,
}

impl<'a> Search<'a> {
    /// The lowest number that can be reached from the file within the stack.
    fn visit(&mut self, file: &'a str) -> usize {
        let number = self.seen.len();
        self.seen.insert(file, number);
        self.stack.push(file);
        let mut lowest = number;
        for next in self.graph.get(file).into_iter().flatten() {
            match self.seen.get(next.as_str()) {
                None => lowest = lowest.min(self.visit(next)),
                Some(earlier) if self.stack.contains(&next.as_str()) => {
                    lowest = lowest.min(*earlier);
                }
                Some(_) => {}
            }
        }
        if lowest == number {
            let from = self.stack.iter().position(|on| *on == file);
            let mut component: Vec<String> = self
                .stack
                .drain(from.unwrap_or_default()..)
                .map(str::to_owned)
                .collect();
            if component.len() > 1 {
                component.sort();
                self.found.push(component);
            }
        }
        lowest
    }
}

#[cfg(test)]
mod tests {
    use super::super::Graph;
    use super::circles;

    fn found(edges: &[(&str, &str)]) -> Vec<String> {
        let mut graph = Graph::new();
        for (from, to) in edges {
            graph
                .entry((*from).to_owned())
                .or_default()
                .insert((*to).to_owned());
        }
        circles(&graph)
            .iter()
            .map(|circle| circle.concat())
            .collect()
    }

    #[test]
    fn files_that_reach_each_other_are_a_circle() {
        assert!(found(&[("a", "b"), ("b", "c"), ("a", "c")]).is_empty());
        assert_eq!(found(&[("a", "b"), ("b", "a")]), ["ab"]);
        let two = [
            ("c", "d"),
            ("d", "c"),
            ("a", "c"),
            ("e", "f"),
            ("f", "g"),
            ("g", "e"),
            ("d", "x"),
        ];
        assert_eq!(found(&two), ["efg", "cd"]);
        let joined = [
            ("a", "b"),
            ("b", "c"),
            ("c", "a"),
            ("c", "d"),
            ("d", "e"),
            ("e", "b"),
        ];
        assert_eq!(found(&joined), ["abcde"]);
    }
}
