//! Wild words in the ring itself.

use blkif::{Abi, Operation};
use sim::Random;
use xen::DomainId;

use crate::{Stage, one_page};

#[test]
fn every_wild_producer_index_closes_the_device_with_a_reason_and_nobody_else() {
    let near: Vec<u32> = (34..40).chain([64, 1 << 16, 1 << 31, u32::MAX, u32::MAX - 31]).collect();
    for index in near {
        let mut stage = Stage::new(u64::from(index));
        let mut front = stage.connect(Abi::X86_64, 0);
        let good = front.buffer();
        assert!(front.put(&one_page(Operation::Write, 1, 0, good)));
        front.publish();
        stage.settle();
        front.poke(0, index);
        stage.settle();
        let reason = stage.assert_refused(&index.to_string());
        assert!(reason.contains("ring index"), "{reason}");
        let mapped = stage.world.sim.audit().mappings;
        assert!(mapped.iter().all(|mapping| mapping.1 != DomainId(5)), "{mapped:?}");
        stage.end(front);
    }
}

#[test]
fn rubbish_anywhere_in_the_ring_is_survived() {
    for seed in 0..60 {
        let mut stage = Stage::new(seed);
        let order = u32::try_from(seed % 5).expect("small");
        let mut front = stage.connect(Abi::X86_64, order);
        let mut random = Random::new(seed);
        let _ = front.buffer();
        for _ in 0..200 {
            let word = match random.below(3) {
                0 => random.below(4),
                _ => random.below(front.words()),
            };
            let value = match random.below(3) {
                0 => u32::try_from(random.below(600)).expect("small"),
                1 => u32::from_le_bytes([1, 1, 0, 0]),
                _ => random.word(),
            };
            front.poke(word, value);
            if random.below(4) == 0 {
                stage.settle();
            }
        }
        stage.settle();
        stage.end(front);
    }
}
