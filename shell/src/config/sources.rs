//! Where the configuration comes from, and what comes of it.
//!
//! In rising order of precedence: the defaults, the file, environment variables, flags. A value that is wrong is a
//! problem even where a better source overrides it, so that it does not lie in wait.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::mem;
use std::path::PathBuf;

use super::flags::Flags;
use super::key::Key;
use super::problem::{Origin, Problem, Problems};
use super::rule::Refusal;
use super::table::{Disagreement, agree};
use super::{Config, environment, file};

/// The sources of a configuration. They can be read again, and so can a changed file.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    flags: Flags,
    environment: BTreeMap<String, OsString>,
    file: Option<PathBuf>,
}

/// A configuration, and where it came from.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// What counts.
    pub config: Config,
    /// The same as text, for each of [`Config::keys`] in their order.
    pub settings: Vec<Setting>,
    /// What is probably a mistake, but harms nothing.
    pub warnings: Vec<Problem>,
}

/// What a key was set to, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setting {
    /// The key.
    pub key: &'static Key,
    /// As they were written: exactly one, unless it is a list.
    pub texts: Vec<String>,
    /// Where.
    pub origin: Origin,
}

/// What one source says.
#[derive(Debug, Default)]
pub(super) struct Layer {
    pub(super) settings: Vec<Setting>,
    pub(super) problems: Vec<Problem>,
    pub(super) warnings: Vec<Problem>,
}

impl Sources {
    /// These flags and these environment variables, and the file that they name, if they do.
    pub fn new(flags: Flags, environment: impl IntoIterator<Item = (OsString, OsString)>) -> Self {
        let environment = environment::ours(environment);
        let file = flags.file.clone().or_else(|| environment::file(&environment));
        Self { flags, environment, file }
    }

    /// This file, by itself.
    pub fn of_file(path: impl Into<PathBuf>) -> Self {
        Self { file: Some(path.into()), ..Self::default() }
    }

    /// Reads them. The file is opened each time, so that after a change of it this is the way to read it again.
    ///
    /// # Errors
    /// With everything that is wrong in any of them.
    pub fn load(&self) -> Result<Loaded, Problems> {
        self.load_if(agree)
    }

    fn load_if(&self, agree: impl Fn(&Config) -> Vec<Disagreement>) -> Result<Loaded, Problems> {
        let keys = Config::keys();
        let file = self.file.as_ref().map(|path| file::read(keys, path)).unwrap_or_default();
        let flags = Layer { settings: self.flags.given.clone(), ..Layer::default() };
        let Layer { settings, mut problems, warnings } =
            resolve(keys, [file, environment::read(keys, &self.environment), flags]);
        let texts: Vec<_> = settings.iter().map(|setting| &*setting.texts).collect();
        match Config::read(&texts) {
            Ok(config) => {
                problems.extend(agree(&config).into_iter().map(|disagreement| disagreement.problem(&settings)));
                if problems.is_empty() {
                    return Ok(Loaded { config, settings, warnings });
                }
            }
            Err(refused) => problems.extend(refused.into_iter().map(|(key, refusal)| {
                let setting = settings.iter().find(|setting| setting.key == key);
                setting.map_or(Origin::Default, |setting| setting.origin.clone()).refuses(key, refusal)
            })),
        }
        // In the order in which they are found in the file, however they were.
        problems.sort_by(|one, other| one.origin.cmp(&other.origin));
        Err(Problems(problems))
    }
}

/// A setting for each key: of the last source that sets it. What is overridden is checked here, since nobody else reads
/// it.
fn resolve(keys: &'static [Key], layers: impl IntoIterator<Item = Layer>) -> Layer {
    let default = |key: &'static Key| Setting { key, texts: key.default_texts(), origin: Origin::Default };
    let mut resolved = Layer { settings: keys.iter().map(default).collect(), ..Layer::default() };
    for Layer { settings, problems, warnings } in layers {
        resolved.problems.extend(problems);
        resolved.warnings.extend(warnings);
        for setting in settings {
            let Some(place) = resolved.settings.iter_mut().find(|other| other.key == setting.key) else { continue };
            let Setting { key, texts, origin } = mem::replace(place, setting);
            if origin != Origin::Default {
                let refusals = key.check(&texts).err().unwrap_or_default();
                resolved.problems.extend(refusals.into_iter().map(|refusal| origin.clone().refuses(key, refusal)));
            }
        }
    }
    resolved
}

impl Origin {
    fn refuses(self, key: &Key, Refusal { text, reason }: Refusal) -> Problem {
        Problem::of_key(self, key.name, format!("invalid value '{text}': {reason}"))
    }
}

impl Disagreement {
    /// Where the strongest of its keys was given.
    fn problem(self, settings: &[Setting]) -> Problem {
        let Self { keys, reason } = self;
        let origins = settings.iter().filter(|setting| keys.contains(&setting.key.name)).map(|setting| &setting.origin);
        let origin = origins.max().cloned().unwrap_or(Origin::Default);
        Problem { keys: keys.iter().map(|&key| key.into()).collect(), ..Problem::new(origin, reason) }
    }
}
