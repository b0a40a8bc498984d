//! spectral
