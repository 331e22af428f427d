"""Protobuf by hand, for what the library would not encode."""


def varint(number):
    encoded = b""
    while number > 0x7F:
        encoded += bytes([number & 0x7F | 0x80])
        number >>= 7
    return encoded + bytes([number])


def field(number, content):
    return varint(number << 3 | 2) + varint(len(content)) + content


def request(*events):
    return b"".join(field(1, event) for event in events)
