//! What this machine's CPU offers, and which path runs.

use std::fmt;

use crate::cpu::detect::Detected;
use crate::precision::Precision;

/// What the CPU offers; prints as one line for a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Capabilities {
    /// The f32 path in use, for example `AVX-512`.
    pub f32_path: &'static str,
    /// The f64 path in use.
    pub f64_path: &'static str,
    /// Instructions for [`Precision::Bf16`], or `None` where it runs as f32.
    pub bf16_path: Option<&'static str>,
    /// How [`Precision::F32Fast`] is computed.
    pub f32_fast_path: &'static str,
    /// Threads that the operators use.
    pub threads: usize,
}

/// Asks the CPU.
pub fn capabilities() -> Capabilities {
    Capabilities {
        f32_path: f32::kernels().name,
        f64_path: f64::kernels().name,
        bf16_path: f32::kernels().bf16.as_ref().map(|bf16| bf16.name),
        f32_fast_path: match &f32::kernels().bf16 {
            Some(bf16) if bf16.matrix_unit => "three bf16 products on AMX",
            _ => "F(4, 3) Winograd filtering",
        },
        threads: rayon::current_num_threads(),
    }
}

impl Capabilities {
    /// What `precision` runs as on this machine.
    pub fn path(&self, precision: Precision) -> &'static str {
        match precision {
            Precision::F32 | Precision::Tf32 => self.f32_path,
            Precision::F32Fast => self.f32_fast_path,
            Precision::Bf16 => self.bf16_path.unwrap_or(self.f32_path),
        }
    }
}

impl Capabilities {
    /// What `precision` means on this machine, as a line for a log.
    pub fn announcement(&self, precision: Precision) -> String {
        let path = self.path(precision);
        match precision {
            Precision::F32 | Precision::Tf32 => format!("convolutions in f32 by {path}"),
            Precision::F32Fast => format!("convolutions in f32-fast by {path}"),
            Precision::Bf16 if self.bf16_path.is_none() => {
                format!("convolutions in f32 by {path}: this processor does not multiply bf16")
            }
            Precision::Bf16 => format!("convolutions in bf16 by {path}, sums in f32"),
        }
    }
}

impl fmt::Display for Capabilities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "CPU: {} threads, f32 by {}, f64 by {}, bf16 {}, f32-fast by {}",
            self.threads,
            self.f32_path,
            self.f64_path,
            self.bf16_path.map_or("runs as f32".into(), |path| format!("by {path}")),
            self.f32_fast_path,
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bf16_without_instructions_is_said_to_be_f32() {
        let without = Capabilities { bf16_path: None, ..capabilities() };
        assert!(without.announcement(Precision::Bf16).contains("does not multiply bf16"));
        let with = Capabilities { bf16_path: Some("AMX"), ..capabilities() };
        assert_eq!(with.announcement(Precision::Bf16), "convolutions in bf16 by AMX, sums in f32");
    }
}
