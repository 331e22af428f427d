//! The text of an access file: TOML, read key by key, so that each error names its line, its
//! principal and its key. No error repeats a value.

use std::collections::HashMap;
use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::pattern::{IdPattern, NamePattern};
use super::{AdminRole, EventKinds, Limits};
use crate::config::document::{Lines, unknown_key};

const FILE_KEYS: &[&str] = &["jwt", "principal"];
const JWT_KEYS: &[&str] = &["keys", "issuer", "audience"];
const CREDENTIAL_KEYS: &[&str] = &["certificate", "token_sha256", "jwt_subject", "unix_uid"];
const PRINCIPAL_KEYS: &[&str] = &[
    "name",
    "certificate",
    "token_sha256",
    "jwt_subject",
    "unix_uid",
    "subscribe",
    "publish",
    "admin",
    "max_streams",
    "events_per_second",
    "bytes_per_second",
];

/// The longest name of a principal, in bytes.
const MAX_NAME_BYTES: usize = 128;

/// What is wrong, and where: the line counts from 1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct DocumentError {
    pub(super) line: usize,
    pub(super) what: String,
}

/// What an access file says.
#[derive(Debug)]
pub(super) struct Document {
    pub(super) jwt: Option<JwtSection>,
    pub(super) principals: Vec<PrincipalSection>,
}

#[derive(Debug)]
pub(super) struct JwtSection {
    pub(super) line: usize,
    pub(super) keys: String,
    pub(super) issuer: String,
    pub(super) audience: String,
}

#[derive(Debug)]
pub(super) struct PrincipalSection {
    pub(super) name: String,
    /// Where its credential stands.
    pub(super) credential_line: usize,
    pub(super) credential: Credential,
    pub(super) subscribe: Vec<IdPattern>,
    pub(super) publish: EventKinds,
    pub(super) admin: AdminRole,
    pub(super) limits: Limits,
}

#[derive(Debug)]
pub(super) enum Credential {
    /// Names in certificates, or subjects of signed tokens.
    Names(NamePattern),
    /// At least one.
    Tokens(Vec<[u8; 32]>),
    UnixUid(u32),
}

impl Document {
    pub(super) fn parse(text: &str) -> Result<Self, DocumentError> {
        let lines = Lines::of(text);
        let root = DeTable::parse(text).map_err(|error| DocumentError {
            line: lines.at(error.span().unwrap_or_default()),
            what: error.message().to_owned(),
        })?;
        let root = Section {
            lines: &lines,
            name: String::new(),
            table: root.get_ref(),
            at: 0..0,
        };
        root.only(FILE_KEYS)?;
        let jwt = match root.find("jwt") {
            Some(value) => Some(read_jwt(&root.table(value, "[jwt]", "[jwt]")?)?),
            None => None,
        };
        let mut principals = Vec::new();
        let mut line_of = HashMap::new();
        if let Some(value) = root.find("principal") {
            let Some(sections) = value.get_ref().as_array() else {
                return root.wrong(value.span(), "principal: write it as [[principal]]");
            };
            for (at, value) in sections.iter().enumerate() {
                let number = format!("principal {}", at + 1);
                let section = root.table(value, &number, "[[principal]]")?;
                let (principal, name_line) = read_principal(section, jwt.is_some())?;
                if let Some(line) = line_of.insert(principal.name.clone(), name_line) {
                    let what = format!(
                        "principal {:?}: name: the principal at line {line} has the same one",
                        principal.name
                    );
                    return Err(DocumentError {
                        line: name_line,
                        what,
                    });
                }
                principals.push(principal);
            }
        }
        if principals.is_empty() {
            // An empty file is more likely torn than meant.
            return root.wrong(0..0, "it has no [[principal]], so nobody could do anything");
        }
        Ok(Document { jwt, principals })
    }
}

type Value<'a> = Spanned<DeValue<'a>>;

/// A table of the file, with what errors in it begin with.
struct Section<'a> {
    lines: &'a Lines,
    name: String,
    table: &'a DeTable<'a>,
    at: Range<usize>,
}

impl<'a> Section<'a> {
    fn wrong<T>(&self, at: Range<usize>, what: impl AsRef<str>) -> Result<T, DocumentError> {
        let between = if self.name.is_empty() { "" } else { ": " };
        Err(DocumentError {
            line: self.lines.at(at),
            what: format!("{}{between}{}", self.name, what.as_ref()),
        })
    }

    fn table(
        &self,
        value: &'a Value<'a>,
        name: &str,
        form: &str,
    ) -> Result<Section<'a>, DocumentError> {
        match value.get_ref().as_table() {
            Some(table) => Ok(Section {
                lines: self.lines,
                name: name.to_owned(),
                table,
                at: value.span(),
            }),
            None => self.wrong(value.span(), format!("{name}: write it as {form}")),
        }
    }

    /// There are no other keys than these.
    fn only(&self, keys: &[&str]) -> Result<(), DocumentError> {
        let unknown = self.table.keys();
        let unknown = unknown.filter(|key| !keys.contains(&key.get_ref().as_ref()));
        // The first in the file.
        match unknown.min_by_key(|key| key.span().start) {
            None => Ok(()),
            Some(key) => self.wrong(key.span(), unknown_key(key.get_ref(), keys)),
        }
    }

    fn find(&self, key: &str) -> Option<&'a Value<'a>> {
        self.table.get(key)
    }

    fn text(&self, key: &str) -> Result<Option<(&'a str, Range<usize>)>, DocumentError> {
        let Some(value) = self.find(key) else {
            return Ok(None);
        };
        match value.get_ref().as_str() {
            Some(text) => Ok(Some((text, value.span()))),
            None => self.wrong(value.span(), format!("{key}: it must be a string")),
        }
    }

    fn required(&self, key: &str) -> Result<(&'a str, Range<usize>), DocumentError> {
        match self.text(key)? {
            Some(("", at)) => self.wrong(at, format!("{key}: it is empty")),
            Some(found) => Ok(found),
            None => self.wrong(self.at.clone(), format!("{key} is missing")),
        }
    }

    fn texts(&self, key: &str) -> Result<Vec<(&'a str, Range<usize>)>, DocumentError> {
        let Some(value) = self.find(key) else {
            return Ok(Vec::new());
        };
        let must = format!("{key}: it must be an array of strings");
        let Some(items) = value.get_ref().as_array() else {
            return self.wrong(value.span(), must);
        };
        let items = items.iter().map(|item| match item.get_ref().as_str() {
            Some(text) => Ok((text, item.span())),
            None => self.wrong(item.span(), &must),
        });
        items.collect()
    }

    /// A whole number from 1.
    fn count(&self, key: &str, most: u64) -> Result<Option<u64>, DocumentError> {
        let Some(value) = self.find(key) else {
            return Ok(None);
        };
        match number(value).filter(|number| (1..=most).contains(number)) {
            Some(number) => Ok(Some(number)),
            None => {
                let must = format!("{key}: it must be a whole number from 1 to {most}");
                self.wrong(value.span(), must)
            }
        }
    }
}

fn number(value: &Value<'_>) -> Option<u64> {
    let integer = value.get_ref().as_integer()?;
    u64::from_str_radix(integer.as_str(), integer.radix()).ok()
}

fn read_jwt(section: &Section<'_>) -> Result<JwtSection, DocumentError> {
    section.only(JWT_KEYS)?;
    let (keys, at) = section.required("keys")?;
    Ok(JwtSection {
        line: section.lines.at(at),
        keys: keys.to_owned(),
        issuer: section.required("issuer")?.0.to_owned(),
        audience: section.required("audience")?.0.to_owned(),
    })
}

fn read_principal(
    mut section: Section<'_>,
    has_jwt: bool,
) -> Result<(PrincipalSection, usize), DocumentError> {
    // First, so that errors say whose they are.
    let (name, name_at) = section.required("name")?;
    if name.len() > MAX_NAME_BYTES || name.chars().any(char::is_control) {
        let must = format!("name: it must have 1 to {MAX_NAME_BYTES} bytes, no control characters");
        return section.wrong(name_at, must);
    }
    section.name = format!("principal {name:?}");
    section.only(PRINCIPAL_KEYS)?;

    let (credential, at) = read_credential(&section)?;
    if section.find("jwt_subject").is_some() && !has_jwt {
        return section.wrong(
            at,
            "jwt_subject: it needs a [jwt] section, which names the keys",
        );
    }
    let placeholders = match &credential {
        Credential::Names(pattern) => pattern.placeholders(),
        _ => Vec::new(),
    };
    let mut subscribe = Vec::new();
    for (text, at) in section.texts("subscribe")? {
        match IdPattern::parse(text, &placeholders) {
            Ok(pattern) => subscribe.push(pattern),
            Err(error) => return section.wrong(at, format!("subscribe: {error}")),
        }
    }
    let limits = Limits {
        max_streams: section
            .count("max_streams", u32::MAX.into())?
            .and_then(|streams| u32::try_from(streams).ok()),
        events_per_second: section.count("events_per_second", i64::MAX as u64)?,
        bytes_per_second: read_size(&section, "bytes_per_second")?,
    };
    let principal = PrincipalSection {
        name: name.to_owned(),
        credential_line: section.lines.at(at),
        publish: read_kinds(&section)?,
        admin: read_role(&section)?,
        subscribe,
        limits,
        credential,
    };
    Ok((principal, section.lines.at(name_at)))
}

/// The one credential of a principal, and where it stands.
fn read_credential(section: &Section<'_>) -> Result<(Credential, Range<usize>), DocumentError> {
    let present = |key: &&&str| section.find(key).is_some();
    let shown: Vec<&str> = CREDENTIAL_KEYS.iter().filter(present).copied().collect();
    let (key, value) = match shown.as_slice() {
        [key] => match section.find(key) {
            Some(value) => (*key, value),
            None => return section.wrong(section.at.clone(), "it has no credential"),
        },
        [] => {
            let one_of = format!(
                "it has no credential: one of {}",
                CREDENTIAL_KEYS.join(", ")
            );
            return section.wrong(section.at.clone(), one_of);
        }
        several => {
            let two = format!(
                "it has {} credentials ({}), and must have exactly one",
                several.len(),
                several.join(", ")
            );
            return section.wrong(section.at.clone(), two);
        }
    };
    let at = value.span();
    let credential = match key {
        "token_sha256" => Credential::Tokens(read_hashes(section)?),
        "unix_uid" => {
            let uid = number(value).and_then(|uid| u32::try_from(uid).ok());
            // The last one stands for none (setresuid(2)).
            match uid.filter(|uid| *uid != u32::MAX) {
                Some(uid) => Credential::UnixUid(uid),
                None => return section.wrong(at, "unix_uid: it must be a user id, a whole number"),
            }
        }
        _ => {
            let (text, _) = section.required(key)?;
            let pattern = match key {
                "certificate" => NamePattern::certificate(text),
                _ => NamePattern::subject(text),
            };
            match pattern {
                Ok(pattern) => Credential::Names(pattern),
                Err(error) => return section.wrong(at, format!("{key}: {error}")),
            }
        }
    };
    Ok((credential, at))
}

/// One hash, or an array of them while a token is replaced by the next.
fn read_hashes(section: &Section<'_>) -> Result<Vec<[u8; 32]>, DocumentError> {
    let texts = match section.find("token_sha256").map(Spanned::get_ref) {
        Some(DeValue::Array(_)) => section.texts("token_sha256")?,
        _ => vec![section.required("token_sha256")?],
    };
    if texts.is_empty() {
        return section.wrong(section.at.clone(), "token_sha256: the array is empty");
    }
    let mut hashes = Vec::new();
    for (text, at) in texts {
        // The text may be the token itself, by mistake.
        let Some(hash) = hash(text) else {
            return section.wrong(
                at,
                format!(
                    "token_sha256: it must be the SHA-256 of the token, 64 hexadecimal digits; \
                     this has {} characters",
                    text.chars().count()
                ),
            );
        };
        if hashes.contains(&hash) {
            return section.wrong(at, "token_sha256: it is in the array twice");
        }
        hashes.push(hash);
    }
    Ok(hashes)
}

fn hash(hex: &str) -> Option<[u8; 32]> {
    let digits: Option<Vec<u8>> = hex
        .chars()
        .map(|digit| {
            digit
                .to_digit(16)
                .and_then(|digit| u8::try_from(digit).ok())
        })
        .collect();
    let bytes: Vec<u8> = match digits?.as_chunks::<2>() {
        (pairs, []) => pairs.iter().map(|[high, low]| high << 4 | low).collect(),
        _ => return None,
    };
    bytes.try_into().ok()
}

fn read_kinds(section: &Section<'_>) -> Result<EventKinds, DocumentError> {
    let mut kinds = EventKinds::default();
    for (text, at) in section.texts("publish")? {
        match text {
            "client_event" => kinds.client_event = true,
            "session_invalidation" => kinds.session_invalidation = true,
            _ => {
                let must = "publish: it may have \"client_event\" and \"session_invalidation\"";
                return section.wrong(at, must);
            }
        }
    }
    Ok(kinds)
}

fn read_role(section: &Section<'_>) -> Result<AdminRole, DocumentError> {
    let Some((text, at)) = section.text("admin")? else {
        return Ok(AdminRole::None);
    };
    match text {
        "none" => Ok(AdminRole::None),
        "read" => Ok(AdminRole::Read),
        "write" => Ok(AdminRole::Write),
        _ => section.wrong(at, "admin: it must be \"none\", \"read\" or \"write\""),
    }
}

/// A size, as the command line writes it, or a number of bytes.
fn read_size(section: &Section<'_>, key: &str) -> Result<Option<u64>, DocumentError> {
    let Some(value) = section.find(key) else {
        return Ok(None);
    };
    let size = match value.get_ref().as_str() {
        Some(text) => text
            .trim()
            .parse::<bytesize::ByteSize>()
            .ok()
            .map(|size| size.as_u64()),
        None => number(value),
    };
    match size.filter(|size| *size > 0) {
        Some(size) => Ok(Some(size)),
        None => {
            let must =
                "it must be a size of at least 1 byte, such as 65536, \"512KiB\" or \"64MiB\"";
            section.wrong(value.span(), format!("{key}: {must}"))
        }
    }
}
