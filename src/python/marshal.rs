//! The one form of a compiled module among the many that CPython writes.
//!
//! `marshal` writes an object the second time as a reference to the first, and
//! marks what may be referred to. Both depend on how often the process holds an object
//! and on which strings it has interned: the same source gives other bytes after another
//! import. Here a module is read and written anew, with references to equal values and
//! marks only on what is referred to, so that its bytes depend on the source alone.

use std::collections::HashMap;

/// Objects inside of objects at most; the parser allows 200 brackets within each other.
const MAX_DEPTH: usize = 300;
/// Set in an object's type byte: later objects may refer to it.
const FLAG_REF: u8 = 0x80;

/// Why bytes are no compiled module of a known version.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a compiled module that is known here: {0}")]
pub(crate) struct Unknown(&'static str);

/// An object, its references resolved.
#[derive(Debug, Clone)]
enum Node {
    /// What is never referred to: singletons, small integers.
    Plain(Vec<u8>),
    /// An immutable value without parts, as it is written.
    Leaf(Vec<u8>),
    /// `(`: a tuple, or `>`: a frozen set.
    Sequence(u8, Vec<usize>),
    /// `c`: numbers, objects, the first line's number, objects.
    Code(Vec<u8>, Vec<usize>, [u8; 4], Vec<usize>),
}

/// How a code object is laid out: how many 4-byte numbers it starts with, then
/// objects before and after the number of its first line.
fn code_layout((major, minor): (u8, u8)) -> Option<(usize, usize, usize)> {
    match (major, minor) {
        (3, 7) => Some((5, 8, 1)),
        (3, 8..=10) => Some((6, 8, 1)),
        (3, 11..=14) => Some((5, 8, 2)),
        _ => None,
    }
}

struct Reader<'a> {
    rest: &'a [u8],
    layout: (usize, usize, usize),
    nodes: Vec<Node>,
    /// The nodes that the stream's references count.
    referable: Vec<Option<usize>>,
}

impl<'a> Reader<'a> {
    fn take(&mut self, length: usize) -> Result<&'a [u8], Unknown> {
        let (taken, rest) = self
            .rest
            .split_at_checked(length)
            .ok_or(Unknown("it ends early"))?;
        self.rest = rest;
        Ok(taken)
    }

    fn number(&mut self) -> Result<[u8; 4], Unknown> {
        self.take(4)?
            .try_into()
            .map_err(|_| Unknown("it ends early"))
    }

    fn length(&mut self) -> Result<usize, Unknown> {
        let number = i32::from_le_bytes(self.number()?);
        usize::try_from(number).map_err(|_| Unknown("a negative length"))
    }

    fn objects(&mut self, count: usize, depth: usize) -> Result<Vec<usize>, Unknown> {
        // Every object has one byte at least: a count that lies fills no memory.
        if count > self.rest.len() {
            return Err(Unknown("it ends early"));
        }
        (0..count).map(|_| self.object(depth + 1)).collect()
    }

    /// Reads one object; gives its place among the nodes.
    fn object(&mut self, depth: usize) -> Result<usize, Unknown> {
        if depth > MAX_DEPTH {
            return Err(Unknown("it is nested too deeply"));
        }
        let [byte] = *self.take(1)? else {
            return Err(Unknown("it ends early"));
        };
        let kind = byte & !FLAG_REF;
        if kind == b'r' {
            let index = self.length()?;
            let found = self.referable.get(index).copied().flatten();
            return found.ok_or(Unknown("a reference to nothing"));
        }
        let slot = (byte & FLAG_REF != 0).then(|| {
            self.referable.push(None);
            self.referable.len() - 1
        });
        let node = match kind {
            b'N' | b'T' | b'F' | b'.' | b'S' => Node::Plain(vec![kind]),
            b'i' => Node::Plain([&[kind][..], self.take(4)?].concat()),
            b'g' => Node::Leaf([&[kind][..], self.take(8)?].concat()),
            b'y' => Node::Leaf([&[kind][..], self.take(16)?].concat()),
            b'l' => {
                let count = self.number()?;
                let digits = i32::from_le_bytes(count).unsigned_abs() as usize;
                Node::Leaf([&[kind][..], &count, self.take(digits.saturating_mul(2))?].concat())
            }
            b's' => {
                let length = self.length()?;
                let size = u32::try_from(length).unwrap_or(u32::MAX).to_le_bytes();
                Node::Leaf([&[kind][..], &size, self.take(length)?].concat())
            }
            b'z' | b'Z' => {
                let [length] = *self.take(1)? else {
                    return Err(Unknown("it ends early"));
                };
                text(self.take(length.into())?)
            }
            b'a' | b'A' | b'u' | b't' => {
                let length = self.length()?;
                text(self.take(length)?)
            }
            b')' => {
                let [count] = *self.take(1)? else {
                    return Err(Unknown("it ends early"));
                };
                Node::Sequence(b'(', self.objects(count.into(), depth)?)
            }
            b'(' | b'>' => {
                let count = self.length()?;
                Node::Sequence(kind, self.objects(count, depth)?)
            }
            b':' => Node::Sequence(kind, self.objects(3, depth)?),
            b'c' => {
                let (numbers, before, after) = self.layout;
                Node::Code(
                    self.take(numbers * 4)?.to_vec(),
                    self.objects(before, depth)?,
                    self.number()?,
                    self.objects(after, depth)?,
                )
            }
            _ => return Err(Unknown("an object of an unknown kind")),
        };
        self.nodes.push(node);
        let place = self.nodes.len() - 1;
        if let Some(slot) = slot.and_then(|slot| self.referable.get_mut(slot)) {
            *slot = Some(place);
        }
        Ok(place)
    }
}

/// A string in the shortest form; what looks like a name is interned when it is loaded,
/// as the compiler itself would.
fn text(bytes: &[u8]) -> Node {
    let is_name = bytes
        .iter()
        .all(|b| b.is_ascii_alphanumeric() || *b == b'_');
    let long = u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_le_bytes();
    let head = match (bytes.is_ascii(), u8::try_from(bytes.len())) {
        (true, Ok(length)) => vec![if is_name { b'Z' } else { b'z' }, length],
        (true, Err(_)) => [&[if is_name { b'A' } else { b'a' }][..], &long].concat(),
        (false, _) => [&[b'u'][..], &long].concat(),
    };
    Node::Leaf([head.as_slice(), bytes].concat())
}

/// Names every node by its value: equal values have equal names.
struct Values {
    names: Vec<usize>,
    known: HashMap<(u8, Vec<u8>, Vec<usize>), usize>,
}

impl Values {
    fn of(nodes: &[Node]) -> Self {
        let mut values = Self {
            names: Vec::with_capacity(nodes.len()),
            known: HashMap::new(),
        };
        for (place, node) in nodes.iter().enumerate() {
            let parts_of = |names: &[usize], parts: &[usize]| -> Vec<usize> {
                parts
                    .iter()
                    .filter_map(|part| names.get(*part).copied())
                    .collect()
            };
            let key = match node {
                Node::Plain(bytes) | Node::Leaf(bytes) => (0, bytes.clone(), Vec::new()),
                Node::Sequence(kind, parts) => (*kind, Vec::new(), parts_of(&values.names, parts)),
                // Two code objects are two objects, however equal.
                Node::Code(..) => (1, place.to_le_bytes().to_vec(), Vec::new()),
            };
            let next = values.known.len();
            let name = *values.known.entry(key).or_insert(next);
            values.names.push(name);
        }
        values
    }
}

struct Writer<'a> {
    nodes: &'a [Node],
    names: &'a [usize],
    /// How often each value is written or referred to.
    uses: Vec<u32>,
    /// The number of the reference to each value that was written.
    written: Vec<Option<u32>>,
    references: u32,
    out: Vec<u8>,
}

impl Writer<'_> {
    /// The members of a frozen set have no order of their own.
    fn parts(&self, kind: u8, parts: &[usize]) -> Vec<usize> {
        let mut parts = parts.to_vec();
        if kind == b'>' {
            parts.sort_by_cached_key(|part| self.alone(*part));
        }
        parts
    }

    /// A value's bytes without any reference, to sort by.
    fn alone(&self, place: usize) -> Vec<u8> {
        match self.nodes.get(place) {
            Some(Node::Plain(bytes) | Node::Leaf(bytes)) => bytes.clone(),
            Some(Node::Sequence(kind, parts)) => {
                let parts = self.parts(*kind, parts);
                std::iter::once(*kind)
                    .chain(parts.into_iter().flat_map(|part| self.alone(part)))
                    .collect()
            }
            _ => Vec::new(),
        }
    }

    /// Counts the uses of a value and, the first time, of its parts: so as `write` will meet them.
    fn count(&mut self, place: usize) {
        let Some(uses) = self
            .names
            .get(place)
            .and_then(|name| self.uses.get_mut(*name))
        else {
            return;
        };
        *uses += 1;
        if *uses > 1 {
            return;
        }
        match self.nodes.get(place) {
            Some(Node::Sequence(kind, parts)) => {
                for part in self.parts(*kind, parts) {
                    self.count(part);
                }
            }
            Some(Node::Code(_, before, _, after)) => {
                for part in before.iter().chain(after) {
                    self.count(*part);
                }
            }
            _ => {}
        }
    }

    fn write(&mut self, place: usize) {
        let (Some(node), Some(&name)) = (self.nodes.get(place), self.names.get(place)) else {
            return;
        };
        if let Node::Plain(bytes) = node {
            self.out.extend_from_slice(bytes);
            return;
        }
        if let Some(reference) = self.written.get(name).copied().flatten() {
            self.out.push(b'r');
            self.out.extend_from_slice(&reference.to_le_bytes());
            return;
        }
        let mut flag = 0;
        if self.uses.get(name).is_some_and(|uses| *uses > 1) {
            flag = FLAG_REF;
            if let Some(slot) = self.written.get_mut(name) {
                *slot = Some(self.references);
            }
            self.references += 1;
        }
        match node {
            Node::Plain(_) => {}
            Node::Leaf(bytes) => {
                let (kind, rest) = bytes.split_first().unwrap_or((&b'N', &[]));
                self.out.push(kind | flag);
                self.out.extend_from_slice(rest);
            }
            Node::Sequence(kind, parts) => {
                match (kind, u8::try_from(parts.len())) {
                    (b'(', Ok(count)) => self.out.extend_from_slice(&[b')' | flag, count]),
                    (b':', _) => self.out.push(b':' | flag),
                    _ => {
                        let count = u32::try_from(parts.len()).unwrap_or(u32::MAX);
                        self.out.push(kind | flag);
                        self.out.extend_from_slice(&count.to_le_bytes());
                    }
                }
                for part in self.parts(*kind, parts) {
                    self.write(part);
                }
            }
            Node::Code(numbers, before, line, after) => {
                self.out.push(b'c' | flag);
                self.out.extend_from_slice(numbers);
                before.iter().for_each(|part| self.write(*part));
                self.out.extend_from_slice(line);
                after.iter().for_each(|part| self.write(*part));
            }
        }
    }
}

/// The canonical form of what `marshal.dumps` of CPython `version` gave for a module's code.
///
/// # Errors
/// Bytes that are not such a thing, or a version whose layout is not known.
pub(crate) fn canonical(bytes: &[u8], version: (u8, u8)) -> Result<Vec<u8>, Unknown> {
    let layout = code_layout(version).ok_or(Unknown("another version of Python"))?;
    let mut reader = Reader {
        rest: bytes,
        layout,
        nodes: Vec::new(),
        referable: Vec::new(),
    };
    let root = reader.object(0)?;
    if !reader.rest.is_empty() {
        return Err(Unknown("something follows it"));
    }
    let values = Values::of(&reader.nodes);
    let mut writer = Writer {
        nodes: &reader.nodes,
        names: &values.names,
        uses: vec![0; values.known.len()],
        written: vec![None; values.known.len()],
        references: 0,
        out: Vec::with_capacity(bytes.len()),
    };
    writer.count(root);
    writer.write(root);
    Ok(writer.out)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// `(1-tuple of a code object …)` is not needed: constants alone show the form.
    fn tuple(parts: &[&[u8]]) -> Vec<u8> {
        let mut bytes = vec![b')', u8::try_from(parts.len()).unwrap()];
        parts.iter().for_each(|part| bytes.extend_from_slice(part));
        bytes
    }

    #[test]
    fn what_the_process_knew_does_not_show() {
        let version = (3, 9);
        // "ab" twice: once by reference, once written out, once not interned and marked.
        let one = tuple(&[b"\xda\x02ab", b"r\0\0\0\0", b"N"]);
        let two = tuple(&[b"Z\x02ab", b"\xfa\x02ab", b"N"]);
        let three = tuple(&[b"a\x02\0\0\0ab", b"z\x02ab", b"\xce"]);
        let canonical = |bytes: &[u8]| super::canonical(bytes, version).unwrap();
        assert_eq!(canonical(&one), one);
        assert_eq!(canonical(&two), one);
        assert_eq!(canonical(&three), one);
    }

    #[test]
    fn a_frozen_set_has_one_order() {
        let set = |parts: &[&[u8]]| {
            let mut bytes = b">\x02\0\0\0".to_vec();
            parts.iter().for_each(|part| bytes.extend_from_slice(part));
            canonical(&bytes, (3, 8)).unwrap()
        };
        assert_eq!(set(&[b"z\x01a", b"z\x01b"]), set(&[b"z\x01b", b"z\x01a"]));
    }

    #[test]
    fn what_is_equal_in_python_but_not_the_same_stays_apart() {
        // 0.0 and -0.0, 1 and True.
        let zero = [&b"g"[..], &0f64.to_le_bytes()].concat();
        let negative = [&b"g"[..], &(-0f64).to_le_bytes()].concat();
        let bytes = tuple(&[&zero, &negative, b"i\x01\0\0\0", b"T"]);
        assert_eq!(canonical(&bytes, (3, 11)).unwrap(), bytes);
    }

    #[test]
    fn what_is_not_known_is_refused() {
        for bytes in [
            &b""[..],
            b"(\xff\xff\xff\x7f",
            b"r\0\0\0\0",
            b"N0",
            b"?",
            b"c",
        ] {
            assert!(canonical(bytes, (3, 11)).is_err(), "{bytes:?}");
        }
        assert!(canonical(b"N", (3, 99)).is_err());
        let deep = [b")\x01".repeat(5000), b"N".to_vec()].concat();
        assert!(canonical(&deep, (3, 11)).is_err());
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(once) = canonical(&bytes, (3, 11)) {
                prop_assert_eq!(canonical(&once, (3, 11)), Ok(once));
            }
        }
    }
}
