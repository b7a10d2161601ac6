//! The words between the host and the agent in Dom0: frames on a virtio serial port.
//!
//! A frame is a length (of what follows, 32 bits, little endian), a kind (8 bits), the number of the
//! job it is about (32 bits) and its contents. Both ends are ours and start from the same sources, so
//! a frame that makes no sense is an error that ends the conversation, not something to repair.

use std::io::{self, Read, Write};

/// The most contents that a frame may carry.
pub const CONTENTS_MAX: usize = 64 * 1024;

const HEADER: usize = 5;

/// What a frame says. Orders go to Dom0, reports come from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// Order: run the contents with `sh -c`; nothing on its standard input.
    Run = 1,
    /// Order: the same, with standard input to follow.
    RunWithInput = 2,
    /// Order: standard input for a job; empty contents end it.
    Input = 3,
    /// Order: kill a job and what it started.
    Kill = 4,
    /// Report: the agent listens.
    Ready = 5,
    /// Report: output of a job, both streams in the order of writing.
    Output = 6,
    /// Report: a job's exit status, 4 bytes; 128 + N for signal N.
    Exit = 7,
    /// Report: lines added to a log file in Dom0: its name, a zero, the bytes.
    Log = 8,
}

impl Kind {
    fn from_byte(byte: u8) -> Option<Kind> {
        use Kind::{Exit, Input, Kill, Log, Output, Ready, Run, RunWithInput};
        let all = [Run, RunWithInput, Input, Kill, Ready, Output, Exit, Log];
        all.into_iter().find(|kind| *kind as u8 == byte)
    }
}

/// One message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// What it says.
    pub kind: Kind,
    /// The job that it is about; 0 where there is none.
    pub job: u32,
    /// Its contents, at most [`CONTENTS_MAX`] bytes.
    pub contents: Vec<u8>,
}

/// Sends one frame.
pub fn send(port: &mut impl Write, kind: Kind, job: u32, contents: &[u8]) -> io::Result<()> {
    let length = u32::try_from(HEADER + contents.len()).map_err(io::Error::other)?;
    let mut bytes = Vec::with_capacity(4 + HEADER + contents.len());
    bytes.extend_from_slice(&length.to_le_bytes());
    bytes.push(kind as u8);
    bytes.extend_from_slice(&job.to_le_bytes());
    bytes.extend_from_slice(contents);
    port.write_all(&bytes)
}

/// Receives one frame, waiting for it.
pub fn receive(port: &mut impl Read) -> io::Result<Frame> {
    let nonsense = |what: String| io::Error::new(io::ErrorKind::InvalidData, what);
    let mut length = [0; 4];
    port.read_exact(&mut length)?;
    let length = u32::from_le_bytes(length) as usize;
    if !(HEADER..=HEADER + CONTENTS_MAX).contains(&length) {
        return Err(nonsense(format!("a frame of {length} bytes")));
    }
    let mut bytes = vec![0; length];
    port.read_exact(&mut bytes)?;
    let kind = Kind::from_byte(bytes[0])
        .ok_or_else(|| nonsense(format!("a frame of kind {}", bytes[0])))?;
    let job = u32::from_le_bytes([bytes[1], bytes[2], bytes[3], bytes[4]]);
    Ok(Frame { kind, job, contents: bytes.split_off(HEADER) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_arrives_as_it_was_sent() {
        let mut port = Vec::new();
        send(&mut port, Kind::Output, 7, b"text").unwrap();
        send(&mut port, Kind::Input, 8, b"").unwrap();
        let mut port = &port[..];
        let first = Frame { kind: Kind::Output, job: 7, contents: b"text".to_vec() };
        assert_eq!(receive(&mut port).unwrap(), first);
        assert_eq!(receive(&mut port).unwrap().contents, b"");
        assert_eq!(receive(&mut port).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }

    #[test]
    fn a_frame_of_silly_length_or_kind_is_an_error() {
        for bytes in [
            [4, 0, 0, 0, 1, 0, 0, 0, 0],
            [255, 255, 255, 255, 1, 0, 0, 0, 0],
            [5, 0, 0, 0, 99, 0, 0, 0, 0],
        ] {
            let error = receive(&mut &bytes[..]).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        }
    }
}
