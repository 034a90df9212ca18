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
    fn child(&self, parent: u32, segment: &str) -> Option<u32> {
        if segment.as_bytes().contains(&b'%') {
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
        let (segment, after) = match rest.split_once('/') {
            Some((segment, after)) => (segment, Some(after)),
            None => (rest, None),
        };
        if let Some(child) = self.trie.child(node, segment)
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
