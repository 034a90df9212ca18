//! The paths of one stage of a group: a tree of segments.
//!
//! All branches to literals are in one hash table of (node, segment) → node, so a step costs the same however many branches a node
//! has. Texts are in one string, kept once each. Leaves are chains of (method, route), one chain per place a template ends at.

use std::{collections::HashMap, hash::BuildHasher};

use foldhash::fast::RandomState;
use hashbrown::HashTable;
use paifang_model::{Method, PathTemplate, Segment};

use super::captures::Captures;

/// No node, no leaf.
const NONE: u32 = u32::MAX;

/// Most nodes that one look-up visits. Only templates that spell out every mixture of literals and parameters can come near it; a
/// look-up that reaches it finds nothing.
const MAX_STEPS: u32 = 4096;

/// Longest literal in bytes: a template has at most 1,024. A longer segment equals none.
const MAX_LITERAL: usize = 1024;

#[derive(Default)]
pub(super) struct Trie {
    nodes: Box<[Node]>,
    edges: HashTable<Edge>,
    hasher: RandomState,
    text: Box<str>,
    leaves: Box<[Leaf]>,
}

struct Node {
    /// Child for a parameter.
    parameter: u32,
    /// Leaves of the templates that end here.
    exact: u32,
    /// Leaves of the templates that end in `/*` here.
    tail: u32,
}

/// From a node, by a literal, to its child.
struct Edge {
    parent: u32,
    child: u32,
    start: u32,
    length: u16,
}

struct Leaf {
    next: u32,
    route: u32,
    method: Method,
}

/// Makes a [`Trie`].
#[derive(Default)]
pub(super) struct TrieBuilder<'t> {
    nodes: Vec<Node>,
    edges: HashTable<Edge>,
    hasher: RandomState,
    text: String,
    starts: HashMap<&'t str, u32, RandomState>,
    leaves: Vec<Leaf>,
}

/// Why a template was not added.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Refused {
    /// This route has the same template and method.
    Taken(u32),
    /// More than 32 bits can count, or a literal too long.
    TooLarge,
}

struct Walk<'a, 'c, 'p> {
    trie: &'a Trie,
    /// `None` for any.
    method: Option<Method>,
    captures: &'c mut Captures<'p>,
    steps: u32,
}

// === impl Trie ===

impl Trie {
    /// The route for `path`, which begins with `/`; for any method if `method` is `None`.
    pub(super) fn find<'p>(
        &self,
        path: &'p str,
        method: Option<Method>,
        captures: &mut Captures<'p>,
    ) -> Option<u32> {
        let rest = path.strip_prefix('/')?;
        let mut walk = Walk {
            trie: self,
            method,
            captures,
            steps: MAX_STEPS,
        };
        walk.below(0, rest)
    }

    /// The child of `parent` for the literal that a percent-encoded segment stands for.
    fn child(&self, parent: u32, segment: &str, escaped: bool) -> Option<u32> {
        if escaped {
            self.encoded_child(parent, segment)
        } else {
            self.literal_child(parent, segment.as_bytes())
        }
    }

    /// Out of line: only this needs the buffer.
    #[inline(never)]
    fn encoded_child(&self, parent: u32, segment: &str) -> Option<u32> {
        let mut buffer = [0; MAX_LITERAL];
        self.literal_child(parent, decode(segment, &mut buffer)?)
    }

    fn literal_child(&self, parent: u32, literal: &[u8]) -> Option<u32> {
        let hash = hash(&self.hasher, parent, literal);
        let edge = self.edges.find(hash, |edge| {
            edge.parent == parent && edge.literal(&self.text) == literal
        })?;
        Some(edge.child)
    }

    /// The route among the leaves at `leaf`: one for the very method before one for any.
    fn leaf(&self, mut leaf: u32, method: Option<Method>) -> Option<u32> {
        let mut any = None;
        while let Some(found) = self.leaves.get(index(leaf)) {
            if method.is_none_or(|method| found.method == method) {
                return Some(found.route);
            }
            if found.method == Method::Any {
                any = Some(found.route);
            }
            leaf = found.next;
        }
        any
    }
}

// === impl Walk ===

impl<'p> Walk<'_, '_, 'p> {
    /// What the templates below `node` have for `rest`, the path behind a slash. The depth of the recursion is that of the templates.
    fn below(&mut self, node: u32, rest: &'p str) -> Option<u32> {
        self.steps = self.steps.checked_sub(1)?;
        let here = self.trie.nodes.get(index(node))?;
        let (segment, after, escaped) = split(rest);
        if let Some(child) = self.trie.child(node, segment, escaped)
            && let Some(route) = self.behind(child, after)
        {
            return Some(route);
        }
        if here.parameter != NONE && !segment.is_empty() {
            let count = self.captures.len();
            self.captures.push(segment);
            if let Some(route) = self.behind(here.parameter, after) {
                return Some(route);
            }
            self.captures.truncate(count);
        }
        let route = self.trie.leaf(here.tail, self.method)?;
        self.captures.set_tail(rest);
        Some(route)
    }

    /// The same for the path behind a segment, which may end there.
    fn behind(&mut self, node: u32, after: Option<&'p str>) -> Option<u32> {
        match after {
            Some(rest) => self.below(node, rest),
            None => {
                let here = self.trie.nodes.get(index(node))?;
                self.trie.leaf(here.exact, self.method)
            }
        }
    }
}

// === impl TrieBuilder ===

impl<'t> TrieBuilder<'t> {
    pub(super) fn add(
        &mut self,
        template: &'t PathTemplate,
        method: Method,
        route: u32,
    ) -> Result<(), Refused> {
        if self.nodes.is_empty() {
            self.grow()?;
        }
        let mut at = 0;
        for segment in template.segments() {
            at = match segment {
                Segment::Literal(literal) => self.literal(at, literal)?,
                Segment::Parameter(_) => self.parameter(at)?,
            };
        }
        self.end(at, template.has_tail(), method, route)
    }

    pub(super) fn build(self) -> Trie {
        let mut edges = self.edges;
        let text = self.text.into_boxed_str();
        let hasher = self.hasher;
        edges.shrink_to_fit(|edge| hash(&hasher, edge.parent, edge.literal(&text)));
        Trie {
            nodes: self.nodes.into(),
            leaves: self.leaves.into(),
            edges,
            hasher,
            text,
        }
    }

    fn literal(&mut self, parent: u32, literal: &'t str) -> Result<u32, Refused> {
        let (hasher, text) = (&self.hasher, &self.text);
        let hashed = hash(hasher, parent, literal.as_bytes());
        let known = self.edges.find(hashed, |edge| {
            edge.parent == parent && edge.literal(text) == literal.as_bytes()
        });
        if let Some(edge) = known {
            return Ok(edge.child);
        }
        let start = self.start(literal)?;
        let child = self.grow()?;
        let edge = Edge {
            parent,
            child,
            start,
            length: u16::try_from(literal.len()).map_err(|_| Refused::TooLarge)?,
        };
        let (hasher, text) = (&self.hasher, &self.text);
        self.edges.insert_unique(hashed, edge, |edge| {
            hash(hasher, edge.parent, edge.literal(text))
        });
        Ok(child)
    }

    fn parameter(&mut self, parent: u32) -> Result<u32, Refused> {
        if self.nodes[index(parent)].parameter == NONE {
            let child = self.grow()?;
            self.nodes[index(parent)].parameter = child;
        }
        Ok(self.nodes[index(parent)].parameter)
    }

    fn end(&mut self, at: u32, tail: bool, method: Method, route: u32) -> Result<(), Refused> {
        let node = &mut self.nodes[index(at)];
        let first = if tail {
            &mut node.tail
        } else {
            &mut node.exact
        };
        let mut next = *first;
        while let Some(leaf) = self.leaves.get(index(next)) {
            if leaf.method == method {
                return Err(Refused::Taken(leaf.route));
            }
            next = leaf.next;
        }
        let leaf = Leaf {
            next: *first,
            route,
            method,
        };
        *first = number(self.leaves.len())?;
        self.leaves.push(leaf);
        Ok(())
    }

    /// Where `literal` begins in the text, which gets it if it is new.
    fn start(&mut self, literal: &'t str) -> Result<u32, Refused> {
        if let Some(&start) = self.starts.get(literal) {
            return Ok(start);
        }
        if literal.len() > MAX_LITERAL {
            return Err(Refused::TooLarge);
        }
        let start = number(self.text.len())?;
        self.text.push_str(literal);
        self.starts.insert(literal, start);
        Ok(start)
    }

    fn grow(&mut self) -> Result<u32, Refused> {
        let at = number(self.nodes.len())?;
        self.nodes.push(Node {
            parameter: NONE,
            exact: NONE,
            tail: NONE,
        });
        Ok(at)
    }
}

// === impl Edge ===

impl Edge {
    fn literal<'t>(&self, text: &'t str) -> &'t [u8] {
        let start = index(self.start);
        text.as_bytes()
            .get(start..start + usize::from(self.length))
            .unwrap_or_default()
    }
}

/// The first segment, what follows its slash, and whether the segment has a `%`. One plain loop: segments are short, and this is most
/// of what a look-up does.
fn split(rest: &str) -> (&str, Option<&str>, bool) {
    let mut escaped = false;
    for (at, byte) in rest.bytes().enumerate() {
        match byte {
            b'/' => return (&rest[..at], Some(&rest[at + 1..]), escaped),
            b'%' => escaped = true,
            _ => {}
        }
    }
    (rest, None, escaped)
}

fn hash(hasher: &RandomState, parent: u32, literal: &[u8]) -> u64 {
    hasher.hash_one((parent, literal))
}

/// A position as an index; one too large for this machine is out of every slice's range.
fn index(position: u32) -> usize {
    usize::try_from(position).unwrap_or(usize::MAX)
}

/// A length as the next position, which is never [`NONE`].
fn number(length: usize) -> Result<u32, Refused> {
    u32::try_from(length)
        .ok()
        .filter(|&number| number != NONE)
        .ok_or(Refused::TooLarge)
}

/// The bytes that a percent-encoded segment stands for; `None` when it cannot equal a literal, being malformed or too long. Bytes
/// that are not UTF-8 are fine: they equal no literal.
fn decode<'b>(segment: &str, buffer: &'b mut [u8; MAX_LITERAL]) -> Option<&'b [u8]> {
    let mut length = 0;
    let mut bytes = segment.bytes();
    while let Some(byte) = bytes.next() {
        *buffer.get_mut(length)? = match byte {
            b'%' => digit(bytes.next()?)? << 4 | digit(bytes.next()?)?,
            plain => plain,
        };
        length += 1;
    }
    buffer.get(..length)
}

/// The value of a hexadecimal digit.
fn digit(byte: u8) -> Option<u8> {
    match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        b'A'..=b'F' => Some(byte - b'A' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::cmp::Ordering;

    use proptest::prelude::*;

    use super::*;

    type Template = (PathTemplate, Method);

    fn build(templates: &[Template]) -> (Trie, Vec<Result<(), Refused>>) {
        let mut builder = TrieBuilder::default();
        let added = (0..)
            .zip(templates)
            .map(|(route, (template, method))| builder.add(template, *method, route))
            .collect();
        (builder.build(), added)
    }

    fn template(path: &str, method: Method) -> Template {
        (path.parse().unwrap(), method)
    }

    /// Captures, and what the tail matched.
    type Captured = (Vec<String>, Option<String>);

    fn find(trie: &Trie, path: &str, method: Option<Method>) -> Option<(u32, Captured)> {
        let mut captures = Captures::new();
        let route = trie.find(path, method, &mut captures)?;
        let segments = captures.iter().map(str::to_owned).collect();
        Some((route, (segments, captures.tail().map(str::to_owned))))
    }

    #[test]
    fn exact_before_parameter_before_tail() {
        use Method::{Any, Delete, Get, Post};
        let templates = [
            template("/", Get),             // 0
            template("/a/b", Get),          // 1
            template("/a/[x]", Get),        // 2
            template("/a/[x]", Any),        // 3
            template("/a/*", Any),          // 4
            template("/[x]/b/c", Get),      // 5
            template("/a/b/d", Get),        // 6
            template("/*", Post),           // 7
            template("/天%20气/[c]", Get),  // 8
            template("/a/", Get),           // 9
            template("/[y]/[z]/*", Delete), // 10
        ];
        type Row = (
            &'static str,
            Method,
            Option<u32>,
            &'static [&'static str],
            Option<&'static str>,
        );
        let rows: [Row; 22] = [
            ("/", Get, Some(0), &[], None),
            ("/", Post, Some(7), &[], Some("")),
            ("/", Delete, None, &[], None),
            ("/a/b", Get, Some(1), &[], None),
            ("/%61/%62", Get, Some(1), &[], None),
            ("/a/c", Get, Some(2), &["c"], None),
            // The exact path has no Api for POST.
            ("/a/b", Post, Some(3), &["b"], None),
            // `/a/b/…` leads nowhere; neither does `/a/[x]/…`.
            ("/a/b/e", Get, Some(4), &[], Some("b/e")),
            ("/a/b/d", Get, Some(6), &[], None),
            // The further left, the more it counts: /a/* before /[x]/b/c.
            ("/a/b/c", Get, Some(4), &[], Some("b/c")),
            ("/q/b/c", Get, Some(5), &["q"], None),
            ("/a/", Get, Some(9), &[], None),
            // A parameter takes no empty segment, a tail does.
            ("/a/", Post, Some(4), &[], Some("")),
            // What is below begins with a slash.
            ("/a", Get, None, &[], None),
            ("/a", Post, Some(7), &[], Some("a")),
            ("/x/y/z//", Delete, Some(10), &["x", "y"], Some("z//")),
            ("/%E5%A4%A9%20%e6%b0%94/%2F", Get, Some(8), &["%2F"], None),
            ("/%zz/b/c", Get, Some(5), &["%zz"], None),
            ("/a%2Fb", Get, None, &[], None),
            ("//b/c", Get, None, &[], None),
            ("", Get, None, &[], None),
            ("a", Get, None, &[], None),
        ];
        let (trie, added) = build(&templates);
        assert!(added.iter().all(Result::is_ok));
        for (path, method, route, segments, tail) in rows {
            let captured = (
                segments.iter().map(|&it| it.to_owned()).collect(),
                tail.map(str::to_owned),
            );
            let expected = route.map(|route| (route, captured));
            assert_eq!(find(&trie, path, Some(method)), expected, "{method} {path}");
        }
        assert!(find(&trie, "/a/b", None).is_some());
        assert!(find(&Trie::default(), "/", None).is_none());
    }

    #[test]
    fn the_same_template_and_method_twice_is_refused() {
        let (trie, added) = build(&[
            template("/[a]/x", Method::Get),
            template("/[b]/x", Method::Post),
            template("/[c]/x", Method::Get),
        ]);
        assert_eq!(added, [Ok(()), Ok(()), Err(Refused::Taken(0))]);
        assert_eq!(find(&trie, "/q/x", Some(Method::Get)).unwrap().0, 0);
    }

    #[test]
    fn many_captures_are_kept() {
        let path: String = (0..12).map(|at| format!("/[p{at}]")).collect();
        let (trie, _) = build(&[template(&path, Method::Get)]);
        let request: String = (0..12).map(|at| format!("/{at}")).collect();
        let (_, (segments, _)) = find(&trie, &request, Some(Method::Get)).unwrap();
        let expected: Vec<String> = (0..12).map(|at| at.to_string()).collect();
        assert_eq!(segments, expected);
    }

    /// Every mixture of a literal and a parameter, 13 deep, for another method: without a limit 16,383 nodes would be visited.
    #[test]
    fn the_work_of_a_look_up_is_bounded() {
        let path = |mixture: u32| -> String {
            let part = |at: u32| {
                if mixture >> at & 1 == 0 {
                    "/a".to_owned()
                } else {
                    format!("/[p{at}]")
                }
            };
            (0..13).map(part).collect()
        };
        let templates: Vec<Template> = (0..1 << 13)
            .map(|mixture| template(&path(mixture), Method::Post))
            .collect();
        let (trie, _) = build(&templates);
        let request = "/a".repeat(13);
        let mut captures = Captures::new();
        let mut walk = Walk {
            trie: &trie,
            method: Some(Method::Get),
            captures: &mut captures,
            steps: MAX_STEPS,
        };
        assert_eq!(walk.below(0, &request[1..]), None);
        assert_eq!(walk.steps, 0);
        assert!(find(&trie, &request, Some(Method::Post)).is_some());
    }

    /// What the documentation of `Group::find` says, tried on one template after the other.
    fn reference(templates: &[Template], path: &str, method: Method) -> Option<(u32, Captured)> {
        let mut best: Option<(Vec<u8>, u32, Captured)> = None;
        for (route, (template, own)) in (0..).zip(templates) {
            let Some((mut rank, captured)) = matched(template, path) else {
                continue;
            };
            if !own.accepts(method) {
                continue;
            }
            rank.push(u8::from(*own == Method::Any));
            let better = best
                .as_ref()
                .is_none_or(|(known, ..)| rank.cmp(known) == Ordering::Less);
            if better {
                best = Some((rank, route, captured));
            }
        }
        best.map(|(_, route, captured)| (route, captured))
    }

    /// How well a template matches, segment by segment, less being better; and what it captures.
    fn matched(template: &PathTemplate, path: &str) -> Option<(Vec<u8>, Captured)> {
        let mut parts = path.strip_prefix('/')?.split('/');
        let (mut rank, mut segments) = (Vec::new(), Vec::new());
        for segment in template.segments() {
            let part = parts.next()?;
            match segment {
                Segment::Literal(literal) => {
                    let mut buffer = [0; MAX_LITERAL];
                    (decode(part, &mut buffer)? == literal.as_bytes()).then_some(())?;
                    rank.push(0);
                }
                Segment::Parameter(_) => {
                    (!part.is_empty()).then_some(())?;
                    segments.push(part.to_owned());
                    rank.push(1);
                }
            }
        }
        let rest: Vec<&str> = parts.collect();
        match (template.has_tail(), rest.is_empty()) {
            (false, true) => Some((rank, (segments, None))),
            (true, false) => {
                rank.push(2);
                Some((rank, (segments, Some(rest.join("/")))))
            }
            _ => None,
        }
    }

    fn any_method() -> impl Strategy<Value = Method> {
        prop::sample::select(vec![Method::Get, Method::Post, Method::Any])
    }

    fn any_template() -> impl Strategy<Value = Template> {
        let segment = prop::sample::select(vec!["a", "b", "%20", "天", "[]", "[]", ""]);
        let path = (prop::collection::vec(segment, 0..5), any::<bool>()).prop_filter_map(
            "some have an empty segment",
            |(segments, tail)| {
                let mut path = String::new();
                for (at, segment) in segments.iter().enumerate() {
                    path.push('/');
                    match *segment {
                        "[]" => path.push_str(&format!("[p{at}]")),
                        literal => path.push_str(literal),
                    }
                }
                if tail || path.is_empty() {
                    path.push_str("/*");
                }
                path.parse().ok()
            },
        );
        (path, any_method())
    }

    fn any_path() -> impl Strategy<Value = String> {
        let segment = prop::sample::select(vec![
            "a",
            "a",
            "b",
            "%61",
            "%20",
            "%E5%A4%A9",
            "c",
            "",
            "%",
            "%ff",
        ]);
        prop::collection::vec(segment, 1..6).prop_map(|segments| format!("/{}", segments.join("/")))
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        #[test]
        fn finds_what_trying_every_template_finds(
            templates in prop::collection::vec(any_template(), 0..24),
            paths in prop::collection::vec(any_path(), 1..8),
        ) {
            let (trie, _) = build(&templates);
            for path in &paths {
                for method in [Method::Get, Method::Post, Method::Delete] {
                    prop_assert_eq!(
                        find(&trie, path, Some(method)),
                        reference(&templates, path, method),
                        "{} {}", method, path
                    );
                }
                let any = [Method::Get, Method::Post, Method::Any]
                    .iter()
                    .any(|&method| reference(&templates, path, method).is_some());
                prop_assert_eq!(find(&trie, path, None).is_some(), any);
            }
        }
    }
}
