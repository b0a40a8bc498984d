//! One start of APGD: official `attack_single_run` and, for L1, `decr_eps_pgd`.

use candle_core::Tensor;

use crate::Result;
use crate::attack::Norm;
use crate::attack::active_batch::{judge_logits, pick, select_all, select_host};
use crate::attack::geometry::{column, normalized, project, without_direction};
use crate::attack::oracle::{LossTargets, Objective, Oracle};
use crate::attack::projection::onto_l1_ball_and_box;
use crate::nn::loss;

/// The parameters that one start needs.
#[derive(Clone, Copy)]
pub(crate) struct Schedule {
    pub norm: Norm,
    pub epsilon: f64,
    pub steps: usize,
    pub rho: f64,
    pub averaged_gradients: usize,
    pub shrinking_radius: bool,
}

impl Schedule {
    /// Radii and steps of the phases; a single one unless the radius shrinks.
    fn phases(&self) -> Vec<(f64, usize)> {
        if !self.shrinking_radius {
            return vec![(self.epsilon, self.steps)];
        }
        let early = (0.3 * self.steps as f64).ceil() as usize;
        let last = self.steps.saturating_sub(2 * early);
        vec![(3.0 * self.epsilon, early), (2.0 * self.epsilon, early), (self.epsilon, last)]
    }
}

/// What one start achieved, in the row order it was given.
pub(crate) struct End {
    /// The misclassified iterate where there was one, else the one with the best loss.
    pub images: Tensor,
    /// The iterate with the best loss.
    #[cfg_attr(not(test), allow(dead_code))]
    pub best_loss_images: Tensor,
    /// Best loss reached.
    #[cfg_attr(not(test), allow(dead_code))]
    pub losses: Vec<f64>,
    /// Whether an iterate was misclassified.
    pub broken: Vec<bool>,
    /// `z_label − max z_other` of `images`.
    pub margins: Vec<f64>,
    /// Backward passes.
    pub gradients: Vec<u64>,
    /// Whether a gradient was zero everywhere, or not a number.
    pub without_gradient: Vec<bool>,
}

/// Numbers that belong to one image.
#[derive(Clone)]
struct Row {
    /// Position in the start's input.
    position: usize,
    label: u32,
    step_size: f64,
    /// Loss after every step; zeros where there was none yet.
    losses: Vec<f64>,
    best: f64,
    best_at_check: f64,
    reduced_at_check: bool,
    /// Margin and whether misclassified, of the image that would be returned.
    margin: f64,
    broken: bool,
    gradients: u64,
    without_gradient: bool,
    /// L1: share of pixels moved at once, and pixels changed at the last check.
    moved_share: f64,
    changed_at_check: f64,
}

/// The images of one start that are still alive.
pub(crate) struct Run<'a> {
    oracle: &'a Oracle<'a>,
    schedule: Schedule,
    objective: Objective,
    goal: LossTargets,
    origin: Tensor,
    x: Tensor,
    previous: Tensor,
    gradient: Tensor,
    best: Tensor,
    best_gradient: Tensor,
    /// What would be returned: the last misclassified iterate, or the best.
    returned: Tensor,
    rows: Vec<Row>,
    finished: Vec<(Row, Tensor, Tensor)>,
    leave_when_broken: bool,
}

impl<'a> Run<'a> {
    /// Runs one start from `begin`.
    pub fn start(
        oracle: &'a Oracle<'a>,
        schedule: &Schedule,
        objective: Objective,
        origin: &Tensor,
        begin: Tensor,
        goal: LossTargets,
        leave_when_broken: bool,
    ) -> Result<End> {
        let phases = schedule.phases();
        let labels = goal.labels.to_vec1::<u32>()?;
        let rows = labels.iter().enumerate().map(|(position, &label)| Row::new(position, label)).collect();
        let mut run = Run {
            oracle,
            schedule: *schedule,
            objective,
            goal,
            origin: origin.clone(),
            previous: begin.clone(),
            gradient: begin.clone(),
            best: begin.clone(),
            best_gradient: begin.clone(),
            returned: begin.clone(),
            x: begin,
            rows,
            finished: Vec::new(),
            leave_when_broken,
        };
        for (number, &(radius, steps)) in phases.iter().enumerate() {
            run.schedule.epsilon = radius;
            run.schedule.steps = steps;
            // Only the last phase works at the true radius, so only there images may leave.
            let last = number + 1 == phases.len();
            run.leave_when_broken = leave_when_broken && last;
            let begin = if number == 0 { run.x.clone() } else { run.best.clone() };
            run.phase(begin, schedule.steps, number > 0 || schedule.shrinking_radius)?;
            if run.rows.is_empty() {
                break;
            }
        }
        run.end()
    }

    /// `attack_single_run`: from `begin`, with checkpoints spaced by `total_steps` (all phases).
    fn phase(&mut self, begin: Tensor, total_steps: usize, from_earlier: bool) -> Result<()> {
        self.x = match self.schedule.norm {
            Norm::L1 => project(&begin, &self.origin, Norm::L1, self.schedule.epsilon)?,
            _ => begin.clamp(0.0, 1.0)?,
        };
        self.look_first(from_earlier)?;
        let share = |part: f64, of: usize| ((part * of as f64) as usize).max(1);
        let (shortest, shorter_by) = (share(0.06, total_steps), share(0.03, total_steps));
        let mut until_check = match self.schedule.norm {
            Norm::L1 => share(0.04, self.schedule.steps),
            _ => share(0.22, total_steps),
        };
        let mut since_check = 0;
        for step in 0..self.schedule.steps {
            if self.rows.is_empty() {
                break;
            }
            self.step(if step > 0 { 0.75 } else { 1.0 })?;
            self.look(step)?;
            since_check += 1;
            if since_check == until_check && !self.rows.is_empty() {
                since_check = 0;
                if self.schedule.norm == Norm::L1 {
                    self.check_sparsity()?;
                } else {
                    self.check_progress(step, until_check)?;
                    until_check = until_check.saturating_sub(shorter_by).max(shortest);
                }
            }
        }
        Ok(())
    }

    /// Gradient, loss and verdict at the starting point.
    fn look_first(&mut self, from_earlier: bool) -> Result<()> {
        let (logits, losses) = self.ask()?;
        self.previous = self.x.clone();
        self.best = self.x.clone();
        self.best_gradient = self.gradient.clone();
        self.returned = self.x.clone();
        let factor = if self.schedule.norm == Norm::L1 { 1.0 } else { 2.0 };
        let pixels = self.x.elem_count() as f64 / self.rows.len() as f64;
        let changed = self.changed_pixels()?;
        let judged = judge_logits(&logits, &self.labels())?;
        for (i, row) in self.rows.iter_mut().enumerate() {
            row.step_size = factor * self.schedule.epsilon;
            row.losses = vec![0.0; self.schedule.steps];
            (row.best, row.best_at_check) = (losses[i], losses[i]);
            row.reduced_at_check = true;
            (row.margin, row.broken) = (judged[i].margin, judged[i].wrong);
            (row.moved_share, row.changed_at_check) =
                if from_earlier { (changed[i] / pixels / 1.5, changed[i]) } else { (0.2, pixels) };
        }
        self.leave_broken()
    }

    /// Gradient (averaged), loss and verdict at the point just reached.
    fn look(&mut self, step: usize) -> Result<()> {
        let (logits, losses) = self.ask()?;
        let judged = judge_logits(&logits, &self.labels())?;
        let mut improved = Vec::with_capacity(self.rows.len());
        let mut shown = Vec::with_capacity(self.rows.len());
        for (i, row) in self.rows.iter_mut().enumerate() {
            row.losses[step] = losses[i];
            improved.push(losses[i] > row.best);
            row.best = row.best.max(losses[i]);
            // Misclassified iterates are returned; until there is one, that with the best loss.
            shown.push(judged[i].wrong || (!row.broken && improved[i]));
            if shown[i] {
                row.margin = judged[i].margin;
            }
            row.broken |= judged[i].wrong;
        }
        self.best = pick(&improved, &self.x, &self.best)?;
        self.best_gradient = pick(&improved, &self.gradient, &self.best_gradient)?;
        self.returned = pick(&shown, &self.x, &self.returned)?;
        self.leave_broken()
    }

    fn ask(&mut self) -> Result<(Tensor, Vec<f64>)> {
        let mut slope = self.oracle.slope(&self.x, &self.goal, self.objective)?;
        let mut total = slope.gradient;
        for _ in 1..self.schedule.averaged_gradients {
            slope = self.oracle.slope(&self.x, &self.goal, self.objective)?;
            total = (total + &slope.gradient)?;
        }
        if self.schedule.averaged_gradients > 1 {
            total = total.affine(1.0 / self.schedule.averaged_gradients as f64, 0.0)?;
        }
        self.gradient = total;
        for (row, lost) in self.rows.iter_mut().zip(without_direction(&self.gradient)?) {
            row.without_gradient |= lost;
            row.gradients += self.schedule.averaged_gradients as u64;
        }
        Ok((slope.logits, loss::to_host(&slope.losses)?))
    }

    fn step(&mut self, momentum: f64) -> Result<()> {
        let (norm, epsilon) = (self.schedule.norm, self.schedule.epsilon);
        let sizes = column(&self.rows.iter().map(|row| row.step_size).collect::<Vec<_>>(), &self.x)?;
        let next = match norm {
            Norm::L1 => {
                let moved = (&self.x + self.sparse_direction()?.broadcast_mul(&sizes)?)?;
                (&self.origin + onto_l1_ball_and_box(&self.origin, &(moved - &self.origin)?, epsilon)?)?
            }
            _ => {
                let direction = if norm == Norm::Linf {
                    self.gradient.sign()?
                } else {
                    normalized(&self.gradient, norm)?
                };
                let moved = (&self.x + direction.broadcast_mul(&sizes)?)?;
                let moved = project(&moved, &self.origin, norm, epsilon)?;
                let drift = (&self.x - &self.previous)?.affine(1.0 - momentum, 0.0)?;
                let mixed = ((&self.x + (moved - &self.x)?.affine(momentum, 0.0)?)? + drift)?;
                project(&mixed, &self.origin, norm, epsilon)?
            }
        };
        self.previous = std::mem::replace(&mut self.x, next);
        Ok(())
    }

    /// L1: the signs of the largest gradient entries, scaled to unit L1 norm.
    fn sparse_direction(&self) -> Result<Tensor> {
        let magnitudes =
            self.gradient.flatten_from(1)?.abs()?.to_dtype(candle_core::DType::F64)?.to_vec2::<f64>()?;
        let thresholds: Vec<f64> = magnitudes
            .into_iter()
            .zip(&self.rows)
            .map(|(mut magnitudes, row)| {
                let count = magnitudes.len();
                let index = (((1.0 - row.moved_share) * count as f64).max(0.0) as usize).min(count - 1);
                *magnitudes.select_nth_unstable_by(index, f64::total_cmp).1
            })
            .collect();
        let large = self.gradient.abs()?.broadcast_ge(&column(&thresholds, &self.gradient)?)?;
        let signs = (self.gradient.sign()? * large.to_dtype(self.gradient.dtype())?)?;
        let counts = (crate::attack::geometry::norms(&signs, Norm::L1)? + 1e-10)?;
        Ok(signs.broadcast_div(&counts)?)
    }

    /// Halves the step size where too few steps improved or nothing was gained since the last check.
    fn check_progress(&mut self, step: usize, window: usize) -> Result<()> {
        let rho = self.schedule.rho;
        let mut halved = Vec::with_capacity(self.rows.len());
        for row in &mut self.rows {
            let reduce =
                row.oscillates(step, window, rho) || (!row.reduced_at_check && row.best_at_check >= row.best);
            row.reduced_at_check = reduce;
            row.best_at_check = row.best;
            if reduce {
                row.step_size /= 2.0;
            }
            halved.push(reduce);
        }
        self.return_to_best(&halved)
    }

    /// L1: where the best point became sparser, start again from it with a full step; else shorten.
    fn check_sparsity(&mut self) -> Result<()> {
        let x = std::mem::replace(&mut self.x, self.best.clone());
        let changed = self.changed_pixels()?;
        self.x = x;
        let pixels = self.x.elem_count() as f64 / self.rows.len() as f64;
        let full = self.schedule.epsilon;
        let mut sparser = Vec::with_capacity(self.rows.len());
        for (row, changed) in self.rows.iter_mut().zip(changed) {
            let reduced = changed / row.changed_at_check < 0.95;
            row.moved_share = changed / pixels / 1.5;
            row.step_size = if reduced { full } else { (row.step_size / 1.5).clamp(full / 10.0, full) };
            row.changed_at_check = changed;
            sparser.push(reduced);
        }
        self.return_to_best(&sparser)
    }

    fn return_to_best(&mut self, which: &[bool]) -> Result<()> {
        if which.contains(&true) {
            self.x = pick(which, &self.best, &self.x)?;
            self.gradient = pick(which, &self.best_gradient, &self.gradient)?;
        }
        Ok(())
    }

    /// Number of pixel values that differ from the clean image.
    fn changed_pixels(&self) -> Result<Vec<f64>> {
        let changed = self.x.ne(&self.origin)?.to_dtype(candle_core::DType::F64)?;
        Ok(changed.flatten_from(1)?.sum(1)?.to_vec1()?)
    }

    fn labels(&self) -> Vec<u32> {
        self.rows.iter().map(|row| row.label).collect()
    }

    fn leave_broken(&mut self) -> Result<()> {
        if !self.leave_when_broken || !self.rows.iter().any(|row| row.broken) {
            return Ok(());
        }
        let (gone, stay): (Vec<u32>, Vec<u32>) =
            (0..self.rows.len() as u32).partition(|&i| self.rows[i as usize].broken);
        self.finish(&gone)?;
        let stay = Tensor::from_slice(&stay, stay.len(), self.x.device())?;
        select_host(&mut self.rows, &stay)?;
        if self.rows.is_empty() {
            return Ok(());
        }
        self.goal = self.goal.select(&stay)?;
        select_all(
            &mut [
                &mut self.origin,
                &mut self.x,
                &mut self.previous,
                &mut self.gradient,
                &mut self.best,
                &mut self.best_gradient,
                &mut self.returned,
            ],
            &stay,
        )
    }

    fn finish(&mut self, gone: &[u32]) -> Result<()> {
        for &i in gone {
            let index = Tensor::from_slice(&[i], 1, self.x.device())?;
            self.finished.push((
                self.rows[i as usize].clone(),
                self.returned.index_select(&index, 0)?,
                self.best.index_select(&index, 0)?,
            ));
        }
        Ok(())
    }

    fn end(mut self) -> Result<End> {
        self.finish(&(0..self.rows.len() as u32).collect::<Vec<_>>())?;
        self.finished.sort_by_key(|(row, _, _)| row.position);
        let cat = |part: fn(&(Row, Tensor, Tensor)) -> &Tensor| -> Result<Tensor> {
            Ok(Tensor::cat(&self.finished.iter().map(part).collect::<Vec<_>>(), 0)?)
        };
        Ok(End {
            images: cat(|done| &done.1)?,
            best_loss_images: cat(|done| &done.2)?,
            losses: self.finished.iter().map(|(row, _, _)| row.best).collect(),
            broken: self.finished.iter().map(|(row, _, _)| row.broken).collect(),
            margins: self.finished.iter().map(|(row, _, _)| row.margin).collect(),
            gradients: self.finished.iter().map(|(row, _, _)| row.gradients).collect(),
            without_gradient: self.finished.iter().map(|(row, _, _)| row.without_gradient).collect(),
        })
    }
}

impl Row {
    fn new(position: usize, label: u32) -> Self {
        Self {
            position,
            label,
            step_size: 0.0,
            losses: Vec::new(),
            best: f64::NEG_INFINITY,
            best_at_check: f64::NEG_INFINITY,
            reduced_at_check: true,
            margin: f64::INFINITY,
            broken: false,
            gradients: 0,
            without_gradient: false,
            moved_share: 0.2,
            changed_at_check: 0.0,
        }
    }

    /// Official `check_oscillation`: at most `rho` of the last `window` steps raised the loss.
    ///
    /// At the first checkpoint the official code compares the first loss with index −1, the still
    /// empty last entry of its array (zero); golden values depend on it.
    fn oscillates(&self, step: usize, window: usize, rho: f64) -> bool {
        let count = self.losses.len();
        let raised = (0..window)
            .filter(|back| self.losses[step - back] > self.losses[(step + count - back - 1) % count])
            .count();
        raised as f64 <= window as f64 * rho
    }
}
