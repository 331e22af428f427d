//! Patterns: of the names in credentials, and of gateways' ids.
//!
//! | where | `{name}` | `*` | case |
//! |---|---|---|---|
//! | `certificate = "spiffe://…"` | one or more of `A-Z a-z 0-9 - . _ ~`, but neither `.` nor `..` | not allowed | exact |
//! | `certificate = "dns:…"` | one or more of `a-z 0-9 - _`: part of one label | not allowed | ignored: both sides are in lower case |
//! | `jwt_subject` | as in a URI | any run of characters, also none; not beside placeholders | exact |
//! | `subscribe` | the text that the credential's pattern has bound | any run of characters, also none | exact |
//!
//! A name matches in one way or not at all. So between two placeholders there must be a
//! character that neither can bind, such as `/` (`.` in DNS names): a placeholder takes all
//! characters that it can, less the text that follows it up to such a character.
//!
//! What a placeholder has bound is text wherever it is used. It is put between the parts of a
//! pattern that was read before, and is never read as a pattern itself.

/// The longest pattern, in bytes. Gateways' ids and names in certificates are shorter.
const MAX_PATTERN_BYTES: usize = 1024;

/// The longest name of a placeholder, in bytes.
const MAX_PLACEHOLDER_BYTES: usize = 32;

/// Why a text is no pattern. It does not repeat the text.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(super) struct PatternError(String);

fn refused<T>(why: impl Into<String>) -> Result<T, PatternError> {
    Err(PatternError(why.into()))
}

/// What kind of name a pattern is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NameKind {
    /// A URI in a certificate.
    Uri,
    /// A DNS name in a certificate, in lower case.
    Dns,
    /// The subject of a signed token.
    Subject,
}

impl NameKind {
    /// Whether a placeholder may bind it.
    fn binds(self, byte: u8) -> bool {
        match self {
            NameKind::Dns => {
                byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'_')
            }
            NameKind::Uri | NameKind::Subject => {
                byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
            }
        }
    }
}

/// A part of a pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Text(String),
    /// `{name}`.
    Placeholder(String),
    /// `*`.
    Any,
}

/// Cuts a pattern into its parts. Texts are not empty, and never adjoin.
fn pieces(pattern: &str) -> Result<Vec<Piece>, PatternError> {
    if pattern.is_empty() {
        return refused("it is empty");
    }
    if pattern.len() > MAX_PATTERN_BYTES {
        return refused(format!("it is longer than {MAX_PATTERN_BYTES} bytes"));
    }
    if pattern.chars().any(char::is_control) {
        return refused("it has a control character");
    }
    let mut pieces = Vec::new();
    let mut rest = pattern;
    while let Some(at) = rest.find(['{', '}', '*']) {
        let (text, special) = rest.split_at(at);
        if !text.is_empty() {
            pieces.push(Piece::Text(text.to_owned()));
        }
        if let Some(after) = special.strip_prefix('*') {
            pieces.push(Piece::Any);
            rest = after;
        } else if let Some(after) = special.strip_prefix('{') {
            let Some((name, after)) = after.split_once('}') else {
                return refused("a { has no }");
            };
            if !is_placeholder_name(name) {
                return refused(format!(
                    "between {{ and }} there must be a name of a-z, 0-9 and _ that begins with \
                     a letter, of at most {MAX_PLACEHOLDER_BYTES} characters"
                ));
            }
            pieces.push(Piece::Placeholder(name.to_owned()));
            rest = after;
        } else {
            return refused("a } has no {");
        }
    }
    if !rest.is_empty() {
        pieces.push(Piece::Text(rest.to_owned()));
    }
    Ok(pieces)
}

fn is_placeholder_name(name: &str) -> bool {
    name.len() <= MAX_PLACEHOLDER_BYTES
        && name.starts_with(|first: char| first.is_ascii_lowercase())
        && name
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
}

/// A pattern of the names in a kind of credential.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct NamePattern {
    kind: NameKind,
    pieces: Vec<Piece>,
}

impl NamePattern {
    /// Reads the pattern of a principal's `certificate`.
    pub(super) fn certificate(text: &str) -> Result<Self, PatternError> {
        let pattern = match text.strip_prefix("dns:") {
            Some(name) => NamePattern {
                kind: NameKind::Dns,
                pieces: dns_pieces(name)?,
            },
            None => NamePattern {
                kind: NameKind::Uri,
                pieces: uri_pieces(text)?,
            },
        };
        if pattern.pieces.contains(&Piece::Any) {
            return refused("* is not allowed here: use a placeholder, such as {gateway}");
        }
        pattern.matches_in_one_way()
    }

    /// Reads the pattern of a principal's `jwt_subject`.
    pub(super) fn subject(text: &str) -> Result<Self, PatternError> {
        let pattern = NamePattern {
            kind: NameKind::Subject,
            pieces: pieces(text)?,
        };
        let any = pattern.pieces.contains(&Piece::Any);
        if any && !pattern.placeholders().is_empty() {
            return refused("* and placeholders cannot be in one pattern");
        }
        pattern.matches_in_one_way()
    }

    fn matches_in_one_way(self) -> Result<Self, PatternError> {
        let names = self.placeholders();
        for (at, name) in names.iter().enumerate() {
            if names.iter().take(at).any(|earlier| earlier == name) {
                return refused(format!("{{{name}}} is in it twice"));
            }
        }
        let mut open = false;
        for piece in &self.pieces {
            match piece {
                Piece::Placeholder(name) if open => {
                    let what = match self.kind {
                        NameKind::Dns => "a dot",
                        NameKind::Uri | NameKind::Subject => "a character such as / or :",
                    };
                    return refused(format!("before {{{name}}} there must be {what}"));
                }
                Piece::Placeholder(_) => open = true,
                Piece::Text(text) => {
                    open = open && text.bytes().all(|byte| self.kind.binds(byte));
                }
                Piece::Any => {}
            }
        }
        Ok(self)
    }

    pub(super) fn kind(&self) -> NameKind {
        self.kind
    }

    /// The names of its placeholders, in their order.
    pub(super) fn placeholders(&self) -> Vec<&str> {
        let names = self.pieces.iter().filter_map(|piece| match piece {
            Piece::Placeholder(name) => Some(name.as_str()),
            _ => None,
        });
        names.collect()
    }

    /// The only name that matches, where there is but one.
    pub(super) fn exact(&self) -> Option<&str> {
        match self.pieces.as_slice() {
            [Piece::Text(text)] => Some(text),
            _ => None,
        }
    }

    /// What each placeholder binds in a name, or `None` where the name does not match.
    pub(super) fn bind<'a>(&self, name: &'a str) -> Option<Vec<&'a str>> {
        if self.pieces.contains(&Piece::Any) {
            return self.glob().matches(name).then(Vec::new);
        }
        let mut bound = Vec::new();
        let mut rest = name;
        let mut pieces = self.pieces.iter().peekable();
        while let Some(piece) = pieces.next() {
            match piece {
                Piece::Text(text) => rest = rest.strip_prefix(text.as_str())?,
                Piece::Placeholder(_) => {
                    let after = match pieces.peek() {
                        Some(Piece::Text(text)) => self.bindable_run(text),
                        _ => 0,
                    };
                    let value = self.bindable_run(rest).checked_sub(after)?;
                    // All of it is ASCII.
                    let (value, after) = rest.split_at_checked(value)?;
                    if matches!(value, "" | "." | "..") {
                        return None;
                    }
                    bound.push(value);
                    rest = after;
                }
                Piece::Any => return None,
            }
        }
        rest.is_empty().then_some(bound)
    }

    /// How many bytes at the beginning of a text a placeholder can bind.
    fn bindable_run(&self, text: &str) -> usize {
        text.bytes()
            .take_while(|&byte| self.kind.binds(byte))
            .count()
    }

    /// One without placeholders, as a pattern of a whole text.
    fn glob(&self) -> Glob {
        let mut glob = Glob::default();
        for piece in &self.pieces {
            match piece {
                Piece::Text(text) => glob.push_text(text),
                Piece::Any | Piece::Placeholder(_) => glob.push_any(),
            }
        }
        glob
    }

    /// Whether there is a name that both match.
    pub(super) fn overlaps(&self, other: &NamePattern) -> bool {
        if self.kind != other.kind {
            return false;
        }
        let (ours, theirs) = (self.letters(), other.letters());
        // Where both may stand after the same beginning of a name: a row for each of ours.
        let width = theirs.len() + 1;
        let mut row = vec![false; width];
        let mut below = vec![false; width];
        if let Some(start) = row.first_mut() {
            *start = true;
        }
        for at in 0..=ours.len() {
            below.fill(false);
            for other_at in 0..width {
                if !row.get(other_at).copied().unwrap_or(false) {
                    continue;
                }
                let (our, their) = (ours.get(at), theirs.get(other_at));
                if our.is_none() && their.is_none() {
                    return true;
                }
                let mut reach = |down: bool, right: bool| {
                    let row = if down { &mut below } else { &mut row };
                    if let Some(state) = row.get_mut(other_at + usize::from(right)) {
                        *state = true;
                    }
                };
                if our.is_some_and(|letter| letter.repeats()) {
                    reach(true, false);
                }
                if their.is_some_and(|letter| letter.repeats()) {
                    reach(false, true);
                }
                if let (Some(our), Some(their)) = (our, their)
                    && our.meets(*their, self.kind)
                {
                    // One that repeats may stay; where both do, nothing has moved.
                    match (our.repeats(), their.repeats()) {
                        (false, false) => reach(true, true),
                        (false, true) => reach(true, false),
                        (true, false) => reach(false, true),
                        (true, true) => {}
                    }
                }
            }
            std::mem::swap(&mut row, &mut below);
        }
        false
    }

    fn letters(&self) -> Vec<Letter> {
        let mut letters = Vec::new();
        for piece in &self.pieces {
            match piece {
                Piece::Text(text) => letters.extend(text.bytes().map(Letter::One)),
                Piece::Placeholder(_) => letters.extend([Letter::Bindable, Letter::Bindables]),
                Piece::Any => letters.push(Letter::Anything),
            }
        }
        letters
    }
}

/// A step of a pattern, byte by byte, to compare it with another's.
#[derive(Clone, Copy, Debug)]
enum Letter {
    /// This byte.
    One(u8),
    /// One that a placeholder binds.
    Bindable,
    /// Any number of those.
    Bindables,
    /// Any number of any.
    Anything,
}

impl Letter {
    /// Whether it stands for none, too, and for any number.
    fn repeats(self) -> bool {
        matches!(self, Letter::Bindables | Letter::Anything)
    }

    /// Whether a byte is of both.
    fn meets(self, other: Letter, kind: NameKind) -> bool {
        match (self, other) {
            (Letter::One(ours), Letter::One(theirs)) => ours == theirs,
            (Letter::One(byte), Letter::Bindable | Letter::Bindables)
            | (Letter::Bindable | Letter::Bindables, Letter::One(byte)) => kind.binds(byte),
            _ => true,
        }
    }
}

fn uri_pieces(text: &str) -> Result<Vec<Piece>, PatternError> {
    let pieces = pieces(text)?;
    let scheme = text.split(':').next().unwrap_or_default();
    let has_scheme = scheme.len() < text.len()
        && scheme.starts_with(|first: char| first.is_ascii_alphabetic())
        && scheme
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.'));
    if !has_scheme {
        return refused(
            "it must be a URI, such as spiffe://example/gateway/{gateway}, or a DNS name, such \
             as dns:{gateway}.gw.example",
        );
    }
    if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return refused("a URI has neither spaces nor letters beyond ASCII");
    }
    Ok(pieces)
}

fn dns_pieces(name: &str) -> Result<Vec<Piece>, PatternError> {
    let mut pieces = pieces(name)?;
    for piece in &mut pieces {
        if let Piece::Text(text) = piece {
            text.make_ascii_lowercase();
            let is_name = |byte| NameKind::Dns.binds(byte) || byte == b'.';
            if !text.bytes().all(is_name) {
                return refused("a DNS name has only letters of ASCII, digits, - and _");
            }
        }
    }
    if name.split('.').any(str::is_empty) {
        return refused("a label of the DNS name is empty");
    }
    Ok(pieces)
}

/// A pattern of gateways' ids, which may use what a credential's pattern binds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct IdPattern {
    parts: Vec<IdPart>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum IdPart {
    Text(String),
    /// The value of this placeholder of the credential.
    Bound(usize),
    Any,
}

impl IdPattern {
    /// Reads a pattern that may use these placeholders.
    pub(super) fn parse(text: &str, placeholders: &[&str]) -> Result<Self, PatternError> {
        let part = |piece| match piece {
            Piece::Text(text) => Ok(IdPart::Text(text)),
            Piece::Any => Ok(IdPart::Any),
            Piece::Placeholder(name) => {
                match placeholders.iter().position(|bound| *bound == name) {
                    Some(at) => Ok(IdPart::Bound(at)),
                    None => refused(format!("{{{name}}} is not in the principal's credential")),
                }
            }
        };
        let parts = pieces(text)?.into_iter().map(part);
        Ok(IdPattern {
            parts: parts.collect::<Result<_, _>>()?,
        })
    }

    /// The ids that it stands for, where the credential has bound these values. A value that
    /// is missing stands for nothing.
    pub(super) fn resolve(&self, bound: &[&str]) -> Option<Glob> {
        let mut glob = Glob::default();
        for part in &self.parts {
            match part {
                IdPart::Text(text) => glob.push_text(text),
                IdPart::Bound(at) => glob.push_text(bound.get(*at)?),
                IdPart::Any => glob.push_any(),
            }
        }
        Some(glob)
    }
}

/// Texts with any run of characters between each two of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Glob {
    first: String,
    /// Each after a `*`.
    others: Vec<String>,
}

impl Glob {
    /// Reads a text in which only `*` is special.
    pub(super) fn new(text: &str) -> Self {
        let mut texts = text.split('*').map(str::to_owned);
        Glob {
            first: texts.next().unwrap_or_default(),
            others: texts.collect(),
        }
    }

    fn push_text(&mut self, text: &str) {
        self.others
            .last_mut()
            .unwrap_or(&mut self.first)
            .push_str(text);
    }

    fn push_any(&mut self) {
        self.others.push(String::new());
    }

    pub(super) fn matches(&self, text: &str) -> bool {
        let Some((last, between)) = self.others.split_last() else {
            return text == self.first;
        };
        let ends = text
            .strip_prefix(self.first.as_str())
            .and_then(|rest| rest.strip_suffix(last.as_str()));
        let Some(mut rest) = ends else {
            return false;
        };
        for part in between {
            let Some((_, after)) = rest.split_once(part.as_str()) else {
                return false;
            };
            rest = after;
        }
        true
    }
}

#[cfg(test)]
mod tests;
