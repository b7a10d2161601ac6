//! What was never given back.

use std::fmt;

use xen::{DomainId, GrantRef, Port};

use crate::state::Sim;

/// Everything that domains hold at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Audit {
    /// Pages: domain and how many.
    pub pages: Vec<(DomainId, usize)>,
    /// Grants: granter, reference, and how often it is mapped.
    pub grants: Vec<(DomainId, GrantRef, u32)>,
    /// Mapped pages: mapper, granter, reference.
    pub mappings: Vec<(DomainId, DomainId, GrantRef)>,
    /// Open ports.
    pub ports: Vec<(DomainId, Port)>,
    /// Watches: domain, path, token.
    pub watches: Vec<(DomainId, String, String)>,
    /// Open transactions.
    pub transactions: Vec<(DomainId, u32)>,
}

impl Audit {
    /// Whether nothing is held.
    pub fn is_clean(&self) -> bool {
        *self == Self::default()
    }
}

impl fmt::Display for Audit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (id, count) in &self.pages {
            writeln!(f, "domain {id} holds {count} pages")?;
        }
        for (id, reference, mapped) in &self.grants {
            writeln!(f, "domain {id} grants {reference}, mapped {mapped} times")?;
        }
        for (id, from, reference) in &self.mappings {
            writeln!(f, "domain {id} maps {reference} of domain {from}")?;
        }
        for (id, port) in &self.ports {
            writeln!(f, "domain {id} holds port {port}")?;
        }
        for (id, path, token) in &self.watches {
            writeln!(f, "domain {id} watches {path} as {token}")?;
        }
        for (id, transaction) in &self.transactions {
            writeln!(f, "domain {id} is in transaction {transaction}")?;
        }
        Ok(())
    }
}

impl Sim {
    /// What every domain, dead ones included, holds now.
    pub fn audit(&self) -> Audit {
        let state = self.shared.lock();
        let mut audit = Audit::default();
        for (&id, resident) in &state.residents {
            if !resident.dead && resident.pages > 0 {
                audit.pages.push((id, resident.pages));
            }
            let grants = resident.grants.iter();
            audit.grants.extend(grants.map(|(reference, entry)| (id, reference, entry.mapped)));
            audit.ports.extend(resident.ports.iter().map(|port| (id, port)));
        }
        for mapping in state.mappings.values() {
            let each = mapping.references.iter();
            audit.mappings.extend(each.map(|&r| (mapping.mapper, mapping.from, r)));
        }
        audit.watches = state.store.watches().collect();
        audit.transactions = state.store.transactions().collect();
        audit
    }

    /// Panics, listing everything, unless nothing is held any more.
    ///
    /// # Panics
    /// If anything is.
    pub fn assert_clean(&self) {
        let audit = self.audit();
        assert!(audit.is_clean(), "left behind:\n{audit}");
    }
}
