//! Wall time per operator and shape: `cargo bench -p bandwise-kernels [FILTER]`. Throughput is in multiplications
//! and additions of the direct convolution (criterion's "elements").

use std::hint::black_box;
use std::sync::Arc;

use bandwise_kernels::*;
use candle_core::{Device, Tensor, Var};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

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
        for precision in [Precision::F32, Precision::F32Fast, Precision::Bf16] {
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

/// Residual blocks of frozen layers, as one operator and one after another.
fn frozen(c: &mut Criterion) {
    let mut group = c.benchmark_group("frozen network");
    group.sample_size(10);
    for (channels, size) in [(16, 32), (64, 32), (256, 8)] {
        let config = ConvConfig { padding: 1, ..Default::default() };
        let weights: Vec<FrozenConv2d> = (0..6)
            .map(|_| (normal(&[channels, channels, 3, 3]) * 0.05).expect("a CPU tensor"))
            .map(|w| FrozenConv2d::new(&w, None, &config).expect("fitting shapes"))
            .collect();
        let mut graph = FrozenGraph::new();
        let mut value = graph.input();
        for pair in weights.chunks_exact(2) {
            let inner = graph.convolution(&pair[0], value, None, true);
            value = graph.convolution(&pair[1], inner, Some(value), true);
        }
        let graph = Arc::new(graph);
        let layers = |x: &Tensor| {
            weights.chunks_exact(2).try_fold(x.clone(), |x, pair| {
                pair[1].forward(&pair[0].forward(&x, None, true)?, Some(&x), true)
            })
        };
        let x = Var::from_tensor(&normal(&[BATCH, size, size, channels])).expect("a copy");
        let work = 2 * BATCH * size * size * channels * channels * 9 * 6 * 2;
        group.throughput(Throughput::Elements(work as u64));
        let name = format!("{channels} {size}²");
        group.bench_function(BenchmarkId::new("attack step, one operator", &name), |b| {
            b.iter(|| black_box(graph.run(&x).expect("fitting shapes").backward()))
        });
        group.bench_function(BenchmarkId::new("attack step, layer by layer", &name), |b| {
            b.iter(|| black_box(layers(&x).expect("fitting shapes").backward()))
        });
    }
}

criterion_group!(operators, convolution, passes, frozen);
criterion_main!(operators);
