//! Wall time per operator and shape: `cargo bench -p bandwise-kernels [FILTER]`. Throughput is in multiplications
//! and additions of the direct convolution (criterion's "elements").

use std::hint::black_box;

use bandwise_kernels::*;
use candle_core::{Device, Tensor, Var};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};

#[global_allocator]
static ALLOCATOR: RecyclingAllocator = RecyclingAllocator::new();

const BATCH: usize = 16;

/// Input channels, output channels, image size, kernel, stride, groups.
const SHAPES: [[usize; 6]; 11] = [
    [3, 64, 32, 3, 1, 1],
    [64, 64, 32, 3, 1, 1],
    [64, 128, 32, 3, 2, 1],
    [64, 128, 32, 1, 2, 1],
    [128, 128, 16, 3, 1, 1],
    [128, 256, 16, 3, 2, 1],
    [256, 256, 8, 3, 1, 1],
    [256, 512, 8, 3, 2, 1],
    [512, 512, 4, 3, 1, 1],
    [160, 160, 32, 3, 1, 1],
    [96, 96, 16, 3, 1, 96],
];

fn normal(shape: &[usize]) -> Tensor {
    Tensor::randn(0f32, 1.0, shape, &Device::Cpu).expect("a CPU tensor")
}

fn convolution(c: &mut Criterion) {
    let mut group = c.benchmark_group("conv2d");
    group.sample_size(10);
    for [inner, outer, size, kernel, stride, groups] in SHAPES {
        for precision in [Precision::F32, Precision::F32x3, Precision::Bf16] {
            let config = ConvConfig { stride, padding: kernel / 2, groups, precision, ..Default::default() };
            let x = normal(&[BATCH, size, size, inner]);
            let w = normal(&[outer, inner / groups, kernel, kernel]);
            let out = size / stride;
            let work = 2 * BATCH * out * out * outer * inner / groups * kernel * kernel;
            group.throughput(Throughput::Elements(work as u64));
            let name = format!("{inner}-{outer} {size}² {kernel}×{kernel}/{stride} g{groups} {precision:?}");
            let run = |x: &Tensor, w: &Tensor| conv2d(x, w, &config).expect("fitting shapes");
            group.bench_function(BenchmarkId::new("forward", &name), |b| b.iter(|| black_box(run(&x, &w))));
            let (vx, vw) = (Var::from_tensor(&x).expect("a copy"), Var::from_tensor(&w).expect("a copy"));
            let data = run(vx.as_tensor(), &w);
            group.bench_function(BenchmarkId::new("data", &name), |b| {
                b.iter(|| data.backward().map(black_box))
            });
            let weight = run(&x, vw.as_tensor());
            group.bench_function(BenchmarkId::new("weight", &name), |b| {
                b.iter(|| weight.backward().map(black_box))
            });
        }
    }
}

fn passes(c: &mut Criterion) {
    let mut group = c.benchmark_group("passes");
    group.sample_size(20);
    for (channels, size) in [(64, 32), (128, 16), (256, 8), (512, 4)] {
        let x = Var::from_tensor(&normal(&[BATCH, size, size, channels])).expect("a copy");
        let residual = normal(&[BATCH, size, size, channels]);
        let ones = Var::from_tensor(&normal(&[channels])).expect("a copy");
        group.throughput(Throughput::Elements((BATCH * size * size * channels) as u64));
        let name = format!("{channels} {size}²");
        let train = || {
            let (y, _) =
                batch_norm_train(&x, &ones, &ones, 1e-5, Some(&residual), true).expect("fitting shapes");
            y
        };
        group.bench_function(BenchmarkId::new("batch norm", &name), |b| b.iter(|| black_box(train())));
        let y = train();
        group.bench_function(BenchmarkId::new("batch norm gradient", &name), |b| {
            b.iter(|| y.backward().map(black_box))
        });
        group.bench_function(BenchmarkId::new("max pool", &name), |b| {
            b.iter(|| max_pool2d(&residual, 2, 2, 0).map(black_box))
        });
        group.bench_function(BenchmarkId::new("sign step", &name), |b| {
            b.iter(|| sign_step(&residual, &residual, &x, 0.01, 0.03).map(black_box))
        });
    }
}

criterion_group!(operators, convolution, passes);
criterion_main!(operators);
