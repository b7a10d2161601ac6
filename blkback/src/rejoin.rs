//! A guest that comes back: `xl reboot` makes a new domain of the same UUID, which is to find its
//! disks again.
//!
//! The back's directory is the memory. It names the guest's UUID (`vm`), and when the domain is
//! gone it stays for a while: a daemon that is started anew finds it there, and whoever removes it
//! has made it forgotten. It moves to the new domain in one transaction, so that a disk never
//! belongs to two lives. What a guest could write itself is not believed: `vm` and `name` are Dom0's
//! nodes in the domain's directory.

use std::collections::BTreeMap;
use std::path::Path;

use xen::{DomainId, Store, StoreError, Transaction};

use crate::attach::{self, AttachError};
use crate::directory::{DeviceId, Wish, devices};
use crate::spec::DiskSpec;

/// The node that says that nobody has attached the disk to this domain: it followed its guest.
const REJOINED: &str = "rejoined";

/// Which guest a domain is a life of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The path of its UUID, the same in every life: `/vm/UUID`.
    pub vm: String,
    /// Its name; empty if it has none.
    pub name: String,
}

impl Identity {
    /// Reads it; `None` if there is no such domain, or nobody gave it a UUID.
    ///
    /// # Errors
    /// What xenstore says.
    pub fn read(
        store: &impl Store,
        within: Transaction,
        domain: DomainId,
    ) -> Result<Option<Self>, StoreError> {
        let node = |key: &str| store.read(within, &format!("/local/domain/{domain}/{key}"));
        let Some(vm) = node("vm")?.filter(|vm| !vm.is_empty()) else { return Ok(None) };
        Ok(Some(Self { vm, name: node("name")?.unwrap_or_default() }))
    }
}

/// The domain of every guest that lives; of several lives of one guest the highest number.
///
/// # Errors
/// What xenstore says.
pub fn lives(store: &impl Store) -> Result<BTreeMap<String, DomainId>, StoreError> {
    let mut domains: Vec<u16> = store
        .list(Transaction::NONE, "/local/domain")?
        .iter()
        .filter_map(|id| id.parse().ok())
        .collect();
    domains.sort_unstable();
    let mut found = BTreeMap::new();
    for domain in domains.into_iter().map(DomainId) {
        if let Some(Identity { vm, .. }) = Identity::read(store, Transaction::NONE, domain)? {
            found.insert(vm, domain);
        }
    }
    Ok(found)
}

/// Moves a disk whose guest is gone to the guest's new domain. Tells whether it is attached there
/// now: not if it was detached meanwhile, or if another disk has its place.
///
/// # Errors
/// Xenstore; then nothing has changed.
pub fn rejoin(
    store: &impl Store,
    server: DomainId,
    old: DeviceId,
    guest: DomainId,
) -> Result<Option<DeviceId>, AttachError> {
    let new = DeviceId { guest, ..old };
    let moved = store.transact(|within| {
        let back = old.back(server);
        let online = store.read(within, &format!("{back}/online"))?;
        let (Some(wish), Some("1")) = (Wish::read(store, within, &back)?, online.as_deref()) else {
            return Ok(false);
        };
        let identity = Identity::read(store, within, guest)?;
        if identity.as_ref().map(|it| &it.vm) != wish.vm.as_ref() {
            return Ok(false);
        }
        let target = wish.image.display().to_string();
        let spec =
            DiskSpec { target, vdev: wish.vdev, number: old.vdev, read_only: wish.read_only };
        let plan = attach::plan(server, guest, &spec, identity.as_ref());
        let moved = attach::make_both(store, within, &plan)?;
        if moved {
            store.write(within, &format!("{}/{REJOINED}", new.back(server)), "1")?;
        }
        attach::remove_back(store, within, server, old)?;
        Ok(moved)
    })?;
    Ok(moved.then_some(new))
}

/// Whether a disk has come back by itself and is what is now asked for, too; that is said once.
pub(crate) fn confirm(
    store: &impl Store,
    within: Transaction,
    server: DomainId,
    id: DeviceId,
    spec: &DiskSpec,
) -> Result<bool, StoreError> {
    let (back, node) = (id.back(server), format!("{}/{REJOINED}", id.back(server)));
    let Some(wish) = Wish::read(store, within, &back)? else { return Ok(false) };
    let same = wish.image == Path::new(&spec.target) && wish.read_only == spec.read_only;
    if !same || store.read(within, &node)?.is_none() {
        return Ok(false);
    }
    store.remove(within, &node)?;
    Ok(true)
}

/// The domain of a name or a number that has a disk of ours or had one in its last life.
///
/// # Errors
/// [`AttachError::NoDomain`], or xenstore.
pub fn find_holder(
    store: &impl Store,
    server: DomainId,
    text: &str,
) -> Result<DomainId, AttachError> {
    match attach::find_domain(store, text) {
        Err(AttachError::NoDomain(_)) => {}
        found => return found,
    }
    for id in devices(store, server)? {
        let name = format!("{}/domain", id.back(server));
        let named = store.read(Transaction::NONE, &name)?.is_some_and(|name| name == text);
        if named || id.guest.to_string() == text {
            return Ok(id.guest);
        }
    }
    Err(AttachError::NoDomain(text.into()))
}

#[cfg(test)]
mod tests {
    use sim::{Domain, Sim};

    use super::*;

    const SERVER: DomainId = DomainId::ZERO;
    const OLD: DeviceId = DeviceId { guest: DomainId(3), vdev: 51712 };

    /// Domain 0 of a machine where guest `web` had a disk in domain 3 and lives in domain 4, and
    /// `db` in domain 5.
    fn scene() -> Domain {
        let sim = Sim::new(1);
        let dom0 = sim.domain(SERVER);
        for (id, name) in [(3, "web"), (4, "web"), (5, "db")] {
            sim.guest(DomainId(id), &[("vm", &format!("/vm/{name}")), ("name", name)]);
        }
        let spec = DiskSpec::parse("vdev=xvda,access=ro,target=/images/a,b.img").unwrap();
        attach::attach(&dom0, SERVER, OLD.guest, &spec).unwrap();
        dom0.remove(Transaction::NONE, "/local/domain/3").unwrap();
        dom0
    }

    #[test]
    fn a_disk_moves_as_it_was_and_only_to_its_own_guest() {
        let dom0 = scene();
        assert_eq!(rejoin(&dom0, SERVER, OLD, DomainId(5)).unwrap(), None);
        assert_eq!(rejoin(&dom0, SERVER, OLD, DomainId(6)).unwrap(), None, "no such domain");
        assert_eq!(find_holder(&dom0, SERVER, "3").unwrap(), DomainId(3));
        let new = rejoin(&dom0, SERVER, OLD, DomainId(4)).unwrap().unwrap();
        assert_eq!(devices(&dom0, SERVER).unwrap(), [new]);
        let wish = Wish::read(&dom0, Transaction::NONE, &new.back(SERVER)).unwrap().unwrap();
        assert_eq!((wish.vdev.as_str(), wish.read_only), ("xvda", true));
        assert_eq!((wish.image, wish.vm.unwrap().as_str()), ("/images/a,b.img".into(), "/vm/web"));
        assert!(find_holder(&dom0, SERVER, "3").is_err());
    }

    #[test]
    fn a_disk_whose_end_was_asked_for_does_not_move() {
        let dom0 = scene();
        attach::ask_to_close(&dom0, SERVER, OLD).unwrap();
        assert_eq!(rejoin(&dom0, SERVER, OLD, DomainId(4)).unwrap(), None);
        assert_eq!(devices(&dom0, SERVER).unwrap(), [OLD]);
    }

    #[test]
    fn of_several_lives_the_last_counts() {
        let dom0 = scene();
        let found = lives(&dom0).unwrap();
        assert_eq!((found["/vm/web"], found["/vm/db"], found.len()), (DomainId(4), DomainId(5), 2));
    }
}
