//! Our side of `benches/compare_pytorch.py`, `benches/compare_jafr.py` and `benches/method_cost.py`: reads one line
//! of JSON per piece of work, does it once, and answers with the CPU seconds it took.
//!
//! `{"model": "resnet18", "work": "attack", "precision": "f32", "batch": 64}` →
//! `{"seconds": 0.71, "wall": 0.71, "peak_mib": 913}`
//!
//! Work: `inference`, `training` (one step of SGD with momentum), `attack` (one gradient with respect to the
//! pixels, eval mode), `pgd10` (ten attack steps, then a training step), `jafr` (a training step with Jacobian
//! frequency regularization). `"with"` adds a method to the model: `fpcm` the published blocks, `filter-frequency` weight
//! decomposition and its penalty, `filter-penalty` the penalty on plain convolutions. Models are kept between
//! lines as long as batch and precision stay the same.

use std::collections::HashMap;
use std::io::{BufRead, Write};
use std::time::Instant;

use bandwise::method::filter_frequency::{Decomposition, Penalty, decompose};
use bandwise::method::fpcm::{self, FpcmConfig};
use bandwise::method::input_gradient::{InputGradient, joint_gradients};
use bandwise::method::{InputPenalty, Jafr};
use bandwise::nn::loss::mean_cross_entropy;
use bandwise::nn::{ForwardContext, Model, ModelShape};
use bandwise_kernels::{Precision, capabilities, sign_step};
use candle_core::backprop::GradStore;
use candle_core::{DType, Device, Tensor, Var};
use mimalloc::MiMalloc;
use serde::Deserialize;

#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

#[derive(Deserialize)]
struct Job {
    model: String,
    work: String,
    precision: String,
    batch: usize,
    #[serde(default)]
    with: String,
}

/// A model with its optimizer's memory and one batch.
struct Bench {
    model: Model,
    /// The frozen model, until the next training step.
    folded: Option<Model>,
    momentum: Vec<(Var, Tensor)>,
    images: Tensor,
    labels: Tensor,
    /// Added to the loss of a training step.
    penalty: Option<Penalty>,
}

impl Bench {
    fn new(job: &Job) -> Outcome<Self> {
        let shape = ModelShape { channels: 3, classes: 10, width: None };
        let mut model = Model::new(&job.model, shape, None, 1, DType::F32, &Device::Cpu)?;
        model.set_precision(match job.precision.as_str() {
            "f32" => Precision::F32,
            "f32-fast" => Precision::F32Fast,
            "bf16" => Precision::Bf16,
            other => return Err(format!("no precision {other:?}").into()),
        })?;
        let mut penalty = None;
        match job.with.as_str() {
            "" => {}
            "fpcm" if job.model.starts_with("wrn") => {
                fpcm::install(&mut model, &FpcmConfig::wide_resnet(), 1)?
            }
            "fpcm" => fpcm::install(&mut model, &FpcmConfig::default(), 1)?,
            "filter-penalty" => penalty = Some(Penalty::default()),
            "filter-frequency" => {
                decompose(&mut model, &Decomposition::default(), 1)?;
                penalty = Some(Penalty::default());
            }
            other => return Err(format!("no method {other:?}").into()),
        }
        let zeros = |(_, var): (String, Var)| -> Outcome<_> { Ok((var.clone(), var.zeros_like()?)) };
        let momentum = model.trainable().into_iter().map(zeros).collect::<Outcome<_>>()?;
        let images = Tensor::rand(0f32, 1.0, (job.batch, 32, 32, 3), &Device::Cpu)?;
        let labels: Vec<u32> = (0..job.batch as u32).map(|i| i % 10).collect();
        Ok(Self {
            model,
            folded: None,
            momentum,
            images,
            labels: Tensor::new(labels, &Device::Cpu)?,
            penalty,
        })
    }

    fn run(&mut self, work: &str) -> Outcome<()> {
        match work {
            "inference" => {
                let logits = self.folded()?.logits(&self.images, &ForwardContext::eval())?;
                logits.sum_all()?.to_scalar::<f32>()?;
            }
            "attack" => {
                let frozen = self.folded()?;
                self.gradient(&frozen, &self.images)?;
            }
            "training" => self.train(&self.images.clone())?,
            "pgd10" => {
                let frozen = self.folded()?;
                let mut images = self.images.clone();
                for _ in 0..10 {
                    let gradient = self.gradient(&frozen, &images)?;
                    images = sign_step(&images, &gradient, &self.images, 2.0 / 255.0, 8.0 / 255.0)?;
                }
                self.train(&images)?;
            }
            "jafr" => self.train_with_jafr()?,
            other => return Err(format!("no work {other:?}").into()),
        }
        Ok(())
    }

    fn folded(&mut self) -> Outcome<Model> {
        if self.folded.is_none() {
            self.folded = Some(self.model.folded()?.fused()?);
        }
        Ok(self.folded.clone().ok_or("folded above")?)
    }

    fn gradient(&self, model: &Model, images: &Tensor) -> Outcome<Tensor> {
        let images = Var::from_tensor(images)?;
        let loss = mean_cross_entropy(&model.logits(&images, &ForwardContext::eval())?, &self.labels)?;
        Ok(loss.backward()?.remove(&images).ok_or("the pixels have no gradient")?)
    }

    fn train(&mut self, images: &Tensor) -> Outcome<()> {
        self.folded = None;
        let mut loss =
            mean_cross_entropy(&self.model.logits(images, &ForwardContext::train(0.0))?, &self.labels)?;
        if let Some(penalty) = &self.penalty {
            loss = (loss + penalty.value(&self.model)?)?;
        }
        self.update(&loss.backward()?)
    }

    fn train_with_jafr(&mut self) -> Outcome<()> {
        self.folded = None;
        let (images, labels) = (&self.images, &self.labels);
        let statistics = ForwardContext::batch_statistics(0.0);
        let clean = InputGradient::of(&self.model.frozen(), images, labels, &statistics)?;
        let direction = Jafr::default().penalty(&clean.gradient)?.derivative;
        drop(clean);
        let loss = |logits: &Tensor| mean_cross_entropy(logits, labels);
        let joint =
            joint_gradients(&self.model, images, labels, &direction, &ForwardContext::train(0.0), loss)?;
        self.update(&joint.parameters)
    }

    fn update(&mut self, gradients: &GradStore) -> Outcome<()> {
        for (var, momentum) in &mut self.momentum {
            let Some(gradient) = gradients.get(var) else { continue };
            let decayed = (gradient + (var.as_detached_tensor() * 5e-4)?)?;
            *momentum = ((&*momentum * 0.9)? + decayed)?;
            var.set(&(var.as_detached_tensor() - (&*momentum * 1e-3)?)?)?;
        }
        Ok(())
    }
}

/// CPU seconds of all threads of this process.
fn cpu_seconds() -> f64 {
    let tasks = std::fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    let nanoseconds = tasks.filter_map(|task| {
        let text = std::fs::read_to_string(task.path().join("schedstat")).ok()?;
        text.split(' ').next()?.parse::<f64>().ok()
    });
    nanoseconds.sum::<f64>() * 1e-9
}

/// Largest resident memory so far.
fn peak_mib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or(0) / 1024
}

fn main() -> Outcome<()> {
    eprintln!("{}", capabilities());
    let mut benches: HashMap<(String, String, usize, String), Bench> = HashMap::new();
    for line in std::io::stdin().lock().lines() {
        let job: Job = serde_json::from_str(&line?)?;
        let key = (job.model.clone(), job.precision.clone(), job.batch, job.with.clone());
        if !benches.contains_key(&key) {
            benches.retain(|other, _| (&other.0, &other.1, other.2) == (&key.0, &key.1, key.2));
            benches.insert(key.clone(), Bench::new(&job)?);
        }
        let Some(bench) = benches.get_mut(&key) else { continue };
        let (start, wall) = (cpu_seconds(), Instant::now());
        bench.run(&job.work)?;
        let (seconds, wall) = (cpu_seconds() - start, wall.elapsed().as_secs_f64());
        let mut out = std::io::stdout().lock();
        writeln!(out, "{{\"seconds\": {seconds}, \"wall\": {wall}, \"peak_mib\": {}}}", peak_mib())?;
        out.flush()?;
    }
    Ok(())
}
