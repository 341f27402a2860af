//! Runs what is compared in turns, so that a drift of the machine hits all alike.

use super::options::Options;
use super::report::{Figures, Series};

/// One thing that is measured.
pub(super) struct Contender<'a> {
    name: String,
    command: String,
    /// Runs even if `--only` names others, since they are compared with it.
    reference: bool,
    run: Run<'a>,
}

type RunOnce<'a> = Box<dyn FnMut() -> Result<Figures, String> + 'a>;

enum Run<'a> {
    Ready(RunOnce<'a>),
    /// Cannot be measured here, or failed at once; not tried again.
    Out(String),
}

impl<'a> Contender<'a> {
    /// `run` prepares, measures, and checks what came out.
    pub(super) fn new(
        name: impl Into<String>,
        command: impl Into<String>,
        run: impl FnMut() -> Result<Figures, String> + 'a,
    ) -> Self {
        Self { name: name.into(), command: command.into(), reference: false, run: Run::Ready(Box::new(run)) }
    }

    /// One that cannot be measured here; the table says why.
    pub(super) fn absent(name: impl Into<String>, why: impl Into<String>) -> Self {
        Self { name: name.into(), command: String::new(), reference: false, run: Run::Out(why.into()) }
    }

    /// One that others are compared with.
    #[must_use]
    pub(super) fn reference(mut self) -> Self {
        self.reference = true;
        self
    }

    /// Under another name.
    #[must_use]
    pub(super) fn renamed(self, change: impl Fn(&str) -> String) -> Self {
        Self { name: change(&self.name), ..self }
    }

    /// Does something before each run.
    #[must_use]
    pub(super) fn after(self, prepare: impl Fn() -> Result<(), String> + 'a) -> Self {
        self.around(move |run| prepare().and_then(|()| run()))
    }

    /// Adds figures that follow from the others.
    #[must_use]
    pub(super) fn with(self, derive: impl Fn(&mut Figures) + 'a) -> Self {
        self.around(move |run| {
            let mut figures = run()?;
            derive(&mut figures);
            Ok(figures)
        })
    }

    /// Makes figures of what a failure says.
    pub(super) fn rescued(self, rescue: impl Fn(String) -> Result<Figures, String> + 'a) -> Self {
        self.around(move |run| run().or_else(&rescue))
    }

    fn around(self, wrap: impl Fn(&mut RunOnce<'a>) -> Result<Figures, String> + 'a) -> Self {
        let run = match self.run {
            Run::Out(why) => Run::Out(why),
            Run::Ready(mut run) => Run::Ready(Box::new(move || wrap(&mut run))),
        };
        Self { run, ..self }
    }

    /// None when it is out.
    fn measure(&mut self) -> Option<Result<Figures, String>> {
        match &mut self.run {
            Run::Ready(run) => Some(run().map_err(|why| format!("failed: {why}"))),
            Run::Out(_) => None,
        }
    }
}

/// All runs of all contenders, in their order. Each gets one run before that is not counted, where memory limits: the
/// first touch of it by a virtual machine costs up to six times. What fails then is not run again.
#[must_use]
pub(super) fn alternate(mut contenders: Vec<Contender<'_>>, options: &Options) -> Vec<Series> {
    contenders.retain(|contender| contender.reference || options.wants(&contender.name));
    let mut runs: Vec<Vec<Result<Figures, String>>> = contenders.iter().map(|_| Vec::new()).collect();
    for contender in contenders.iter_mut().filter(|_| options.warm_up) {
        let outcome = contender.measure();
        if let Some(outcome) = outcome {
            tell("warm-up", &contender.name, &outcome);
            if let Err(why) = outcome {
                contender.run = Run::Out(why);
            }
        }
    }
    for round in 1..=options.runs {
        for (contender, runs) in contenders.iter_mut().zip(&mut runs) {
            if let Some(outcome) = contender.measure() {
                tell(&format!("round {round} of {}", options.runs), &contender.name, &outcome);
                runs.push(outcome);
            }
        }
    }
    let series = contenders.into_iter().zip(runs).map(|(contender, mut runs)| {
        if let Run::Out(why) = contender.run {
            runs.push(Err(why));
        }
        Series { name: contender.name, command: contender.command, runs }
    });
    series.collect()
}

fn tell(when: &str, name: &str, outcome: &Result<Figures, String>) {
    match outcome {
        Ok(figures) => match figures.get("rate_gbit") {
            Some(rate) => eprintln!("{when}: {name}: {rate:.2} Gbit/s"),
            None => eprintln!("{when}: {name}: done"),
        },
        Err(why) => eprintln!("{when}: {name}: {why}"),
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    fn options(line: &str) -> Options {
        Options::parse(&line.split_whitespace().map(str::to_owned).collect::<Vec<_>>()).unwrap()
    }

    #[test]
    fn turns_alternate_after_a_warm_up_and_what_fails_at_once_is_out() {
        let clock = Cell::new(0.0);
        let tick = || {
            clock.set(clock.get() + 1.0);
            Ok(Figures::from([("rate", clock.get())]))
        };
        let contenders = vec![
            Contender::new("a", "do a", tick),
            Contender::new("broken", "", || Err("no".to_owned())),
            Contender::new("b", "do b", tick),
            Contender::absent("c", "not on PATH"),
        ];
        let series = alternate(contenders, &options("all --runs 2"));
        let rates =
            |at: usize| series[at].runs.iter().map(|run| run.clone().unwrap()["rate"]).collect::<Vec<_>>();
        assert_eq!((rates(0), rates(2)), (vec![3.0, 5.0], vec![4.0, 6.0]));
        assert_eq!(series[1].runs, [Err("failed: no".to_owned())]);
        assert_eq!(series[3].runs, [Err("not on PATH".to_owned())]);
    }

    #[test]
    fn only_what_is_wanted_runs_with_its_references() {
        let run = || Ok(Figures::from([("rate", 1.0)]));
        let three = vec![
            Contender::new("haul", "", run).reference(),
            Contender::new("scp", "", run),
            Contender::new("sftp", "", run),
        ];
        let series = alternate(three, &options("all --runs 1 --only sftp"));
        assert_eq!(series.iter().map(|one| one.name.as_str()).collect::<Vec<_>>(), ["haul", "sftp"]);
    }
}
