//! The words of Xen (ABI data) and what a domain may ask of it (the seam: small traits).
#![no_std]
