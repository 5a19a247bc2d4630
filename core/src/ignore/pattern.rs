//! One line of gitignore syntax: compiled once, matched against bytes.
//!
//! In goes a line as it stands in an ignore file, out comes a [`Pattern`] that answers whether it matches a
//! name or a path relative to the directory of its file. The meaning is Git's to the letter (gitignore(5) and
//! what `git check-ignore` answers), which is why this is not built on a regular expression or on another glob
//! dialect: bytes rather than characters, braces are literal, POSIX classes exist, an invalid pattern matches
//! nothing, and `**` after a literal start of the pattern counts as if the pattern began there.
//!
//! Matching needs no recursion and no memory, and stays polynomial for hostile patterns: within a component
//! only the last `*` is ever retried, among components only the last `**/`. That is enough because what a
//! later wildcard can reach from the earliest place includes what it can reach from any later place.

/// A compiled line.
#[derive(Debug)]
pub(super) struct Pattern {
    /// The line as written, without its trailing spaces; for explanations.
    pub text: Box<[u8]>,
    /// Counted from 1.
    pub line: u32,
    /// `!`: re-includes instead of excluding.
    pub negated: bool,
    /// What kind of entry it can match at all.
    pub entries: Entries,
    shape: Shape,
}

/// Which entries a pattern is asked about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Entries {
    /// Every kind.
    All,
    /// A trailing slash: directories.
    Directories,
    /// Everything but directories; no syntax means this, only the built-in list does.
    Files,
}

#[derive(Debug)]
enum Shape {
    /// The last component is this.
    Name(Box<[u8]>),
    /// The last component ends so: `*literal`, by far the most frequent wildcard.
    NameEnd(Box<[u8]>),
    /// The last component matches.
    NameGlob(Box<[Token]>),
    /// The path is this.
    Path(Box<[u8]>),
    /// The path starts with the literal and the rest of it matches.
    PathGlob(Box<[u8]>, Box<[Token]>),
}

#[derive(Debug, PartialEq)]
enum Token {
    Byte(u8),
    /// `?`: any byte but a slash.
    Any,
    /// `[...]`: a set of bytes, never with the slash.
    Class(Box<ByteSet>),
    /// `*`: any number of bytes but slashes.
    Star,
    /// `**` at the end: everything that is left.
    Rest,
    /// `**/`: any number of whole components, none only if `or_none`.
    Directories {
        or_none: bool,
    },
}

/// What a line can turn out to be.
#[derive(Debug)]
pub(super) enum Line {
    /// A comment, or nothing at all.
    Blank,
    /// A pattern.
    Pattern(Pattern),
    /// A pattern that Git takes but that can match nothing; the reason.
    Void(&'static str),
}

/// The path asked about, in the forms that patterns want it.
pub(super) struct Candidate<'a> {
    /// The last component.
    pub name: &'a [u8],
    /// The whole path relative to the directory that the pattern belongs to.
    pub path: &'a [u8],
    /// Whether it is a directory.
    pub is_dir: bool,
}

impl Pattern {
    /// Compiles `line`, which holds no newline.
    pub fn parse(line: &[u8], number: u32) -> Line {
        let line = line.split(|byte| *byte == 0).next().unwrap_or_default();
        if line.is_empty() || line[0] == b'#' {
            return Line::Blank;
        }
        let text = without_trailing_spaces(line);
        let (negated, body) = match text.strip_prefix(b"!") {
            Some(body) => (true, body),
            None => (false, text),
        };
        let (entries, body) = match body.strip_suffix(b"/") {
            Some(body) => (Entries::Directories, body),
            None => (Entries::All, body),
        };
        if body.is_empty() {
            return Line::Blank;
        }
        let shape = match shape_of(body) {
            Ok(shape) => shape,
            Err(reason) => return Line::Void(reason),
        };
        Line::Pattern(Self { text: text.into(), line: number, negated, entries, shape })
    }

    /// Whether [`Candidate::path`] is looked at.
    pub fn needs_path(&self) -> bool {
        matches!(self.shape, Shape::Path(_) | Shape::PathGlob(..))
    }

    /// Whether the kind of entry fits.
    pub fn concerns(&self, is_dir: bool) -> bool {
        match self.entries {
            Entries::All => true,
            Entries::Directories => is_dir,
            Entries::Files => !is_dir,
        }
    }

    /// Whether the pattern, negated or not, matches.
    pub fn matches(&self, candidate: &Candidate<'_>) -> bool {
        if !self.concerns(candidate.is_dir) {
            return false;
        }
        match &self.shape {
            Shape::Name(name) => candidate.name == &**name,
            Shape::NameEnd(end) => candidate.name.ends_with(end),
            Shape::NameGlob(tokens) => glob_matches(tokens, candidate.name),
            Shape::Path(path) => candidate.path == &**path,
            Shape::PathGlob(start, tokens) => {
                candidate.path.strip_prefix(&**start).is_some_and(|rest| glob_matches(tokens, rest))
            }
        }
    }
}

/// Spaces at the end do not count unless a backslash stands before them; other white space does count.
fn without_trailing_spaces(line: &[u8]) -> &[u8] {
    let mut end_of_text = 0;
    let mut at = 0;
    while at < line.len() {
        match line[at] {
            b' ' => at += 1,
            b'\\' if at + 1 == line.len() => return line,
            b'\\' => {
                at += 2;
                end_of_text = at;
            }
            _ => {
                at += 1;
                end_of_text = at;
            }
        }
    }
    &line[..end_of_text]
}

fn shape_of(body: &[u8]) -> Result<Shape, &'static str> {
    if !body.contains(&b'/') {
        if literal_length(body) == body.len() {
            return Ok(Shape::Name(body.into()));
        }
        if body[0] == b'*' && literal_length(&body[1..]) == body.len() - 1 {
            return Ok(Shape::NameEnd(body[1..].into()));
        }
        return Ok(Shape::NameGlob(tokens_of(body)?));
    }
    let body = body.strip_prefix(b"/").unwrap_or(body);
    let (start, rest) = body.split_at(literal_length(body));
    if rest.is_empty() {
        Ok(Shape::Path(start.into()))
    } else {
        Ok(Shape::PathGlob(start.into(), tokens_of(rest)?))
    }
}

fn literal_length(pattern: &[u8]) -> usize {
    pattern.iter().position(|byte| matches!(byte, b'*' | b'?' | b'[' | b'\\')).unwrap_or(pattern.len())
}

fn tokens_of(glob: &[u8]) -> Result<Box<[Token]>, &'static str> {
    let mut tokens = Vec::with_capacity(glob.len());
    let mut at = 0;
    while at < glob.len() {
        match glob[at] {
            b'*' => at = star(glob, at, &mut tokens),
            b'?' => {
                tokens.push(Token::Any);
                at += 1;
            }
            b'[' => {
                let (class, after) = ByteSet::parse(glob, at)?;
                tokens.push(Token::Class(Box::new(class)));
                at = after;
            }
            b'\\' => {
                let Some(escaped) = glob.get(at + 1) else { return Err("it ends in a single backslash") };
                tokens.push(Token::Byte(*escaped));
                at += 2;
            }
            byte => {
                tokens.push(Token::Byte(byte));
                at += 1;
            }
        }
    }
    Ok(tokens.into())
}

/// Adds what the run of stars at `at` means and returns where the pattern goes on.
fn star(glob: &[u8], at: usize, tokens: &mut Vec<Token>) -> usize {
    let run = glob[at..].iter().take_while(|byte| **byte == b'*').count();
    let after = &glob[at + run..];
    let whole_component = run > 1 && (at == 0 || glob[at - 1] == b'/');
    let (token, used) = match after {
        [] if whole_component => (Token::Rest, 0),
        [b'/', ..] if whole_component => (Token::Directories { or_none: true }, 1),
        [b'\\', b'/', ..] if whole_component => (Token::Directories { or_none: false }, 2),
        _ => (Token::Star, 0),
    };
    // `**/**/` says no more than `**/`, and a hostile pattern may repeat it for ever.
    if token != (Token::Directories { or_none: true }) || tokens.last() != Some(&token) {
        tokens.push(token);
    }
    at + run + used
}

fn glob_matches(tokens: &[Token], text: &[u8]) -> bool {
    let (mut token, mut at) = (0, 0);
    // Where to go on after a failure: the token after the wildcard, and the text it gave up last.
    let mut last_star: Option<(usize, usize)> = None;
    let mut last_directories: Option<(usize, usize)> = None;
    loop {
        let here = text.get(at).copied();
        let step = match tokens.get(token) {
            None => {
                if here.is_none() {
                    return true;
                }
                false
            }
            Some(Token::Rest) => return true,
            Some(Token::Star) => {
                token += 1;
                last_star = Some((token, at));
                continue;
            }
            Some(Token::Directories { or_none }) => {
                last_star = None;
                last_directories = Some((token + 1, at));
                if *or_none {
                    token += 1;
                    continue;
                }
                false
            }
            Some(Token::Byte(byte)) => {
                if *byte == b'/' && here == Some(b'/') {
                    last_star = None;
                }
                here == Some(*byte)
            }
            Some(Token::Any) => here.is_some_and(|byte| byte != b'/'),
            Some(Token::Class(class)) => here.is_some_and(|byte| class.contains(byte)),
        };
        if step {
            token += 1;
            at += 1;
            continue;
        }
        if let Some((after_star, given_up)) = last_star
            && text.get(given_up).is_some_and(|byte| *byte != b'/')
        {
            last_star = Some((after_star, given_up + 1));
            (token, at) = (after_star, given_up + 1);
            continue;
        }
        last_star = None;
        let Some((after_directories, given_up)) = last_directories else { return false };
        let Some(slash) = text[given_up..].iter().position(|byte| *byte == b'/') else { return false };
        (token, at) = (after_directories, given_up + slash + 1);
        last_directories = Some((token, at));
    }
}

/// A set of bytes.
#[derive(Debug, PartialEq, Default)]
struct ByteSet([u64; 4]);

impl ByteSet {
    fn contains(&self, byte: u8) -> bool {
        self.0[usize::from(byte >> 6)] >> (byte & 63) & 1 == 1
    }

    fn insert(&mut self, byte: u8) {
        self.0[usize::from(byte >> 6)] |= 1 << (byte & 63);
    }

    fn remove(&mut self, byte: u8) {
        self.0[usize::from(byte >> 6)] &= !(1 << (byte & 63));
    }

    /// Reads the class whose `[` stands at `open`; returns it and where the pattern goes on.
    fn parse(glob: &[u8], open: usize) -> Result<(Self, usize), &'static str> {
        const UNCLOSED: &str = "a character class is not closed";
        let mut set = Self::default();
        let mut at = open + 1;
        let negated = matches!(glob.get(at), Some(b'!' | b'^'));
        if negated {
            at += 1;
        }
        // The byte a range can start from; none at the beginning, after a range and after a named class.
        let mut from: Option<u8> = None;
        // A closing bracket that comes first is a member.
        let mut first = true;
        loop {
            let byte = *glob.get(at).ok_or(UNCLOSED)?;
            if byte == b']' && !first {
                break;
            }
            first = false;
            match (byte, from, glob.get(at + 1)) {
                (b'\\', _, next) => {
                    let escaped = *next.ok_or(UNCLOSED)?;
                    set.insert(escaped);
                    from = Some(escaped);
                    at += 2;
                }
                (b'-', Some(low), Some(next)) if *next != b']' => {
                    let (high, used) = match *next {
                        b'\\' => (*glob.get(at + 2).ok_or(UNCLOSED)?, 3),
                        high => (high, 2),
                    };
                    (low..=high).for_each(|member| set.insert(member));
                    from = None;
                    at += used;
                }
                (b'[', _, Some(b':')) => {
                    let name_at = at + 2;
                    let length = glob[name_at..].iter().position(|b| *b == b']').ok_or(UNCLOSED)?;
                    match glob[name_at..name_at + length].strip_suffix(b":") {
                        Some(name) => {
                            set.insert_named(name)?;
                            from = None;
                            at = name_at + length + 1;
                        }
                        None => {
                            set.insert(b'[');
                            from = Some(b'[');
                            at += 1;
                        }
                    }
                }
                _ => {
                    set.insert(byte);
                    from = Some(byte);
                    at += 1;
                }
            }
        }
        if negated {
            set.0.iter_mut().for_each(|word| *word = !*word);
        }
        set.remove(b'/');
        Ok((set, at + 1))
    }

    fn insert_named(&mut self, name: &[u8]) -> Result<(), &'static str> {
        let is_member: fn(&u8) -> bool = match name {
            b"alnum" => u8::is_ascii_alphanumeric,
            b"alpha" => u8::is_ascii_alphabetic,
            b"blank" => |byte| matches!(byte, b' ' | b'\t'),
            b"cntrl" => u8::is_ascii_control,
            b"digit" => u8::is_ascii_digit,
            b"graph" => u8::is_ascii_graphic,
            b"lower" => u8::is_ascii_lowercase,
            b"print" => |byte| matches!(byte, b' '..=b'~'),
            b"punct" => u8::is_ascii_punctuation,
            // Git's own table: neither vertical tab nor form feed.
            b"space" => |byte| matches!(byte, b' ' | b'\t' | b'\n' | b'\r'),
            b"upper" => u8::is_ascii_uppercase,
            b"xdigit" => u8::is_ascii_hexdigit,
            _ => return Err("it names a character class that does not exist"),
        };
        (0..=u8::MAX).filter(is_member).for_each(|byte| self.insert(byte));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(line: &str, path: &str) -> bool {
        let Line::Pattern(pattern) = Pattern::parse(line.as_bytes(), 1) else { return false };
        let name = path.rsplit('/').next().unwrap_or(path).as_bytes();
        pattern.matches(&Candidate { name, path: path.as_bytes(), is_dir: false })
    }

    #[test]
    fn braces_are_ordinary_bytes() {
        assert!(matches("*.{a,b}", "x.{a,b}"));
        assert!(!matches("*.{a,b}", "x.a"));
    }

    #[test]
    fn a_question_mark_is_one_byte_and_never_a_slash() {
        assert!(matches("??", "é"));
        assert!(!matches("?", "é"));
        assert!(!matches("/a?b", "a/b"));
    }

    #[test]
    fn an_invalid_pattern_is_void_with_a_reason() {
        for line in ["a\\", "[a", "[a\\", "[[:nonsense:]]", "x[", "dir/[!"] {
            assert!(matches!(Pattern::parse(line.as_bytes(), 1), Line::Void(_)), "{line}");
        }
        for line in ["", "#x", "!", "/", "!/", "   "] {
            assert!(matches!(Pattern::parse(line.as_bytes(), 1), Line::Blank), "{line:?}");
        }
    }

    #[test]
    fn only_unescaped_spaces_at_the_end_are_cut() {
        assert_eq!(without_trailing_spaces(b"a b  "), b"a b");
        assert_eq!(without_trailing_spaces(b"a\\  "), b"a\\ ");
        assert_eq!(without_trailing_spaces(b"a\t "), b"a\t");
        assert_eq!(without_trailing_spaces(b"a \\"), b"a \\");
    }

    #[test]
    fn a_hostile_pattern_costs_no_more_than_polynomial_time() {
        let stars = format!("{}b", "*a".repeat(300));
        assert!(!matches(&stars, &"a".repeat(250)));
        let directories = format!("{}b", "**/*a*/".repeat(60));
        assert!(!matches(&directories, &format!("{}c", "aa/".repeat(80))));
    }
}
