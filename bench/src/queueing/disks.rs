//! Modelled disks: how long a request takes, and how many go on at the same time.
//!
//! Figures are those of data sheets' middle, not of one product. Reads take as long as writes.

use sim::Random;

/// Sectors of 512 bytes of every disk: 256 GiB.
pub(super) const DISK_SECTORS: u64 = 256 << 21;

/// A kind of disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Model {
    /// Four SAS disks of 15,000 turns a minute as RAID-10, as hosts had them in 2009.
    Sas15k,
    /// An SSD behind SATA.
    SataSsd,
    /// An SSD behind `PCIe`.
    Nvme,
}

impl Model {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Sas15k, Self::SataSsd, Self::Nvme];

    /// What it is called.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Sas15k => "15k SAS RAID-10",
            Self::SataSsd => "SATA SSD",
            Self::Nvme => "NVMe",
        }
    }

    /// Requests that it takes at a time.
    pub const fn depth(self) -> usize {
        match self {
            // Two for each pair: one under the head, and one to go on with.
            Self::Sas15k => 4,
            Self::SataSsd => 32,
            Self::Nvme => 256,
        }
    }
}

/// Sectors that lie on one pair before the next has its turn.
const STRIPE: u64 = 128;
/// A write goes to both disks of a pair, so that four disks have two heads; reads are not spread over them
/// either.
const PAIRS: usize = 2;
/// From a track to the next one, and what is added for the whole way: the mean is 3.4 ms.
const SEEK_LEAST_NS: u64 = 200_000;
const SEEK_MORE_NS: f64 = 6_000_000.0;
/// One turn.
const TURN_NS: usize = 4_000_000;
/// A sector, at 120 MB/s.
const SAS_SECTOR_NS: u64 = 4_267;

/// Channels, a request's time, and each further sector's.
const SATA: (usize, u64, u64) = (4, 80_000, 900);
const NVME: (usize, u64, u64) = (32, 25_000, 150);

/// A disk at work.
#[derive(Debug)]
pub(super) struct Disk {
    model: Model,
    /// Pairs or channels: when each is free, and where its head is.
    lanes: Vec<Lane>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Lane {
    free_ns: u64,
    head: u64,
}

impl Disk {
    pub(super) fn new(model: Model) -> Self {
        let lanes = match model {
            Model::Sas15k => PAIRS,
            Model::SataSsd => SATA.0,
            Model::Nvme => NVME.0,
        };
        Self { model, lanes: vec![Lane::default(); lanes] }
    }

    /// Begins a request; gives when it has ended.
    pub(super) fn serve(
        &mut self,
        now_ns: u64,
        sector: u64,
        sectors: u64,
        random: &mut Random,
    ) -> u64 {
        let time = |(_, first, more): (usize, u64, u64)| first + (sectors - 1) * more;
        let (lane, time_ns) = match self.model {
            Model::Sas15k => {
                let lane = usize::from(sector / STRIPE % PAIRS as u64 == 1);
                let distance = self.lanes[lane].head.abs_diff(sector);
                self.lanes[lane].head = sector + sectors;
                (lane, turn_and_seek(distance, random) + sectors * SAS_SECTOR_NS)
            }
            Model::SataSsd => (self.first_free(), time(SATA)),
            Model::Nvme => (self.first_free(), time(NVME)),
        };
        let lane = &mut self.lanes[lane];
        lane.free_ns = now_ns.max(lane.free_ns) + time_ns;
        lane.free_ns
    }

    fn first_free(&self) -> usize {
        let lanes = self.lanes.iter().enumerate();
        lanes.min_by_key(|(_, lane)| lane.free_ns).map_or(0, |(at, _)| at)
    }
}

/// Until the head is where it must be: nothing if it is there.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "a share of the disk, and nanoseconds of some milliseconds"
)]
fn turn_and_seek(distance: u64, random: &mut Random) -> u64 {
    if distance == 0 {
        return 0;
    }
    let share = distance as f64 / DISK_SECTORS as f64;
    SEEK_LEAST_NS + (SEEK_MORE_NS * share.sqrt()) as u64 + random.below(TURN_NS) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_behind_the_last_one_needs_no_head_to_move() {
        let (mut disk, mut random) = (Disk::new(Model::Sas15k), Random::new(1));
        let first = disk.serve(0, 1 << 20, 8, &mut random);
        let second = disk.serve(first, (1 << 20) + 8, 8, &mut random);
        assert_eq!(second - first, 8 * SAS_SECTOR_NS);
        let third = disk.serve(second, 1 << 28, 8, &mut random);
        assert!(third - second > SEEK_LEAST_NS + 8 * SAS_SECTOR_NS);
    }

    #[test]
    fn channels_work_at_the_same_time_and_then_one_after_another() {
        let (mut disk, mut random) = (Disk::new(Model::SataSsd), Random::new(1));
        let ends: Vec<u64> =
            (0..9).map(|at| disk.serve(0, at << 20, 1, &mut random) / SATA.1).collect();
        assert_eq!(ends, [1, 1, 1, 1, 2, 2, 2, 2, 3]);
    }
}
