//! Header blocks (HPACK, RFC 7541) as a client writes them, also those that no honest
//! client would.

/// A header block under way. Strings are not Huffman-coded.
#[derive(Clone, Debug, Default)]
pub struct HeaderBlock(Vec<u8>);

/// The static table's size: the newest entry of the dynamic table comes right after it.
const STATIC_ENTRIES: usize = 61;

impl HeaderBlock {
    pub fn new() -> Self {
        HeaderBlock::default()
    }

    /// The head of a gRPC call.
    pub fn call(path: &str) -> Self {
        HeaderBlock::request("POST", path).literal("content-type", "application/grpc")
    }

    /// A request's pseudo-header fields.
    pub fn request(method: &str, path: &str) -> Self {
        HeaderBlock::new()
            .literal(":method", method)
            .literal(":scheme", "http")
            .literal(":path", path)
            .literal(":authority", "localhost")
    }

    /// A field that leaves no entry in the dynamic table (section 6.2.2).
    pub fn literal(mut self, name: &str, value: &str) -> Self {
        self.number(0x00, 4, 0);
        self.field(name, value)
    }

    /// A field that becomes the newest entry of the dynamic table (section 6.2.1).
    pub fn stored(mut self, name: &str, value: &str) -> Self {
        self.number(0x40, 6, 0);
        self.field(name, value)
    }

    /// A field that is in the dynamic table; the newest has the age 0 (section 6.1).
    pub fn entry(mut self, age: usize) -> Self {
        self.number(0x80, 7, STATIC_ENTRIES + 1 + age);
        self
    }

    /// A literal whose value is announced with `length` bytes, and does not come.
    pub fn announced(mut self, name: &str, length: usize) -> Self {
        self.number(0x00, 4, 0);
        self.string(name);
        self.number(0, 7, length);
        self
    }

    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    fn field(mut self, name: &str, value: &str) -> Self {
        self.string(name);
        self.string(value);
        self
    }

    fn string(&mut self, string: &str) {
        self.number(0, 7, string.len());
        self.0.extend(string.as_bytes());
    }

    /// A number behind a pattern of bits (section 5.1).
    fn number(&mut self, pattern: u8, prefix_bits: u32, number: usize) {
        let most = (1 << prefix_bits) - 1;
        if number < most {
            self.0.push(pattern | number as u8);
            return;
        }
        self.0.push(pattern | most as u8);
        let mut rest = number - most;
        while rest >= 0x80 {
            self.0.push(rest as u8 | 0x80);
            rest >>= 7;
        }
        self.0.push(rest as u8);
    }
}
