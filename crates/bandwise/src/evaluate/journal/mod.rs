//! The journal of an evaluation: one line per (image, attack), appended while it runs.
//!
//! The first line ([`Header`]) holds everything that the outcomes depend on. Then come judgments
//! ([`Entry`]), warnings ([`Noted`]), and a line where an attack began with so many images. An evaluation
//! continued with more images or attacks adds a line that says so. Once everything is judged, the file
//! is brought into one canonical order, in which it does not tell how the work was divided. Every line
//! ends with a checksum of itself.
//!
//! A journal is a file of its own. It is locked while an evaluation writes it; a killed process loses
//! at most what it was working on; journals of shards merge into one.

mod header;
mod line;
mod merge;
mod reading;
mod task;

use std::path::{Path, PathBuf};

pub use header::{FORMAT, Header};
use line::Line;
pub use line::{Begun, Entry, Noted};
pub use merge::merge;
use task::Task;

use super::record::{self, append_lines};
use crate::attack::{Attack, Recall, Warning, advice, square_better};
use crate::lock::Lock;
use crate::wording::counted;
use crate::{Error, Result, files};

/// The name under which clean predictions are journalled.
pub const CLEAN: &str = "none";

/// A journal and what it holds.
#[derive(Debug)]
pub struct Journal {
    /// Empty for a journal in memory.
    path: PathBuf,
    header: Header,
    /// Clean predictions, then the attacks of the header.
    tasks: Vec<Task>,
    /// Places of the attacks that the present evaluation asks for; `None` for all.
    chosen: Option<Vec<usize>>,
    /// As far as they cannot be told from the judgments.
    warnings: Vec<Noted>,
    /// The images that were begun with last, if none of them was judged.
    unfinished: Option<Begun>,
    /// Held while the journal may be written.
    lock: Option<Lock>,
}

impl Journal {
    /// Starts a journal at `path`, or continues the one that is there, which may get more images and
    /// attacks by it. With fewer attacks than it has, these alone are run and shown. The file is locked as long as the journal lives.
    ///
    /// # Errors
    /// [`Error::Config`] if the file belongs to an evaluation with other parameters (the first of them is
    /// named), is written by another process, or is no journal at all: it is left as it is then.
    pub fn open(path: &Path, header: Header) -> Result<Self> {
        header.validate()?;
        if path.exists() && !path.is_file() {
            return Err(Error::config(format!(
                "{} is not a regular file; a journal needs one, to be read again when it is continued",
                path.display()
            )));
        }
        let mut lock = Lock::file(path)?;
        if let Some(folder) = path.parent() {
            files::remove_leftovers(if folder.as_os_str().is_empty() { Path::new(".") } else { folder })?;
        }
        let found = if path.exists() { Self::read_if_any(path)? } else { None };
        let Some(mut journal) = found else {
            files::write_atomic(path, Line::Header(Box::new(header.clone())).sealed()?.as_bytes())?;
            lock.hold(path)?;
            let mut journal = Self::in_memory(header);
            (journal.path, journal.lock) = (path.to_path_buf(), Some(lock));
            return Ok(journal);
        };
        let grown = journal.header.grown_to(&header).map_err(|difference| {
            Error::config(format!(
                "{} belongs to another evaluation: {difference}; choose another file, or repeat its settings to continue it",
                path.display()
            ))
        })?;
        journal.lock = Some(lock);
        journal.extend(grown)?;
        let (chosen, _) = journal.header.choice(&header.attacks);
        journal.chosen = (chosen.len() < journal.header.attacks.len()).then_some(chosen);
        // Who only shows a journal computes nothing of it.
        let labels: Vec<String> = journal.attacks().into_iter().map(|(label, _)| label).collect();
        if labels.iter().map(String::as_str).chain([CLEAN]).any(|label| !journal.missing(label).is_empty()) {
            journal.extend(journal.header.also_by(&header.algorithm))?;
        }
        Ok(journal)
    }

    /// Takes over a header that has more, and writes what that is.
    fn extend(&mut self, grown: Header) -> Result<()> {
        if grown != self.header {
            let Header { images, attacks, algorithm, .. } = grown.clone();
            self.write(&Line::Extension { images, attacks, algorithm }.sealed()?)?;
            self.set_header(grown);
        }
        Ok(())
    }

    /// A journal that is not kept on disk.
    pub fn in_memory(header: Header) -> Self {
        let mut journal = Self {
            path: PathBuf::new(),
            header: header.clone(),
            tasks: vec![Task::new(CLEAN, Vec::new())],
            chosen: None,
            warnings: Vec::new(),
            unfinished: None,
            lock: None,
        };
        journal.set_header(header);
        journal
    }

    /// Takes up a header that has more than the one before.
    fn set_header(&mut self, header: Header) {
        for (label, attack) in header.labels().iter().zip(&header.attacks).skip(self.tasks.len() - 1) {
            self.tasks.push(Task::new(label, attack.part_names()));
        }
        self.header = header;
    }

    /// The file; empty for a journal in memory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What the outcomes depend on.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// The attacks that this evaluation asks for, with their labels.
    pub fn attacks(&self) -> Vec<(String, &Attack)> {
        let is_asked = |index: &usize| self.chosen.as_ref().is_none_or(|chosen| chosen.contains(index));
        let all = self.header.labels().into_iter().zip(&self.header.attacks).enumerate();
        all.filter(|(index, _)| is_asked(index)).map(|(_, attack)| attack).collect()
    }

    /// The judgment of `image` under the attack with this label; `None` before it is final.
    pub fn get(&self, attack: &str, image: usize) -> Option<Entry> {
        self.task(attack)?.judgment(image)
    }

    /// Whether `image` is right, and not broken by the attack with this label; `None` before it is known.
    pub fn correct(&self, attack: &str, image: usize) -> Option<bool> {
        self.task(attack)?.correct(image)
    }

    /// Whether `image` was judged under an attack, or a part of it.
    pub fn has(&self, attack: &str, part: Option<&str>, image: usize) -> bool {
        let mut parts = self.task(attack).map_or(&[][..], |task| &task.parts).iter();
        parts.any(|own| own.name.as_deref() == part && own.entries.contains_key(&image))
    }

    fn task(&self, attack: &str) -> Option<&Task> {
        self.tasks.iter().find(|task| task.label == attack)
    }

    /// Appends judgments, with warnings that came up while they were made, and flushes them to the disk.
    pub fn append(&mut self, entries: Vec<Entry>, warnings: Vec<Noted>) -> Result<()> {
        let mut text = String::new();
        for noted in &warnings {
            text.push_str(&Line::Warning(noted.clone()).sealed()?);
        }
        let lines = entries.iter().map(|entry| Line::Entry(entry.clone()).sealed());
        let lines: Vec<String> = lines.collect::<Result<_>>()?;
        text.extend(lines.iter().map(String::as_str));
        self.write(&text)?;
        self.unfinished = None;
        warnings.into_iter().for_each(|noted| self.take_warning(noted));
        for (entry, line) in entries.into_iter().zip(lines) {
            self.take(entry, line.trim_end()).map_err(|reason| Error::config(format!("a line {reason}")))?;
        }
        Ok(())
    }

    /// Keeps what a check of the model, or of an attack as such, has found; twice the same is kept once.
    pub fn note(&mut self, attack: Option<&str>, warnings: &[Warning]) -> Result<()> {
        for warning in warnings {
            let noted = Noted { attack: attack.map(str::to_string), warning: warning.clone() };
            if !self.warnings.contains(&noted) {
                self.write(&Line::Warning(noted.clone()).sealed()?)?;
                self.warnings.push(noted);
            }
        }
        Ok(())
    }

    /// Writes down that an attack (or a part of it) now works on so many images.
    pub fn begin(&mut self, attack: &str, part: Option<&str>, images: usize) -> Result<()> {
        let begun = Begun { attack: attack.to_string(), part: part.map(str::to_string), images };
        self.write(&Line::Begun(begun).sealed()?)
    }

    /// Images that an earlier process began with and did not finish: it was stopped at them.
    pub fn unfinished(&self) -> Option<&Begun> {
        self.unfinished.as_ref()
    }

    /// The number of images that an earlier process was stopped at, if it was under this attack (or part of it).
    pub fn stopped_in(&self, attack: &str, part: Option<&str>) -> Option<usize> {
        let stopped = self.unfinished.as_ref();
        let stopped = stopped.filter(|begun| begun.attack == attack && begun.part.as_deref() == part);
        stopped.map(|begun| begun.images)
    }

    /// Where the model's answers about a single image are kept until it is judged: a hidden file beside a journal on
    /// disk.
    pub fn answers_path(&self) -> Option<PathBuf> {
        let name = self.path.file_name()?.to_string_lossy();
        Some(self.path.with_file_name(format!(".{name}.answers")))
    }

    fn write(&self, text: &str) -> Result<()> {
        if self.path.as_os_str().is_empty() { Ok(()) } else { append_lines(&self.path, text) }
    }

    /// Brings a journal on disk into its canonical order.
    pub fn finish(&mut self) -> Result<()> {
        self.unfinished = None;
        let Some(answers) = self.answers_path() else { return Ok(()) };
        Recall::clear(&answers);
        let text = self.canonical()?;
        if files::read(&self.path)? == text.as_bytes() {
            return Ok(());
        }
        files::write_atomic(&self.path, text.as_bytes())
    }

    /// What a reader of the results must know: of the model, and of the attacks asked for one by one.
    pub fn warnings(&self) -> Vec<Noted> {
        let mut all = self.noted(None);
        for (label, attack) in self.attacks() {
            let mut own = self.noted(Some(&label));
            if let Some(task) = self.task(&label) {
                let told = [self.square_better(task), self.zero_gradients(task, attack)];
                let told = told.into_iter().flatten();
                own.extend(told.map(|warning| Noted { attack: Some(label.clone()), warning }));
            }
            all.extend(merged(own));
        }
        all
    }

    /// What was written down of an attack, or of none.
    fn noted(&self, attack: Option<&str>) -> Vec<Noted> {
        let own = self.warnings.iter().filter(|noted| noted.attack.as_deref() == attack).cloned().collect();
        if attack.is_some() { merged(own) } else { own }
    }

    /// Images that survived an attack which saw no gradient there.
    fn zero_gradients(&self, task: &Task, attack: &Attack) -> Option<Warning> {
        let judged = self.header.image_numbers().filter_map(|image| task.judgment(image));
        let unseen = judged.filter(|entry| entry.outcome().survived_unseen()).count();
        Warning::zero_gradients(unseen, advice(attack.norm(), &self.header.attacks))
    }

    /// The official sign of gradient masking, from the judgments of AutoAttack's parts.
    fn square_better(&self, task: &Task) -> Option<Warning> {
        let attacked = self.header.image_numbers().filter(|&image| self.correct(CLEAN, image) == Some(true));
        let total = attacked.count();
        let square = task.parts.iter().find(|part| part.name.as_deref() == Some("square"))?;
        let images = square.entries.values().filter(|(entry, _)| !entry.correct).count();
        square_better(images, total)
    }

    /// Correctness of every image of the share under an attack (or [`CLEAN`]), in order. An image
    /// that is wrong without any attack counts as wrong.
    ///
    /// # Errors
    /// [`Error::Format`] naming what is missing.
    pub fn flags(&self, attack: &str) -> Result<Vec<bool>> {
        self.must_be_complete(attack)?;
        let right = |attack: &str, image| self.correct(attack, image) == Some(true);
        Ok(self.header.image_numbers().map(|image| right(CLEAN, image) && right(attack, image)).collect())
    }

    /// Images still to be judged under an attack: those without a final judgment, except where the
    /// clean image is already wrong.
    pub fn missing(&self, attack: &str) -> Vec<usize> {
        let wrong = |image| attack != CLEAN && self.correct(CLEAN, image) == Some(false);
        self.header
            .image_numbers()
            .filter(|&image| self.correct(attack, image).is_none() && !wrong(image))
            .collect()
    }

    /// Of the missing images those for which `part` of AutoAttack is next (`None` for another attack).
    pub fn missing_part(&self, attack: &str, part: Option<&str>) -> Vec<usize> {
        let mut missing = self.missing(attack);
        let Some(task) = self.task(attack) else { return missing };
        for earlier in task.parts.iter().take_while(|earlier| earlier.name.as_deref() != part) {
            missing.retain(|image| earlier.entries.contains_key(image));
        }
        let own = task.parts.iter().find(|own| own.name.as_deref() == part);
        missing.retain(|image| own.is_some_and(|own| !own.entries.contains_key(image)));
        missing
    }

    /// How many images were judged under an attack (or a part of AutoAttack), and how many withstood it.
    pub fn known(&self, attack: &str, part: Option<&str>) -> (usize, usize) {
        let parts = self.task(attack).map_or(&[][..], |task| &task.parts);
        let entries =
            parts.iter().filter(|own| own.name.as_deref() == part).flat_map(|own| own.entries.values());
        entries.fold((0, 0), |(all, right), (entry, _)| (all + 1, right + usize::from(entry.correct)))
    }

    fn must_be_complete(&self, attack: &str) -> Result<()> {
        let missing = self.missing(attack);
        if missing.is_empty() {
            return Ok(());
        }
        let first: Vec<String> = missing.iter().take(5).map(usize::to_string).collect();
        Err(Error::format(
            &self.path,
            format!(
                "{} not judged under `{attack}` (first: {}); run the same evaluation again to finish it",
                counted(missing.len(), "image") + if missing.len() == 1 { " was" } else { " were" },
                first.join(", ")
            ),
        ))
    }

    /// Puts a judgment in its place; a different one for the same image is an error.
    fn take(&mut self, entry: Entry, line: &str) -> Result<(), String> {
        let what = match &entry.part {
            None => format!("judges image {} under `{}`", entry.image, entry.attack),
            Some(part) => format!("judges image {} under `{}`, {part}", entry.image, entry.attack),
        };
        let inside = entry.image < self.header.images && self.header.shard.contains(entry.image);
        let task = self.tasks.iter_mut().find(|task| task.label == entry.attack);
        let part = task.and_then(|task| task.part(entry.part.as_deref()));
        let Some(part) = part.filter(|_| inside) else {
            return Err(format!("{what}, which the journal's first line does not name"));
        };
        match part.entries.get(&entry.image) {
            Some((_, written)) if written != line => Err(format!("{what} once more, differently")),
            _ => {
                part.entries.insert(entry.image, (entry, line.to_string()));
                Ok(())
            }
        }
    }

    /// Counts of images with zero gradients, which earlier versions wrote down, add up; other warnings are kept once.
    fn take_warning(&mut self, noted: Noted) {
        let adds = noted.attack.is_some() && noted.warning.counts_images();
        if adds || !self.warnings.contains(&noted) {
            self.warnings.push(noted);
        }
    }

    /// The journal as text in its canonical order: header, warnings, clean images, then attack by attack.
    fn canonical(&self) -> Result<String> {
        let mut text = Line::Header(Box::new(self.header.clone())).sealed()?;
        // Checks may have come in any order.
        let labels = self.tasks.iter().map(|task| Some(task.label.as_str()));
        let warnings = std::iter::once(None).chain(labels).flat_map(|attack| self.noted(attack));
        let place = |noted: &Noted| {
            let label = noted.attack.as_ref();
            label.map_or(0, |label| {
                self.tasks.iter().position(|task| task.label == *label).unwrap_or_default()
            })
        };
        let mut lines: Vec<(usize, String)> = warnings
            .map(|noted| Ok((place(&noted), Line::Warning(noted).sealed()?)))
            .collect::<Result<_>>()?;
        lines.sort();
        text.extend(lines.iter().map(|(_, line)| line.as_str()));
        for part in self.tasks.iter().flat_map(|task| &task.parts) {
            for image in self.header.image_numbers() {
                if let Some((_, line)) = part.entries.get(&image) {
                    text.push_str(line);
                    text.push('\n');
                }
            }
        }
        Ok(text)
    }
}

/// Warnings of one attack, each kind once.
fn merged(own: Vec<Noted>) -> Vec<Noted> {
    let attack = own.first().and_then(|noted| noted.attack.clone());
    let warnings = Warning::merge(own.into_iter().map(|noted| noted.warning).collect());
    warnings.into_iter().map(|warning| Noted { attack: attack.clone(), warning }).collect()
}
