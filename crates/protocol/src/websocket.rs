//! RFC 6455, the part a server needs.

/// Most bytes a frame header of a server can take (servers do not mask).
pub const HEADER_BYTES_MAX: usize = 10;

/// Writes the header of an unfragmented text frame of `text_bytes`; answers how many bytes were used.
pub fn write_server_header(header: &mut [u8; HEADER_BYTES_MAX], text_bytes: usize) -> usize {
    header[0] = 0x81;
    match text_bytes {
        0..=125 => {
            header[1] = text_bytes as u8;
            2
        }
        126..=0xffff => {
            header[1] = 126;
            header[2..4].copy_from_slice(&(text_bytes as u16).to_be_bytes());
            4
        }
        _ => {
            header[1] = 127;
            header[2..10].copy_from_slice(&(text_bytes as u64).to_be_bytes());
            10
        }
    }
}
