use candle_core::{DType, Device, Tensor, Var};

use super::*;

const START: [f64; 5] = [0.5, -1.25, 2.0, 0.0, -0.03];

/// The weights after six steps, computed with torch 2.15 in float64:
/// `w.grad = a * w + (b if t % 2 == 0 else -b)` with `a = [1, .5, 2, .1, 3]`,
/// `b = [.3, -.2, .1, -.4, .05]`, and the optimizer and learning rate named on each line.
#[rustfmt::skip]
const CASES: [(&str, f64, [f64; 5]); 8] = [
    // SGD(lr=0.1)
    (r#"name = "sgd""#, 0.1,
        [0.2731188, -0.921581869531, 0.5283872, -0.001176278404, -0.00093432]),
    // SGD(lr=0.1, momentum=0.9, weight_decay=5e-4)
    ("name = \"sgd\"\nmomentum = 0.9\nweight_decay = 5e-4", 0.1,
        [-0.151491912179, -0.281597048636, -1.41657116717, 0.0818172346276, 0.0233368257]),
    // SGD(lr=0.1, momentum=0.9, nesterov=True, weight_decay=1e-2)
    ("name = \"sgd\"\nmomentum = 0.9\nnesterov = true\nweight_decay = 1e-2", 0.1,
        [-0.124363787231, -0.177801823222, -0.783336342306, 0.0666482713945, 0.0119002179732]),
    // Adam(lr=0.05, weight_decay=1e-2)
    ("name = \"adam\"\nweight_decay = 1e-2", 0.05,
        [0.250783868534, -0.966691878972, 1.70140629355, 0.0663858305744, -0.0295283170838]),
    // AdamW(lr=0.05, weight_decay=0.1, betas=(0.8, 0.95), eps=1e-6)
    ("name = \"adamw\"\nweight_decay = 0.1\nbetas = [0.8, 0.95]\nepsilon = 1e-6", 0.05,
        [0.245937248256, -0.93670306264, 1.64693565628, 0.0576906977384, -0.0211885019991]),
    // Adagrad(lr=0.1, lr_decay=0.05, weight_decay=1e-2, initial_accumulator_value=0.2)
    ("name = \"adagrad\"\nweight_decay = 1e-2\nlearning_rate_decay = 0.05\ninitial_sum = 0.2", 0.1,
        [0.30135880416, -0.991694849809, 1.68048045296, 0.0216943133547, 0.00517465767615]),
    // RMSprop(lr=0.02, weight_decay=1e-2)
    ("name = \"rmsprop\"\nweight_decay = 1e-2", 0.02,
        [0.145320126843, -0.691712855198, 1.328280468, 0.0671313633361, 0.0256872354356]),
    // RMSprop(lr=0.02, alpha=0.9, momentum=0.5, centered=True, eps=1e-4)
    ("name = \"rmsprop\"\nsmoothing = 0.9\nmomentum = 0.5\ncentered = true\nepsilon = 1e-4", 0.02,
        [0.197909417336, -0.846873164263, 1.532135496, 0.0696742506446, 0.0242823959638]),
];

fn start(dtype: DType) -> Var {
    Var::from_tensor(&Tensor::new(&START, &Device::Cpu).unwrap().to_dtype(dtype).unwrap()).unwrap()
}

/// The gradient of the formula above, through autodiff.
fn gradients(weights: &Var, step: usize) -> GradStore {
    let constant =
        |values: [f64; 5]| Tensor::new(&values, &Device::Cpu).unwrap().to_dtype(weights.dtype()).unwrap();
    let sign = if step.is_multiple_of(2) { 1.0 } else { -1.0 };
    let quadratic = (constant([0.5, 0.25, 1.0, 0.05, 1.5]) * weights.sqr().unwrap()).unwrap();
    let linear = (constant([0.3, -0.2, 0.1, -0.4, 0.05]) * weights.as_tensor()).unwrap();
    (quadratic + (linear * sign).unwrap()).unwrap().sum_all().unwrap().backward().unwrap()
}

fn values(tensor: &Tensor) -> Vec<f64> {
    tensor.to_dtype(DType::F64).unwrap().flatten_all().unwrap().to_vec1().unwrap()
}

fn assert_close(found: &[f64], expected: &[f64], tolerance: f64, what: &str) {
    for (found, expected) in found.iter().zip(expected) {
        assert!(
            (found - expected).abs() <= tolerance * (1.0 + expected.abs()),
            "{what}: {found} for {expected}"
        );
    }
}

fn optimizer(config: &str, weights: &Var) -> Optimizer {
    Optimizer::new(toml::from_str(config).unwrap(), vec![("w".into(), weights.clone())]).unwrap()
}

#[test]
fn steps_are_those_of_torch() {
    for (config, rate, expected) in CASES {
        for (dtype, tolerance) in [(DType::F64, 1e-11), (DType::F32, 2e-6)] {
            let weights = start(dtype);
            let mut optimizer = optimizer(config, &weights);
            for step in 0..6 {
                optimizer.step(&gradients(&weights, step), rate).unwrap();
            }
            assert_close(&values(&weights), &expected, tolerance, config);
        }
    }
}

#[test]
fn clipping_is_that_of_torch() {
    // clip_grad_norm_([w], 1.0), then SGD(lr=0.1, momentum=0.9); four steps.
    let norms = [4.276941079790555, 3.759821406700834, 3.7282181176896416, 2.8738550258972038];
    let expected = [0.379725429109, -1.09975677381, 1.12473320826, 0.00963992071939, -0.0118692937533];
    for (dtype, tolerance) in [(DType::F64, 1e-6), (DType::F32, 2e-6)] {
        let weights = start(dtype);
        let mut optimizer = optimizer("name = \"sgd\"\nmomentum = 0.9", &weights);
        let found: Vec<f64> = (0..4)
            .map(|step| optimizer.step_clipped(&gradients(&weights, step), 0.1, 1.0).unwrap())
            .collect();
        assert_close(&found, &norms, tolerance, "norm");
        assert_close(&values(&weights), &expected, tolerance, "weights");
    }
}

#[test]
fn a_diverged_gradient_is_refused_and_changes_nothing() {
    let weights = start(DType::F32);
    let mut optimizer = optimizer("name = \"sgd\"", &weights);
    let mut store = gradients(&weights, 0);
    store.insert(weights.as_tensor(), Tensor::new(&[f32::NAN; 5], &Device::Cpu).unwrap());
    let error = optimizer.step_clipped(&store, 0.1, 1.0).unwrap_err().to_string();
    assert!(error.contains("gradient norm is NaN"), "{error}");
    assert_eq!(values(&weights), values(&start(DType::F32)));
}

#[test]
fn a_saved_state_goes_on_bit_for_bit() {
    for (config, rate, _) in CASES {
        for dtype in [DType::F32, DType::F64] {
            let through = start(dtype);
            let mut whole = optimizer(config, &through);
            let parted = start(dtype);
            let mut first = optimizer(config, &parted);
            for step in 0..3 {
                whole.step(&gradients(&through, step), rate).unwrap();
                first.step(&gradients(&parted, step), rate).unwrap();
            }
            let mut second = optimizer(config, &parted);
            second.load_state(&first.state().unwrap()).unwrap();
            for step in 3..6 {
                whole.step(&gradients(&through, step), rate).unwrap();
                second.step(&gradients(&parted, step), rate).unwrap();
            }
            assert_eq!(values(&through), values(&parted), "{config}");
        }
    }
}

#[test]
fn the_state_of_another_optimizer_is_refused() {
    let weights = start(DType::F32);
    let adam = optimizer("name = \"adam\"", &weights).state().unwrap();
    let error =
        optimizer("name = \"sgd\"\nmomentum = 0.9", &weights).load_state(&adam).unwrap_err().to_string();
    assert!(error.contains("no \"momentum/w\""), "{error}");
}

/// Several spans, so that the division into tasks is tested too.
#[test]
fn large_parameters_update_like_small_ones() {
    let count = 50_001;
    let large: Vec<f32> = (0..count).map(|i| (i as f32 * 0.37).sin()).collect();
    for (config, rate, _) in CASES {
        let run = |dtype: DType| {
            let tensor =
                Tensor::from_slice(&large, (3, count / 3), &Device::Cpu).unwrap().to_dtype(dtype).unwrap();
            let weights = Var::from_tensor(&tensor).unwrap();
            let mut optimizer = optimizer(config, &weights);
            for _ in 0..3 {
                let gradients = weights.powf(3.0).unwrap().sum_all().unwrap().backward().unwrap();
                optimizer.step(&gradients, rate).unwrap();
            }
            values(&weights)
        };
        // Relative steps are sensitive where gradients vanish: the bound is on the whole.
        let (spans, tensors) = (run(DType::F32), run(DType::F64));
        let error: f64 = spans.iter().zip(&tensors).map(|(a, b)| (a - b).powi(2)).sum::<f64>().sqrt();
        let norm: f64 = tensors.iter().map(|b| b * b).sum::<f64>().sqrt();
        assert!(error / norm < 1e-4, "{config}: {}", error / norm);
    }
}

#[test]
fn settings_choose_decay_and_rate_per_parameter() {
    let device = &Device::Cpu;
    let vars = || {
        let kernel = Var::ones((2, 2), DType::F32, device).unwrap();
        let bias = Var::ones(2, DType::F32, device).unwrap();
        vec![("conv.weight".to_owned(), kernel), ("bn.bias".to_owned(), bias)]
    };
    let config: OptimizerConfig = toml::from_str("name = \"sgd\"\nweight_decay = 0.5").unwrap();
    // The loss hardly depends on the weights: only decay moves them.
    let step = |optimizer: &mut Optimizer, vars: &[(String, Var)]| {
        let sum = vars.iter().map(|(_, v)| v.sum_all().unwrap()).reduce(|a, b| (a + b).unwrap()).unwrap();
        optimizer.step(&(sum * 1e-12).unwrap().backward().unwrap(), 0.1).unwrap();
    };
    let all = vars();
    step(&mut Optimizer::new(config.clone(), all.clone()).unwrap(), &all);
    assert_close(&[values(&all[0].1)[0], values(&all[1].1)[0]], &[0.95, 0.95], 1e-6, "all");
    let weights_only = vars();
    let optimizer = Optimizer::new(config.clone(), weights_only.clone()).unwrap();
    step(&mut optimizer.with_decay_scope(DecayScope::Weights), &weights_only);
    assert_close(
        &[values(&weights_only[0].1)[0], values(&weights_only[1].1)[0]],
        &[0.95, 1.0],
        1e-6,
        "weights",
    );
    let faster = vars();
    let mut optimizer =
        Optimizer::new(config, faster.clone()).unwrap().with_settings(|name, _| ParameterSettings {
            learning_rate_factor: if name.starts_with("conv") { 10.0 } else { 1.0 },
            ..ParameterSettings::default()
        });
    step(&mut optimizer, &faster);
    assert_close(&[values(&faster[0].1)[0], values(&faster[1].1)[0]], &[0.5, 0.95], 1e-6, "factor");
}

#[test]
fn settings_out_of_range_and_unknown_ones_are_refused() {
    for (text, reason) in [
        ("name = \"sgd\"\nmomentum = 1.0", "optimizer.momentum must lie in [0, 1)"),
        ("name = \"sgd\"\nnesterov = true", "needs a momentum"),
        ("name = \"adam\"\nweight_decay = -1.0", "weight_decay must not be negative"),
    ] {
        let config: OptimizerConfig = toml::from_str(text).unwrap();
        let error = config.check().unwrap_err().to_string();
        assert!(error.contains(reason), "{error}");
    }
    for text in ["name = \"sgd\"\nmomentun = 0.9", "name = \"sdg\""] {
        assert!(
            toml::from_str::<OptimizerConfig>(text).unwrap_err().to_string().contains("unknown"),
            "{text}"
        );
    }
}

/// Five steps of `image_classification/optim_adahessian.py` (amirgholami/adahessian) with torch 2.15 in float64, double
/// backward and `torch.randint_like` replaced by fixed signs:
///
/// ```python
/// torch.randint_like = lambda p, high=2, device=None: \
///     ((torch.arange(p.numel()).reshape(p.shape) + turn) % 3 == 0).to(p.dtype)
/// opt = Adahessian([w, b], **settings)      # w of shape (1, 1, 2, 2), b of shape (3,)
/// for turn in range(5):
///     opt.zero_grad()
///     loss = (0.3 * w * c).exp().sum() + 0.2 * w.sum() * (b * b).sum() + 0.5 * (b ** 4).sum()
///     loss.backward(create_graph=True)
///     opt.step()
/// ```
#[test]
fn adahessian_is_the_official_one() {
    let tensor = |values: &[f64], shape: &[usize], dtype| {
        Tensor::from_slice(values, shape, &Device::Cpu).unwrap().to_dtype(dtype).unwrap()
    };
    let cases = [
        // dict(lr=0.15, weight_decay=0.1, hessian_power=1)
        (
            "name = \"adahessian\"\nweight_decay = 0.1\nhessian_power = 1.0",
            0.15,
            [-0.524964800176, 0.00660269986227, 1.06422190169, -1.49495377379],
            [0.470948214058, -0.232673570247, 0.746948517418],
        ),
        // dict(lr=0.05, betas=(0.8, 0.95), eps=1e-3, hessian_power=0.5)
        (
            "name = \"adahessian\"\nbetas = [0.8, 0.95]\nepsilon = 1e-3",
            0.05,
            [0.268241737745, -0.947100942108, 1.81676171017, -0.178662035397],
            [0.570756509494, -0.331636692121, 0.835668195184],
        ),
    ];
    for (dtype, tolerance) in [(DType::F64, 1e-8), (DType::F32, 2e-3)] {
        for (config, rate, kernel, bias) in cases {
            let w = Var::from_tensor(&tensor(&[0.5, -1.25, 2.0, 0.3], &[1, 1, 2, 2], dtype)).unwrap();
            let b = Var::from_tensor(&tensor(&[0.7, -0.4, 1.1], &[3], dtype)).unwrap();
            let c = tensor(&[1.0, -2.0, 0.5, 3.0], &[1, 1, 2, 2], dtype);
            let parameters = vec![("w".to_owned(), w.clone()), ("b".to_owned(), b.clone())];
            let mut optimizer = Optimizer::new(toml::from_str(config).unwrap(), parameters.clone()).unwrap();
            let gradients = || -> Result<GradStore> {
                let first = ((w.as_tensor() * &c)? * 0.3)?.exp()?.sum_all()?;
                let squares = b.sqr()?;
                let second = ((w.sum_all()? * squares.sum_all()?)? * 0.2)?;
                Ok((first + second + (squares.sqr()?.sum_all()? * 0.5)?)?.backward()?)
            };
            for turn in 0..5 {
                let signs = |_: &str, var: &Var| {
                    let sign = |i: usize| if (i + turn).is_multiple_of(3) { 1.0 } else { -1.0 };
                    let signs: Vec<f64> = (0..var.elem_count()).map(sign).collect();
                    Ok(tensor(&signs, var.dims(), dtype))
                };
                let diagonal = hessian_diagonal(&parameters, signs, gradients).unwrap();
                optimizer.step_with_hessian(&gradients().unwrap(), &diagonal, rate).unwrap();
            }
            assert_close(&values(&w), &kernel, tolerance, config);
            assert_close(&values(&b), &bias, tolerance, config);
            // What it keeps can be stored and taken up.
            let state = optimizer.state().unwrap();
            let mut other = Optimizer::new(toml::from_str(config).unwrap(), parameters.clone()).unwrap();
            other.load_state(&state).unwrap();
            assert_eq!(
                values(&other.state().unwrap()["squared_hessian/w"]),
                values(&state["squared_hessian/w"])
            );
            // And it never steps blindly.
            assert!(optimizer.step(&gradients().unwrap(), rate).is_err());
        }
    }
}

#[test]
fn weights_are_put_back_when_a_hessian_fails() {
    let weights = start(DType::F32);
    let parameters = [("w".to_owned(), weights.clone())];
    let signs = |name: &str, var: &Var| random_signs(7, name, var);
    let failed = hessian_diagonal(&parameters, signs, || Err(Error::config("no gradients")));
    assert!(failed.is_err());
    assert_eq!(values(&weights), values(&start(DType::F32)));
    let many = Var::zeros(100, DType::F32, &Device::Cpu).unwrap();
    let signs = values(&random_signs(7, "w", &many).unwrap());
    assert!(signs.iter().all(|sign| sign.abs() == 1.0));
    assert!((30..70).contains(&signs.iter().filter(|sign| **sign > 0.0).count()));
}
