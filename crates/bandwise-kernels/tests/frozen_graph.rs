//! A network as one operator does what its layers do one after another.

use std::sync::Arc;

use bandwise_kernels::*;
use candle_core::{D, DType, Device, Tensor, Var};

mod common;
use common::difference as distance;

fn random(shape: &[usize], dtype: DType, seed: u64) -> Tensor {
    common::random(shape, seed).to_dtype(dtype).unwrap()
}

const PLAIN: ConvConfig =
    ConvConfig { stride: 1, padding: 1, dilation: 1, groups: 1, precision: Precision::F32 };

struct Network {
    stem: FrozenConv2d,
    inner: FrozenConv2d,
    outer: FrozenConv2d,
    depthwise: FrozenConv2d,
    strided: FrozenConv2d,
    scale: Tensor,
    shift: Tensor,
}

impl Network {
    fn new(dtype: DType) -> Self {
        let weight = |shape: &[usize], seed| (random(shape, dtype, seed) * 0.3).unwrap();
        let convolution = |shape: &[usize], config: ConvConfig, seed| {
            let bias = random(&shape[..1], dtype, seed + 100);
            FrozenConv2d::new(&weight(shape, seed), Some(&bias), &config).unwrap()
        };
        Self {
            stem: convolution(&[16, 3, 3, 3], PLAIN, 1),
            inner: convolution(&[16, 16, 3, 3], PLAIN, 2),
            outer: convolution(&[16, 16, 3, 3], PLAIN, 3),
            depthwise: convolution(&[16, 1, 3, 3], ConvConfig { groups: 16, ..PLAIN }, 4),
            strided: convolution(&[20, 16, 3, 3], ConvConfig { stride: 2, ..PLAIN }, 5),
            scale: random(&[3], dtype, 6),
            shift: random(&[3], dtype, 7),
        }
    }

    /// Every operation, two residual blocks, and a value that three others read.
    fn graph(&self) -> FrozenGraph {
        let mut graph = FrozenGraph::new();
        let x = graph.affine(&self.scale, &self.shift, graph.input(), None, false).unwrap();
        let x = graph.convolution(&self.stem, x, None, true);
        let y = graph.convolution(&self.inner, x, None, true);
        let x = graph.convolution(&self.outer, y, Some(x), true);
        let y = graph.convolution(&self.depthwise, x, None, true);
        let y = graph.pool(true, 3, 1, 1, y);
        let x = graph.sum(y, Some(x), true);
        let y = graph.convolution(&self.strided, x, None, false);
        let x = graph.subsample(2, 2, x);
        let x = graph.sum(y, Some(x), false);
        let x = graph.sum(x, None, true);
        let x = graph.pool(false, 2, 2, 0, x);
        graph.global_average(x);
        graph
    }

    fn layers(&self, x: &Tensor) -> Tensor {
        let x = x.broadcast_mul(&self.scale).unwrap().broadcast_add(&self.shift).unwrap();
        let x = self.stem.forward(&x, None, true).unwrap();
        let y = self.inner.forward(&x, None, true).unwrap();
        let x = self.outer.forward(&y, Some(&x), true).unwrap();
        let y = self.depthwise.forward(&x, None, true).unwrap();
        let y = max_pool2d(&y, 3, 1, 1).unwrap();
        let x = relu(&(y + x).unwrap()).unwrap();
        let y = self.strided.forward(&x, None, false).unwrap();
        let every = |size: usize| {
            let indices: Vec<u32> = (0..size as u32).step_by(2).collect();
            Tensor::new(indices, x.device()).unwrap()
        };
        let (_, height, width, _) = x.dims4().unwrap();
        let x = x.index_select(&every(height), 1).unwrap().index_select(&every(width), 2).unwrap();
        let x = x.pad_with_zeros(D::Minus1, 2, 2).unwrap();
        let x = relu(&(y + x).unwrap()).unwrap();
        global_avg_pool(&avg_pool2d(&x, 2, 2, 0).unwrap()).unwrap()
    }
}

/// Result and gradient of a function of the result that weighs every element differently.
fn both(x: &Tensor, run: impl Fn(&Tensor) -> Tensor) -> (Tensor, Tensor) {
    let x = Var::from_tensor(x).unwrap();
    let y = run(x.as_tensor());
    let weights = random(y.dims(), y.dtype(), 77);
    let gradients = (&y * weights).unwrap().sum_all().unwrap().backward().unwrap();
    (y.detach(), gradients.get(&x).unwrap().clone())
}

#[test]
fn a_graph_is_its_layers_one_after_another() {
    for (dtype, tolerance) in [(DType::F64, 1e-12), (DType::F32, 2e-5)] {
        let network = Network::new(dtype);
        let graph = Arc::new(network.graph());
        // more images than go through together, odd sizes
        for shape in [[37, 16, 17, 3], [2, 5, 4, 3], [1, 32, 32, 3]] {
            let x = random(&shape, dtype, 9);
            let (y, dx) = both(&x, |x| graph.run(x).unwrap());
            let (expected, expected_dx) = both(&x, |x| network.layers(x));
            assert_eq!(y.dims(), expected.dims());
            assert!(distance(&y, &expected) < tolerance, "{dtype:?} {shape:?}");
            assert!(distance(&dx, &expected_dx) < tolerance, "{dtype:?} {shape:?} gradient");
            assert!(distance(&graph.run(&x).unwrap(), &expected) < tolerance, "{dtype:?} without gradient");
        }
    }
}

#[test]
fn images_do_not_depend_on_their_batch_and_bits_not_on_threads() {
    let network = Network::new(DType::F32);
    let graph = Arc::new(network.graph());
    let x = random(&[37, 16, 17, 3], DType::F32, 9);
    let values = |t: &Tensor| t.flatten_all().unwrap().to_vec1::<f32>().unwrap();
    let with = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        let (y, dx) = pool.install(|| both(&x, |x| graph.run(x).unwrap()));
        (values(&y), values(&dx))
    };
    let one = with(1);
    assert!(with(3) == one);
    let alone = graph.run(&x.narrow(0, 20, 1).unwrap()).unwrap();
    assert_eq!(values(&alone), one.0[20 * 20..21 * 20]);
}

#[test]
fn what_does_not_fit_is_an_error() {
    let network = Network::new(DType::F32);
    let graph = Arc::new(network.graph());
    let refused = |x: &Tensor| graph.run(x).unwrap_err().to_string();
    assert!(refused(&random(&[1, 8, 8, 4], DType::F32, 1)).contains("constants"));
    assert!(refused(&random(&[1, 8, 8], DType::F32, 1)).contains("rank"));
    let half = Tensor::zeros((1, 8, 8, 3), DType::BF16, &Device::Cpu).unwrap();
    assert!(refused(&half).contains("f32 or f64"));
    let mut wrong = FrozenGraph::new();
    let stem = wrong.convolution(&network.stem, wrong.input(), None, true);
    let input = wrong.input();
    wrong.sum(stem, Some(input), true);
    let error = Arc::new(wrong).run(&random(&[1, 8, 8, 3], DType::F32, 1)).unwrap_err();
    assert!(error.to_string().contains("residual"), "{error}");
}
