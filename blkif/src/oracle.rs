//! The layouts against what a C compiler made of the public headers (`xen/abi/layout.txt`).

extern crate std;
use std::collections::BTreeMap;
use std::format;
use std::string::{String, ToString};
use std::vec::Vec;

use xen::GrantRef;

use crate::{
    Abi, DIRECT_SEGMENTS_MAX, INDIRECT, Operation, Request, Response, SEGMENTS_MAX, Segment,
    Segments, Status,
};

/// Lines `field struct NAME FIELD OFFSET SIZE` and `value NAME NUMBER`, by name.
fn table() -> BTreeMap<String, usize> {
    let mut table = BTreeMap::new();
    for line in include_str!("../../xen/abi/layout.txt").lines() {
        match line.split(' ').collect::<Vec<_>>()[..] {
            ["field", "struct", name, field, offset, _] => {
                table.insert(format!("{name}.{field}"), offset.parse().unwrap());
            }
            ["size", "struct", name, size] | ["value", name, size] => {
                if let Ok(size) = size.parse() {
                    table.insert(name.to_string(), size);
                }
            }
            _ => {}
        }
    }
    table
}

fn bytes(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

const ID: u64 = 0xa1a2_a3a4_a5a6_a7a8;
const SECTOR: u64 = 0xb1b2_b3b4_b5b6_b7b8;
const LENGTH: u64 = 0xc1c2_c3c4_c5c6_c7c8;

fn prefix(abi: Abi) -> &'static str {
    match abi {
        Abi::X86_64 => "blkif",
        Abi::X86_32 => "blkif32",
    }
}

#[test]
fn every_field_lies_where_the_compiler_put_it() {
    let table = table();
    for abi in [Abi::X86_64, Abi::X86_32] {
        let at = |name: &str| table[&format!("{}_{name}", prefix(abi))];
        let is = |bytes: &[u8], name: &str, value: &[u8]| {
            assert_eq!(bytes[at(name)..][..value.len()], *value, "{abi:?} {name}");
        };
        let segment = Segment { reference: GrantRef(0xd1d2_d3d4), first_sector: 2, last_sector: 6 };
        let segments = &[segment; 11][..];
        let request = Request::transfer(ID, Operation::Write, SECTOR, segments);
        let words = bytes(&request.words(abi, 0xe1e2));
        is(&words, "request.operation", &[1]);
        is(&words, "request.nr_segments", &[11]);
        is(&words, "request.handle", &0xe1e2_u16.to_le_bytes());
        is(&words, "request.id", &ID.to_le_bytes());
        is(&words, "request.sector_number", &SECTOR.to_le_bytes());
        for segment in words[at("request.seg")..].chunks(at("request_segment")) {
            is(segment, "request_segment.gref", &0xd1d2_d3d4_u32.to_le_bytes());
            is(segment, "request_segment.first_sect", &[2]);
            is(segment, "request_segment.last_sect", &[6]);
        }
        let words = bytes(&Request::discard(ID, SECTOR, LENGTH).words(abi, 0xe1e2));
        is(&words, "request_discard.operation", &[5]);
        is(&words, "request_discard.handle", &0xe1e2_u16.to_le_bytes());
        is(&words, "request_discard.id", &ID.to_le_bytes());
        is(&words, "request_discard.sector_number", &SECTOR.to_le_bytes());
        is(&words, "request_discard.nr_sectors", &LENGTH.to_le_bytes());
        let request = Request {
            segments: [segment; SEGMENTS_MAX].into(),
            ..Request::transfer(ID, Operation::Write, SECTOR, Segments::new())
        };
        let words = bytes(&request.indirect_words(abi, 0xe1e2, GrantRef(0xf1f2_f3f4)));
        is(&words, "request_indirect.operation", &[6]);
        is(&words, "request_indirect.indirect_op", &[1]);
        is(&words, "request_indirect.nr_segments", &32_u16.to_le_bytes());
        is(&words, "request_indirect.handle", &0xe1e2_u16.to_le_bytes());
        is(&words, "request_indirect.id", &ID.to_le_bytes());
        is(&words, "request_indirect.sector_number", &SECTOR.to_le_bytes());
        is(&words, "request_indirect.indirect_grefs", &0xf1f2_f3f4_u32.to_le_bytes());
        let response = Response { id: ID, operation: 5, status: Status::Unsupported };
        let words = bytes(&response.words(abi));
        assert_eq!(words.len(), at("response"));
        is(&words, "response.id", &ID.to_le_bytes());
        is(&words, "response.operation", &[5]);
        is(&words, "response.status", &(-2_i16).to_le_bytes());
    }
}

#[test]
fn numbers_are_those_of_the_headers() {
    let table = table();
    for (name, operation) in [
        ("READ", Operation::Read),
        ("WRITE", Operation::Write),
        ("FLUSH_DISKCACHE", Operation::Flush),
        ("DISCARD", Operation::Discard),
    ] {
        assert_eq!(table[&format!("BLKIF_OP_{name}")], usize::from(operation.wire()));
    }
    assert_eq!(table["BLKIF_OP_INDIRECT"], usize::from(INDIRECT));
    assert_eq!(table["BLKIF_MAX_SEGMENTS_PER_REQUEST"], DIRECT_SEGMENTS_MAX);
    // All our segments are in the first of the pages that the protocol has.
    assert!(SEGMENTS_MAX <= 4096 / table["blkif_request_segment"]);
}
