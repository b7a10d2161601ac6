//! What an attacker does, round by round.

use blkif::{Abi, Operation, Request, Segment};
use sim::Random;
use tests::torture::silly::{FRONT_KEYS, VALUES};
use xen::{Access, DomainId, Events, GrantRef, Grants};

use crate::SECTORS;
use crate::attacker::Attacker;

/// One round of an attack.
pub(super) type Script = fn(&mut Attacker, usize);

/// All attacks.
pub(super) const SCRIPTS: [(&str, Script); 22] = [
    ("events for nothing", events),
    ("events, and an event index anywhere", event_indexes),
    ("a full ring of the longest reads", longest),
    ("a full ring of rubbish", rubbish),
    ("every request with a grant of its own", fresh_grants),
    ("every request with a grant that is none", bad_grants),
    ("one bad grant behind 31 good ones", one_bad_grant),
    ("the longest ring full of flushes", flushes),
    ("flushes with data and nothing else", flushes_with_data),
    ("discards of the whole disk", discards),
    ("writes and flushes in turn", writes_and_flushes),
    ("answers are never taken", no_answers),
    ("slots change while in flight", slots),
    ("a broken ring and a new one, for ever", broken_rings),
    ("a new ring in every round", new_rings),
    ("all states, one in each round", states),
    ("the same state a hundred times", same_state),
    ("silly nodes and a new try, for ever", silly_nodes),
    ("nodes that change all the time", changing_nodes),
    ("as many nodes as xenstore allows", many_nodes),
    ("as many ports as there are", many_ports),
    ("its directory goes and comes", directory),
];

/// A request for one sector of each page.
fn one(operation: Operation, id: u64, sector: u64, grants: &[GrantRef]) -> Vec<u32> {
    let segment = |&reference| Segment { reference, first_sector: 3, last_sector: 3 };
    let segments: Vec<_> = grants.iter().map(segment).collect();
    Request::transfer(id, operation, sector, segments).words(Abi::X86_64, 0).to_vec()
}

fn sector(random: &mut Random) -> u64 {
    random.below(SECTORS - 88) as u64
}

fn events(attacker: &mut Attacker, _: usize) {
    let front = attacker.front(0, 1);
    (0..100).for_each(|_| front.notify());
    attacker.attacks += 100;
}

fn event_indexes(attacker: &mut Attacker, _: usize) {
    let wild = attacker.random.word();
    let front = attacker.front(0, 1);
    (0..20).for_each(|_| front.poke(3, wild));
    attacker.attacks += 20;
}

fn longest(attacker: &mut Attacker, _: usize) {
    attacker.front(0, 11);
    attacker.fill(|random, grants| {
        let segments: Vec<_> = grants.iter().map(|&it| Segment::whole(it)).collect();
        let request = Request::transfer(1, Operation::Read, sector(random), segments);
        request.words(Abi::X86_64, 0).to_vec()
    });
}

fn rubbish(attacker: &mut Attacker, _: usize) {
    attacker.front(0, 11);
    attacker.fill(|random, _| (0..28).map(|_| random.word()).collect());
}

fn fresh_grants(attacker: &mut Attacker, round: usize) {
    attacker.front(0, 11);
    if round < 60 {
        let front = attacker.front(0, 11);
        let fresh: Vec<GrantRef> = (0..32).map(|_| front.buffer()).collect();
        attacker.grants = fresh;
    }
    attacker.fill(|random, grants| {
        one(Operation::Read, 1, sector(random), &grants[random.below(grants.len())..][..1])
    });
}

fn bad_grants(attacker: &mut Attacker, _: usize) {
    attacker.front(0, 1);
    attacker.fill(|random, _| {
        let wild: Vec<GrantRef> = (0..11).map(|_| GrantRef(random.word())).collect();
        one(Operation::Write, 1, sector(random), &wild)
    });
}

fn one_bad_grant(attacker: &mut Attacker, _: usize) {
    attacker.front(0, 11);
    let mut put = 0;
    attacker.fill(|random, grants| {
        put += 1;
        let bad = [GrantRef(random.word())];
        one(Operation::Read, 1, sector(random), if put == 32 { &bad } else { grants })
    });
}

fn flushes(attacker: &mut Attacker, _: usize) {
    attacker.front(4, 1);
    attacker.fill(|_, _| one(Operation::Flush, 1, 0, &[]));
}

fn flushes_with_data(attacker: &mut Attacker, _: usize) {
    attacker.front(0, 11);
    attacker.fill(|random, grants| one(Operation::Flush, 1, sector(random), grants));
}

fn discards(attacker: &mut Attacker, _: usize) {
    attacker.front(0, 1);
    attacker.fill(|_, _| Request::discard(1, 0, SECTORS as u64).words(Abi::X86_64, 0).to_vec());
}

fn writes_and_flushes(attacker: &mut Attacker, _: usize) {
    attacker.front(0, 1);
    let mut turn = 0;
    attacker.fill(|random, grants| {
        turn += 1;
        match turn % 2 {
            0 => one(Operation::Flush, 1, 0, &[]),
            _ => one(Operation::Write, 1, sector(random), grants),
        }
    });
}

fn no_answers(attacker: &mut Attacker, _: usize) {
    attacker.front(0, 1);
    let request = one(Operation::Read, 1, 0, &attacker.grants);
    let front = attacker.front(0, 1);
    let mut put = 0;
    while front.put(&request) {
        put += 1;
    }
    front.publish();
    attacker.attacks += put;
}

fn slots(attacker: &mut Attacker, _: usize) {
    attacker.front(0, 11);
    attacker.fill(|random, grants| one(Operation::Write, 1, sector(random), grants));
    for _ in 0..200 {
        let (word, value) = (4 + attacker.random.below(900), attacker.random.word());
        attacker.front(0, 11).poke(word, value);
    }
}

fn broken_rings(attacker: &mut Attacker, round: usize) {
    if attacker.fronts.len() > 60 {
        return;
    }
    match round % 6 {
        0 => attacker.connect(0),
        3 => attacker.front(0, 0).poke(0, 1 << 20),
        4 => attacker.write("state", "6"),
        5 => attacker.write("state", "1"),
        _ => {}
    }
}

fn new_rings(attacker: &mut Attacker, round: usize) {
    if attacker.fronts.len() < 300 {
        attacker.connect(u32::try_from(round % 3).unwrap_or(0));
        attacker.write("state", "1");
        attacker.write("state", "4");
    }
}

fn states(attacker: &mut Attacker, round: usize) {
    attacker.front(0, 1);
    let states = ["1", "3", "4", "5", "6", "1", "4", "6", "2", "7", "", "3"];
    attacker.write("state", states[round % states.len()]);
}

fn same_state(attacker: &mut Attacker, _: usize) {
    attacker.front(0, 1);
    (0..100).for_each(|_| attacker.write("state", "4"));
}

fn silly_nodes(attacker: &mut Attacker, round: usize) {
    attacker.front(0, 1);
    let key = FRONT_KEYS[round / 4 % FRONT_KEYS.len()];
    match round % 4 {
        0 => attacker.write("state", "1"),
        1 => {
            let value = VALUES[attacker.random.below(VALUES.len())].unwrap_or_default();
            attacker.write(key, value);
            attacker.write("state", "3");
        }
        2 => attacker.remove(key),
        _ => attacker.write("state", "6"),
    }
}

fn changing_nodes(attacker: &mut Attacker, round: usize) {
    attacker.front(0, 1);
    for at in 0..50 {
        let key = FRONT_KEYS[at % FRONT_KEYS.len()];
        attacker.write(key, &round.to_string());
        attacker.write("state", if at % 2 == 0 { "3" } else { "1" });
    }
}

fn many_nodes(attacker: &mut Attacker, round: usize) {
    for at in 0..10 {
        attacker.write(&format!("nest-{}/{round}-{at}", at % 3), "x");
    }
}

fn many_ports(attacker: &mut Attacker, _: usize) {
    for _ in 0..20 {
        attacker.attacks += u64::from(attacker.domain.offer(DomainId::ZERO).is_ok());
    }
    // And grants that nobody asked for.
    if let Some(page) = attacker.domain.page() {
        let granted = attacker.domain.grant(&page, DomainId::ZERO, Access::Write);
        attacker.attacks += u64::from(granted.is_ok());
        std::mem::forget(page);
    }
}

fn directory(attacker: &mut Attacker, round: usize) {
    match round % 8 {
        0 => attacker.connect(0),
        4 => attacker.remove("state"),
        6 => attacker.write("state", "1"),
        _ => {}
    }
}
