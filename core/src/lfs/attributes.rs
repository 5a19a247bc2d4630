//! The generated `.gitattributes` of a directory: it names exactly the files there that stand in Git as pointers.
//!
//! ```text
//! /disk.img filter=lfs diff=lfs merge=lfs -text
//! "/letter to\nmother" filter=lfs diff=lfs merge=lfs -text
//! ```
//!
//! In: names as they stand in Git's tree, any bytes. Out: one line a name, sorted by the names, which Git matches with that name in
//! that directory and with nothing else; and back. The syntax is that of gitattributes(5): the slash in front binds a pattern to
//! the directory (and keeps `!` and `#` from meaning anything), a backslash takes the meaning from `*`, `?`, `[` and itself, and what could end
//! a pattern or a line is quoted as in C. No line reaches the 2048 bytes beyond which Git passes over it: a name has 255
//! bytes, of which none takes more than four.

use std::collections::BTreeSet;

/// The name of the file. A user's own of this name is stored under another.
pub const FILE_NAME: &[u8] = b".gitattributes";

/// What stands after each pattern.
const ATTRIBUTES: &[u8] = b" filter=lfs diff=lfs merge=lfs -text";
/// Octal digits stand for a byte in quotes, but for these.
const SHORT_ESCAPES: [(u8, u8); 9] = [
    (0x07, b'a'),
    (0x08, b'b'),
    (b'\t', b't'),
    (b'\n', b'n'),
    (0x0b, b'v'),
    (0x0c, b'f'),
    (b'\r', b'r'),
    (b'"', b'"'),
    (b'\\', b'\\'),
];

/// The names in one directory that have the attributes of Git LFS.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Attributes {
    names: BTreeSet<Vec<u8>>,
}

impl Attributes {
    /// Reads a file that [`Attributes::encode`] wrote; `None` for anything else.
    pub fn parse(file: &[u8]) -> Option<Self> {
        let text = file.strip_suffix(b"\n")?;
        let mut names = BTreeSet::new();
        for line in text.split(|byte| *byte == b'\n') {
            let name = name_in(line)?;
            // One form a name and one order: so equal sets are equal bytes.
            if names.last().is_some_and(|last| *last >= name) {
                return None;
            }
            names.insert(name);
        }
        Some(Self { names })
    }

    /// The file's text. Without names there should be no file.
    pub fn encode(&self) -> Vec<u8> {
        let mut file = Vec::with_capacity(self.names.iter().map(|name| name.len() + 40).sum());
        for name in &self.names {
            file.extend_from_slice(&pattern_of(name));
            file.extend_from_slice(ATTRIBUTES);
            file.push(b'\n');
        }
        file
    }

    /// Has `name` named or not; whether that is new.
    pub fn set(&mut self, name: &[u8], is_pointer: bool) -> bool {
        if is_pointer { self.names.insert(name.to_vec()) } else { self.names.remove(name) }
    }

    /// Whether `name` is named.
    pub fn has(&self, name: &[u8]) -> bool {
        self.names.contains(name)
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    /// How many are.
    pub fn len(&self) -> usize {
        self.names.len()
    }

    /// The names, in order.
    pub fn names(&self) -> impl Iterator<Item = &[u8]> {
        self.names.iter().map(Vec::as_slice)
    }
}

impl<N: Into<Vec<u8>>> FromIterator<N> for Attributes {
    fn from_iter<I: IntoIterator<Item = N>>(names: I) -> Self {
        Self { names: names.into_iter().map(Into::into).collect() }
    }
}

/// The pattern for exactly this name.
fn pattern_of(name: &[u8]) -> Vec<u8> {
    let mut pattern = Vec::with_capacity(name.len() + 1);
    pattern.push(b'/');
    for byte in name {
        if matches!(byte, b'*' | b'?' | b'[' | b'\\') {
            pattern.push(b'\\');
        }
        pattern.push(*byte);
    }
    // Bytes that are no text are octal digits, so that the file is text to every editor and every reader.
    let is_text = std::str::from_utf8(name).is_ok();
    let is_plain = is_text && !pattern.iter().any(|byte| *byte <= b' ' || *byte == 0x7f);
    if is_plain { pattern } else { quoted(&pattern, is_text) }
}

fn quoted(pattern: &[u8], is_text: bool) -> Vec<u8> {
    let mut quoted = vec![b'"'];
    for byte in pattern {
        if let Some((_, letter)) = SHORT_ESCAPES.iter().find(|(escaped, _)| escaped == byte) {
            quoted.extend_from_slice(&[b'\\', *letter]);
        } else if *byte < b' ' || *byte == 0x7f || (*byte >= 0x80 && !is_text) {
            quoted.extend_from_slice(format!("\\{byte:03o}").as_bytes());
        } else {
            quoted.push(*byte);
        }
    }
    quoted.push(b'"');
    quoted
}

/// The name that a line is for; `None` if we would have written it otherwise.
fn name_in(line: &[u8]) -> Option<Vec<u8>> {
    let written = line.strip_suffix(ATTRIBUTES)?;
    let unquoted = match written.strip_prefix(b"\"") {
        Some(quoted) => unquoted(quoted.strip_suffix(b"\"")?)?,
        None => written.to_vec(),
    };
    let mut name = Vec::with_capacity(unquoted.len());
    let mut rest = unquoted.strip_prefix(b"/")?.iter();
    while let Some(byte) = rest.next() {
        name.push(if *byte == b'\\' { *rest.next()? } else { *byte });
    }
    let is_ours = !name.is_empty() && !name.contains(&b'/') && pattern_of(&name) == written;
    is_ours.then_some(name)
}

fn unquoted(quoted: &[u8]) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(quoted.len());
    let mut rest = quoted;
    while let Some((first, tail)) = rest.split_first() {
        if *first != b'\\' {
            bytes.push(*first);
            rest = tail;
            continue;
        }
        let letter = tail.first()?;
        if let Some((escaped, _)) = SHORT_ESCAPES.iter().find(|(_, short)| short == letter) {
            bytes.push(*escaped);
            rest = tail.get(1..)?;
        } else {
            let (digits, tail) = tail.split_at_checked(3)?;
            bytes.push(u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok()?);
            rest = tail;
        }
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::fs;
    use std::io::Write;
    use std::os::unix::ffi::OsStrExt;
    use std::path::Path;
    use std::process::{Command, Stdio};

    use proptest::prelude::*;

    use super::*;
    use crate::path::escape_component;

    #[test]
    fn a_line_is_written_as_git_reads_it() {
        for (name, pattern) in [
            (&b"disk.img"[..], &br"/disk.img"[..]),
            (b"!a", b"/!a"),
            (b"#a", b"/#a"),
            (b"a*b?c[d]\\e", br"/a\*b\?c\[d]\\e"),
            (b"a b", br#""/a b""#),
            (b"a\"b", br#"/a"b"#),
            (b"a \"*\"", br#""/a \"\\*\"""#),
            (b"a\tb\n\x01\x7f", br#""/a\tb\n\001\177""#),
            ("ä€".as_bytes(), "/ä€".as_bytes()),
            ("ä €".as_bytes(), "\"/ä €\"".as_bytes()),
            (b"\xff", br#""/\377""#),
        ] {
            let file = [pattern, ATTRIBUTES, b"\n"].concat();
            let attributes: Attributes = [name].into_iter().collect();
            assert_eq!(attributes.encode(), file, "{}", crate::path::lossy(&attributes.encode()));
            assert_eq!(Attributes::parse(&file), Some(attributes));
        }
    }

    #[test]
    fn what_we_did_not_write_is_not_read() {
        let line = |pattern: &str| format!("{pattern} filter=lfs diff=lfs merge=lfs -text\n");
        assert!(Attributes::parse(line("/a").as_bytes()).is_some());
        for foreign in [
            String::new(),
            "\n".to_owned(),
            line("/a").trim_end().to_owned(),
            line("a"),
            line("/"),
            line("/a/b"),
            line("/*"),
            line(r"/\a"),
            line(r#""/a""#),
            line(r#""/a b"#),
            line(r#""/a \8""#),
            line(r#""/a \777""#),
            line(r#""/a \""#),
            line("/b") + &line("/a"),
            line("/a") + &line("/a"),
            "/a filter=lfs\n".to_owned(),
            "# a comment\n".to_owned() + &line("/a"),
        ] {
            assert_eq!(Attributes::parse(foreign.as_bytes()), None, "{foreign:?}");
        }
    }

    #[test]
    fn the_longest_line_is_one_that_git_still_reads() {
        for name in [vec![0xff; 255], vec![b'\\'; 255], [b" ".repeat(2), vec![b'\\'; 253]].concat()] {
            let stored = escape_component(&name);
            let attributes: Attributes = [&*stored].into_iter().collect();
            assert!(attributes.encode().len() < 2048);
        }
    }

    /// What git says of the filter of each of these names in one directory that has the file.
    fn filters(attributes: &Attributes, names: &[Vec<u8>]) -> BTreeMap<Vec<u8>, Vec<u8>> {
        let scratch = tempfile::tempdir().unwrap();
        let git = |arguments: &[&str]| {
            let mut command = Command::new("git");
            command.current_dir(scratch.path()).args(arguments);
            command.env("GIT_CONFIG_NOSYSTEM", "1").env("HOME", scratch.path());
            command
        };
        assert!(git(&["init", "-q"]).status().unwrap().success());
        fs::create_dir(scratch.path().join("d")).unwrap();
        fs::write(scratch.path().join(".gitattributes"), "* -text -ident -filter\n").unwrap();
        fs::write(scratch.path().join("d/.gitattributes"), attributes.encode()).unwrap();
        let mut asked = git(&["check-attr", "-z", "--stdin", "filter"]);
        let mut asked =
            asked.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut input = asked.stdin.take().unwrap();
        let question: Vec<u8> =
            names.iter().flat_map(|name| [b"d/", name.as_slice(), b"\0"].concat()).collect();
        let feeding = std::thread::spawn(move || input.write_all(&question).unwrap());
        let output = asked.wait_with_output().unwrap();
        feeding.join().unwrap();
        assert!(
            output.status.success() && output.stderr.is_empty(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        let mut words = output.stdout.split(|byte| *byte == 0).filter(|word| !word.is_empty());
        let mut said = BTreeMap::new();
        while let (Some(path), Some(_), Some(value)) = (words.next(), words.next(), words.next()) {
            said.insert(path[2..].to_vec(), value.to_vec());
        }
        said
    }

    fn assert_git_agrees(large: &[Vec<u8>], others: &[Vec<u8>]) {
        let attributes: Attributes = large.iter().cloned().collect();
        assert_eq!(Attributes::parse(&attributes.encode()).as_ref(), Some(&attributes));
        let names: Vec<Vec<u8>> = large.iter().chain(others).cloned().collect();
        for (name, filter) in filters(&attributes, &names) {
            let wanted: &[u8] = if attributes.has(&name) { b"lfs" } else { b"unset" };
            assert_eq!(filter, wanted, "{:?}", Path::new(std::ffi::OsStr::from_bytes(&name)));
        }
    }

    #[test]
    fn git_matches_hostile_names_exactly() {
        let hostile: Vec<Vec<u8>> = [
            &b"*"[..],
            b"?",
            b"[a]",
            b"[",
            b"]",
            b"\\",
            b"\\*",
            b"**",
            b"!x",
            b"#x",
            b" ",
            b" x",
            b"x ",
            b"x\t",
            b"\n",
            b"x\ny",
            b"x\r",
            b"\"",
            b"\"x\"",
            b"x\"y",
            b"[attr]x",
            b"\x01",
            b"\x7f",
            b"\xff",
            b"\xc3(",
            b"x filter=y",
            b"{a,b}",
            b"-text",
            b"_bb_.gitattributes",
            b"\xef\xbb\xbfx",
            b"\xc2\xa0",
            b"\xe2\x80\xa8",
            b"a\\nb",
            b"\\n",
            b"\\101",
            b":x",
            b"x:",
            b"$HOME",
        ]
        .into_iter()
        .map(<[u8]>::to_vec)
        .collect();
        let long =
            [vec![0xff; 255], vec![b'*'; 255], vec![b'"'; 255], [vec![b'\\'; 254], vec![b' ']].concat()];
        let innocent: Vec<Vec<u8>> = ["a", "x", "xy", "a]", "n", "nb", "A", "xx", "y"]
            .iter()
            .map(|name| name.as_bytes().to_vec())
            .collect();
        let all: Vec<Vec<u8>> = hostile.iter().chain(&long).cloned().collect();
        assert_git_agrees(&all, &innocent);
        for name in &all {
            let others: Vec<Vec<u8>> =
                all.iter().filter(|other| *other != name).chain(&innocent).cloned().collect();
            assert_git_agrees(std::slice::from_ref(name), &others);
        }
    }

    fn name() -> impl Strategy<Value = Vec<u8>> {
        let byte = prop_oneof![
            3 => proptest::sample::select(b"*?[]\\!#\" \t\n\r\x01\x7f\xff\xc3ab.-{},".to_vec()),
            1 => any::<u8>(),
        ];
        proptest::collection::vec(byte, 1..12).prop_filter_map("no name", |mut name| {
            name.retain(|byte| !matches!(byte, 0 | b'/'));
            let is_name = !matches!(name.as_slice(), b"" | b"." | b"..");
            is_name.then(|| escape_component(&name).into_owned())
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

        #[test]
        fn git_matches_what_is_named_and_nothing_else(
            large in proptest::collection::vec(name(), 1..40),
            others in proptest::collection::vec(name(), 0..40),
        ) {
            assert_git_agrees(&large, &others);
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_reader_fail(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let line = [b"\"/", bytes.as_slice(), b"\"", ATTRIBUTES, b"\n"].concat();
            for file in [bytes, line] {
                if let Some(attributes) = Attributes::parse(&file) {
                    prop_assert_eq!(attributes.encode(), file);
                }
            }
        }
    }
}
