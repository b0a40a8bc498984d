//! AMX, the matrix unit of recent Xeons: products of bf16 pairs, 16 × 16 sums at a time.
//!
//! The instructions are written in assembly, because their intrinsics are not stable. Linux grants the unit per
//! process, and every thread loads the shape of its tiles.

use std::arch::asm;
use std::arch::x86_64::{__cpuid, __cpuid_count, _xgetbv};
use std::ptr::copy_nonoverlapping;

use super::bf16::Bf16Pair;
use super::dense::{self, Dense};

/// Rows of a tile, columns of a tile of sums, and pairs in a row of factors.
pub(super) const TILE: usize = 16;

/// Whether processor and system have the unit, and the product computes what AVX-512 computes. Asks for permission
/// to use it.
pub(super) fn available() -> bool {
    supported() && permitted() && agrees()
}

/// AMX-TILE and AMX-BF16, with their state saved by the system.
fn supported() -> bool {
    const TILE_STATE: u64 = 0b11 << 17;
    const OSXSAVE: u32 = 1 << 27;
    const AMX_BF16: u32 = 1 << 22;
    const AMX_TILE: u32 = 1 << 24;
    let features = __cpuid_count(7, 0).edx;
    let saves = __cpuid(1).ecx & OSXSAVE != 0;
    // SAFETY: a processor with OSXSAVE has XGETBV.
    saves
        && features & (AMX_BF16 | AMX_TILE) == AMX_BF16 | AMX_TILE
        && unsafe { state() } & TILE_STATE == TILE_STATE
}

#[target_feature(enable = "xsave")]
fn state() -> u64 {
    // SAFETY: register 0 exists wherever the instruction does.
    unsafe { _xgetbv(0) }
}

#[cfg(target_os = "linux")]
fn permitted() -> bool {
    const ARCH_REQ_XCOMP_PERM: libc::c_long = 0x1023;
    const TILE_DATA: libc::c_long = 18;
    // SAFETY: the call takes two numbers and changes nothing but this process' permission.
    unsafe { libc::syscall(libc::SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, TILE_DATA) == 0 }
}

#[cfg(not(target_os = "linux"))]
fn permitted() -> bool {
    false
}

/// A product of small whole numbers, which bf16 holds exactly, against AVX-512.
fn agrees() -> bool {
    let (rows, depth, columns) = (37, 2 * TILE, 3 * TILE);
    let pair = |i: usize| {
        let half = |i: usize| (((i * 7919 % 17) as f32) - 8.0).to_bits() >> 16;
        Bf16Pair(half(2 * i + 1) << 16 | half(2 * i))
    };
    let left: Vec<Bf16Pair> = (0..rows * depth).map(pair).collect();
    let panel: Vec<Bf16Pair> = (0..depth * columns).map(|i| pair(i + 5)).collect();
    let run = |product: unsafe fn(&Dense<f32, Bf16Pair>)| {
        let mut out = vec![1.0; rows * columns];
        let (left, panel) = (left.as_ptr(), panel.as_ptr());
        let matrices = Dense {
            rows,
            depth,
            columns,
            left,
            left_stride: depth,
            panel,
            width: columns,
            out: out.as_mut_ptr(),
            out_stride: columns,
            accumulate: true,
        };
        // SAFETY: the matrices have these sizes; the unit has been asked for.
        unsafe { product(&matrices) };
        out
    };
    run(product) == run(dense::avx512_bf16)
}

/// What `ldtilecfg` reads: palette 1, eight tiles of 16 rows of 64 bytes.
#[derive(PartialEq)]
#[repr(C, align(64))]
struct TileConfig {
    palette: u8,
    start_row: u8,
    reserved: [u8; 14],
    bytes_per_row: [u16; 16],
    rows: [u8; 16],
}

const CONFIG: TileConfig = {
    let mut bytes_per_row = [0; 16];
    let mut rows = [0; 16];
    let mut tile = 0;
    while tile < 8 {
        bytes_per_row[tile] = 64;
        rows[tile] = TILE as u8;
        tile += 1;
    }
    TileConfig { palette: 1, start_row: 0, reserved: [0; 14], bytes_per_row, rows }
};

/// Sees to it that this thread's tiles have their shape. It asks the processor rather than a variable, which would not
/// notice that other code on this thread had changed it; asking takes a tenth of the time of loading.
///
/// # Safety
/// The process has the permission to use the unit.
unsafe fn configure() {
    let mut current = TileConfig { palette: 0, bytes_per_row: [0; 16], rows: [0; 16], ..CONFIG };
    // SAFETY: both are 64 bytes, the first writable, the second a valid configuration. Tiles hold nothing between two
    // products: by the calling convention they belong to whoever runs.
    unsafe {
        asm!("sttilecfg [{}]", in(reg) &raw mut current, options(nostack));
        if current != CONFIG {
            asm!("ldtilecfg [{}]", in(reg) &CONFIG, options(nostack, readonly));
        }
    }
}

/// A product of pairs: 32 × 32 sums at a time, then 16 × 16. The depth is a multiple of 16 pairs. Rows that fill no tile
/// are summed beside rows of zeros: AVX-512 adds in another order, and a row must not depend on its company.
///
/// # Safety
/// All pointers are valid for the sizes that the product states; [`available`] has returned true.
pub(super) unsafe fn product(product: &Dense<f32, Bf16Pair>) {
    // The loops count the depth down to zero.
    assert!(product.depth > 0 && product.depth.is_multiple_of(TILE) && product.columns.is_multiple_of(TILE));
    let tiled = product.rows / TILE * TILE;
    // SAFETY: blocks lie inside the product (caller's promise for the rest).
    unsafe {
        configure();
        for row in (0..tiled).step_by(2 * TILE) {
            for column in (0..product.columns).step_by(2 * TILE) {
                if tiled - row >= 2 * TILE && product.columns - column >= 2 * TILE {
                    block_of_four(product, row, column);
                    continue;
                }
                for row in (row..tiled.min(row + 2 * TILE)).step_by(TILE) {
                    for column in (column..product.columns.min(column + 2 * TILE)).step_by(TILE) {
                        block(product, row, column);
                    }
                }
            }
        }
        if tiled < product.rows {
            rest(product, tiled);
        }
    }
}

/// The rows from `first` on, fewer than 16.
///
/// # Safety
/// As [`product`].
unsafe fn rest(product: &Dense<f32, Bf16Pair>, first: usize) {
    let Dense { rows, depth, columns, left_stride, out_stride, .. } = *product;
    let mut left = vec![Bf16Pair::ZERO; TILE * depth];
    let mut out = vec![0.0; TILE * columns];
    // SAFETY: rows of `depth` and of `columns` values lie inside the product (caller's promise) and the buffers.
    unsafe {
        for row in 0..rows - first {
            let from = product.left.add((first + row) * left_stride);
            copy_nonoverlapping(from, left[row * depth..][..depth].as_mut_ptr(), depth);
            if product.accumulate {
                let from = product.out.add((first + row) * out_stride);
                copy_nonoverlapping(from, out[row * columns..][..columns].as_mut_ptr(), columns);
            }
        }
        let whole = Dense {
            rows: TILE,
            left: left.as_ptr(),
            left_stride: depth,
            out: out.as_mut_ptr(),
            out_stride: columns,
            ..*product
        };
        self::product(&whole);
        for row in 0..rows - first {
            let to = product.out.add((first + row) * out_stride);
            copy_nonoverlapping(out[row * columns..][..columns].as_ptr(), to, columns);
        }
    }
}

/// Bytes from one row to the next.
const fn bytes(elements: usize) -> usize {
    elements * size_of::<f32>()
}

/// # Safety
/// 16 rows and columns from here on lie inside the product, and this thread's tiles are configured.
unsafe fn block(product: &Dense<f32, Bf16Pair>, row: usize, column: usize) {
    // SAFETY: the loads and stores cover 16 rows of 64 bytes each, inside the matrices (caller's promise); the
    // assembly changes its own registers and the tiles only.
    unsafe {
        let out = product.out.add(row * product.out_stride + column);
        let out_stride = bytes(product.out_stride);
        if product.accumulate {
            asm!("tileloadd tmm0, [{} + {}*1]", in(reg) out, in(reg) out_stride, options(nostack, readonly));
        } else {
            asm!("tilezero tmm0", options(nostack, nomem));
        }
        asm!(
            "2:",
            "tileloadd tmm4, [{left} + {left_stride}*1]",
            "tileloadd tmm6, [{panel} + {panel_stride}*1]",
            "tdpbf16ps tmm0, tmm4, tmm6",
            "add {left}, 64",
            "add {panel}, {panel_step}",
            "dec {steps}",
            "jnz 2b",
            "tilestored [{out} + {out_stride}*1], tmm0",
            left = inout(reg) product.left.add(row * product.left_stride) => _,
            left_stride = in(reg) bytes(product.left_stride),
            panel = inout(reg) product.panel.add(column) => _,
            panel_stride = in(reg) bytes(product.width),
            panel_step = in(reg) TILE * bytes(product.width),
            steps = inout(reg) product.depth / TILE => _,
            out = in(reg) out,
            out_stride = in(reg) out_stride,
            options(nostack),
        );
    }
}

/// Four tiles of sums at once: every tile of factors is used twice.
///
/// # Safety
/// As [`block`], for 32 rows and columns.
unsafe fn block_of_four(product: &Dense<f32, Bf16Pair>, row: usize, column: usize) {
    // SAFETY: as in `block`.
    unsafe {
        let out = product.out.add(row * product.out_stride + column);
        let (out_stride, below) = (bytes(product.out_stride), out.add(TILE * product.out_stride));
        if product.accumulate {
            asm!(
                "tileloadd tmm0, [{out} + {stride}*1]",
                "tileloadd tmm1, [{out} + {stride}*1 + 64]",
                "tileloadd tmm2, [{below} + {stride}*1]",
                "tileloadd tmm3, [{below} + {stride}*1 + 64]",
                out = in(reg) out,
                below = in(reg) below,
                stride = in(reg) out_stride,
                options(nostack, readonly),
            );
        } else {
            asm!("tilezero tmm0", "tilezero tmm1", "tilezero tmm2", "tilezero tmm3", options(nostack, nomem));
        }
        let left = product.left.add(row * product.left_stride);
        asm!(
            "2:",
            "tileloadd tmm4, [{left} + {left_stride}*1]",
            "tileloadd tmm6, [{panel} + {panel_stride}*1]",
            "tileloadd tmm7, [{panel} + {panel_stride}*1 + 64]",
            "tdpbf16ps tmm0, tmm4, tmm6",
            "tdpbf16ps tmm1, tmm4, tmm7",
            "tileloadd tmm5, [{lower} + {left_stride}*1]",
            "tdpbf16ps tmm2, tmm5, tmm6",
            "tdpbf16ps tmm3, tmm5, tmm7",
            "add {left}, 64",
            "add {lower}, 64",
            "add {panel}, {panel_step}",
            "dec {steps}",
            "jnz 2b",
            left = inout(reg) left => _,
            lower = inout(reg) left.add(TILE * product.left_stride) => _,
            left_stride = in(reg) bytes(product.left_stride),
            panel = inout(reg) product.panel.add(column) => _,
            panel_stride = in(reg) bytes(product.width),
            panel_step = in(reg) TILE * bytes(product.width),
            steps = inout(reg) product.depth / TILE => _,
            options(nostack, readonly),
        );
        asm!(
            "tilestored [{out} + {stride}*1], tmm0",
            "tilestored [{out} + {stride}*1 + 64], tmm1",
            "tilestored [{below} + {stride}*1], tmm2",
            "tilestored [{below} + {stride}*1 + 64], tmm3",
            out = in(reg) out,
            below = in(reg) below,
            stride = in(reg) out_stride,
            options(nostack),
        );
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    /// Whether the unit is there; says so past the capture of the tests' output if it is not.
    fn unit() -> bool {
        let found = available();
        if !found {
            let _ =
                writeln!(std::io::stderr(), "SKIPPED: this machine has no AMX, its products were not tested");
        }
        found
    }

    /// Pairs of values in [-1, 1) whose sums depend on the order.
    fn pairs(count: usize, seed: u32) -> Vec<Bf16Pair> {
        let mut state = seed;
        let mut next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            ((state >> 8) as f32 / (1u32 << 23) as f32 - 1.0).to_bits() >> 16
        };
        (0..count).map(|_| Bf16Pair(next() << 16 | next())).collect()
    }

    struct Case {
        depth: usize,
        columns: usize,
        /// What lies between rows of the factors and of the result.
        gap: usize,
        accumulate: bool,
    }

    impl Case {
        fn all() -> Vec<Self> {
            let mut cases = vec![];
            for (depth, columns) in [(16, 16), (32, 32), (48, 80), (16, 64)] {
                for (gap, accumulate) in [(0, false), (0, true), (7, false), (16, true)] {
                    cases.push(Self { depth, columns, gap, accumulate });
                }
            }
            cases
        }

        /// The first `rows` rows of the case's product; what lies between them is still 3.
        fn run(&self, product: unsafe fn(&Dense<f32, Bf16Pair>), rows: usize) -> Vec<f32> {
            let Self { depth, columns, gap, accumulate } = *self;
            let (left, panel) = (pairs(100 * (depth + gap), 1), pairs(depth * (columns + gap), 2));
            let mut out = vec![3.0; rows * (columns + gap)];
            let matrices = Dense {
                rows,
                depth,
                columns,
                left: left.as_ptr(),
                left_stride: depth + gap,
                panel: panel.as_ptr(),
                width: columns + gap,
                out: out.as_mut_ptr(),
                out_stride: columns + gap,
                accumulate,
            };
            // SAFETY: the matrices have these sizes; the unit is there.
            unsafe { product(&matrices) };
            out
        }
    }

    #[test]
    fn a_row_does_not_depend_on_its_company() {
        if !unit() {
            return;
        }
        for case in Case::all() {
            let many = case.run(product, 100);
            for rows in (1..50).chain([63, 64, 65, 99]) {
                let few = case.run(product, rows);
                let Case { depth, columns, .. } = case;
                assert!(few == many[..few.len()], "{rows} of 100 rows, depth {depth}, {columns} columns");
            }
        }
    }

    #[test]
    fn products_are_those_of_avx512_but_for_rounding() {
        if !unit() {
            return;
        }
        for case in Case::all() {
            let (found, expected) = (case.run(product, 37), case.run(dense::avx512_bf16, 37));
            let worst = found.iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(worst < 1e-5, "{worst}");
            // the path has run: another order of additions rounds some sums differently
            assert!(case.depth == 16 || found != expected);
        }
    }

    #[test]
    fn other_users_of_the_unit_may_change_the_tiles() {
        if !unit() {
            return;
        }
        let case = Case { depth: 32, columns: 48, gap: 0, accumulate: false };
        let expected = case.run(product, 40);
        let mut other = TileConfig { ..CONFIG };
        other.rows[4] = 3;
        // SAFETY: a valid configuration.
        unsafe { asm!("ldtilecfg [{}]", in(reg) &other, options(nostack, readonly)) };
        assert!(case.run(product, 40) == expected, "another configuration");
        // SAFETY: takes nothing, releases this thread's tiles.
        unsafe { asm!("tilerelease", options(nostack, nomem)) };
        assert!(case.run(product, 40) == expected, "released");
    }
}
