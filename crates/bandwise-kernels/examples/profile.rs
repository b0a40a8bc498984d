//! CPU time per operator and shape of ResNet-18 on 32×32 images, one thread:
//! `RAYON_NUM_THREADS=1 cargo run --release -p bandwise-kernels --example profile [rounds]`.

use bandwise_kernels::*;
use candle_core::{Device, Tensor, Var};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// CPU seconds of all threads of this process.
fn cpu_seconds() -> f64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer is valid for the call.
    unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &mut time) };
    time.tv_sec as f64 + time.tv_nsec as f64 * 1e-9
}

/// Least CPU time of several runs.
fn best(rounds: usize, mut run: impl FnMut()) -> f64 {
    run();
    (0..rounds)
        .map(|_| {
            let start = cpu_seconds();
            run();
            cpu_seconds() - start
        })
        .fold(f64::INFINITY, f64::min)
}

fn main() -> candle_core::Result<()> {
    let rounds = std::env::args().nth(1).and_then(|r| r.parse().ok()).unwrap_or(5);
    let batch = 32;
    println!("{}", capabilities());
    println!("{:<28}{:>9}{:>9}{:>9}   GFLOP/s per CPU second", "convolution", "forward", "dx", "dw");
    let shapes = [
        (3, 64, 32, 3, 1),
        (64, 64, 32, 3, 1),
        (64, 128, 32, 3, 2),
        (64, 128, 32, 1, 2),
        (128, 128, 16, 3, 1),
        (128, 256, 16, 3, 2),
        (256, 256, 8, 3, 1),
        (256, 512, 8, 3, 2),
        (512, 512, 4, 3, 1),
    ];
    for precision in [Precision::F32, Precision::F32Fast, Precision::Bf16] {
        println!("{precision:?}: {}", capabilities().path(precision));
        for (inner, outer, size, kernel, stride) in shapes {
            let config = ConvConfig { stride, padding: kernel / 2, precision, ..Default::default() };
            let x = Tensor::randn(0f32, 1.0, (batch, size, size, inner), &Device::Cpu)?;
            let w = Tensor::randn(0f32, 0.05, (outer, inner, kernel, kernel), &Device::Cpu)?;
            let out = size / stride;
            let flop = (2 * batch * out * out * outer * inner * kernel * kernel) as f64;
            let forward = best(rounds, || drop(conv2d(&x, &w, &config).unwrap()));
            let backward = |x: &Tensor, w: &Tensor| {
                let y = conv2d(x, w, &config).unwrap();
                best(rounds, || drop(y.backward().unwrap()))
            };
            let dx = backward(Var::from_tensor(&x)?.as_tensor(), &w);
            let dw = backward(&x, Var::from_tensor(&w)?.as_tensor());
            let name = format!("{inner}→{outer} {size}² {kernel}×{kernel} /{stride}");
            println!(
                "{name:<28}{:>9.1}{:>9.1}{:>9.1}",
                flop / forward * 1e-9,
                flop / dx * 1e-9,
                flop / dw * 1e-9
            );
        }
    }
    println!("{:<28}{:>9}{:>9}   ms, {batch} images", "pass", "forward", "backward");
    for (channels, size) in [(64, 32), (128, 16), (512, 4)] {
        let x = Tensor::randn(0f32, 1.0, (batch, size, size, channels), &Device::Cpu)?;
        let v = Var::from_tensor(&x)?;
        let ones = Var::from_tensor(&Tensor::ones(channels, candle_core::DType::F32, &Device::Cpu)?)?;
        let run = || batch_norm_train(v.as_tensor(), ones.as_tensor(), ones.as_tensor(), 1e-5, None, true);
        let forward = best(rounds, || drop(run().unwrap()));
        let y = run()?.0;
        let backward = best(rounds, || drop(y.backward().unwrap()));
        println!(
            "{:<28}{:>9.2}{:>9.2}",
            format!("batch norm {channels} {size}²"),
            forward * 1e3,
            backward * 1e3
        );
        let add = best(rounds, || drop((&x + &x).unwrap()));
        println!("{:<28}{:>9.2}", "  candle's addition", add * 1e3);
    }
    Ok(())
}
