//! What is in the directory. Making a survey changes nothing.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};

use super::{failed, log_dir};
use crate::{
    committer::Tail,
    config::{Config, IndexKind},
    error::OpenError,
    log::{
        file::{FileId, Header, HeaderRead, LogFile},
        walk::WalkFile,
    },
    report::{Damage, DamageKind},
    savepoint::{self, Savepoint, SavepointRead},
    shared::index_dir,
};

/// One log file, in the generation that counts.
pub(super) enum Surveyed {
    Known {
        file: LogFile,
        whole: bool,
    },
    Broken {
        id: FileId,
        path: PathBuf,
        bytes: u64,
    },
}

impl Surveyed {
    pub(super) fn id(&self) -> FileId {
        match self {
            Self::Known { file, .. } => file.header.id,
            Self::Broken { id, .. } => *id,
        }
    }
}

pub(super) struct Survey {
    /// Oldest first.
    pub(super) files: Vec<Surveyed>,
    /// Generations that a newer one replaces.
    pub(super) stale: Vec<PathBuf>,
    replaced: Vec<u32>,
    unfinished: Vec<PathBuf>,
    pub(super) damage: Vec<Damage>,
    savepoint: SavepointRead,
    has_index: bool,
}

impl Survey {
    pub(super) fn make(config: &Config) -> Result<Self, OpenError> {
        let dir = log_dir(config);
        let names = match config.files.0.list(&dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            names => names.map_err(failed("list", &dir))?,
        };
        let savepoint =
            savepoint::read(config).map_err(failed("read", &savepoint::path(config)))?;
        if let SavepointRead::Unknown { version } = savepoint {
            return Err(OpenError::UnknownFormat {
                file: savepoint::path(config),
                version,
            });
        }
        let mut survey = Self {
            files: Vec::new(),
            stale: Vec::new(),
            replaced: Vec::new(),
            unfinished: Vec::new(),
            damage: Vec::new(),
            savepoint,
            has_index: index_dir(config).is_dir(),
        };
        let mut generations: BTreeMap<u32, Vec<Surveyed>> = BTreeMap::new();
        for name in names {
            if let Some(id) = FileId::parse(&name) {
                let surveyed = look_at(config, id, &dir.join(&name))?;
                // The names are sorted, so the generations of a file are too.
                generations.entry(id.file).or_default().push(surveyed);
            } else if name.ends_with(".new") || name.starts_with(crate::files::HIDDEN) {
                survey.unfinished.push(dir.join(name));
            }
        }
        for (number, candidates) in generations {
            survey.choose(number, candidates, &dir);
        }
        survey.check_owner(&dir)?;
        Ok(survey)
    }

    /// Of several generations the newest one that can be read counts.
    fn choose(&mut self, number: u32, candidates: Vec<Surveyed>, dir: &Path) {
        let newest = candidates
            .iter()
            .rposition(|one| matches!(one, Surveyed::Known { .. }));
        let newest = newest.unwrap_or(candidates.len().saturating_sub(1));
        for (index, candidate) in candidates.into_iter().enumerate() {
            if index < newest {
                self.stale.push(candidate.id().path(dir));
                if !self.replaced.contains(&number) {
                    self.replaced.push(number);
                }
            } else if index == newest {
                if let Surveyed::Known { file, whole: false } = &candidate {
                    self.damage.push(Damage {
                        file: Some(file.header.id.path(dir)),
                        offset: 0,
                        bytes: crate::log::file::FRAMES_AT,
                        first: 1,
                        last: 0,
                        kind: DamageKind::Header,
                    });
                }
                self.files.push(candidate);
            }
        }
    }

    fn check_owner(&self, dir: &Path) -> Result<(), OpenError> {
        let mut owner = None;
        for file in self.known() {
            if *owner.get_or_insert(file.header.incarnation) != file.header.incarnation {
                return Err(OpenError::Foreign(file.header.id.path(dir)));
            }
        }
        Ok(())
    }

    pub(super) fn known(&self) -> impl DoubleEndedIterator<Item = &LogFile> {
        self.files.iter().filter_map(|file| match file {
            Surveyed::Known { file, .. } => Some(file),
            Surveyed::Broken { .. } => None,
        })
    }

    pub(super) fn find(&self, id: FileId) -> Option<&LogFile> {
        self.known().find(|file| file.header.id == id)
    }

    /// Files whose places may still point at the generation before.
    pub(super) fn replaced(&self) -> impl Iterator<Item = &LogFile> {
        self.known()
            .filter(|file| self.replaced.contains(&file.header.id.file))
    }

    pub(super) fn next_file(&self) -> u32 {
        self.files.last().map_or(1, |file| file.id().file + 1)
    }

    /// The log's own, else the savepoint's, else a new one.
    pub(super) fn incarnation(&self) -> Result<[u8; 16], OpenError> {
        if let Some(file) = self.known().next() {
            return Ok(file.header.incarnation);
        }
        if let SavepointRead::Known(savepoint) = &self.savepoint {
            return Ok(savepoint.incarnation);
        }
        let mut incarnation = [0; 16];
        getrandom::fill(&mut incarnation)
            .map_err(|error| failed("read", Path::new("random"))(io::Error::other(error)))?;
        Ok(incarnation)
    }

    fn own_savepoint(&self) -> Option<&Savepoint> {
        let SavepointRead::Known(savepoint) = &self.savepoint else {
            return None;
        };
        let owner = self.known().next().map(|file| file.header.incarnation);
        (owner.is_none_or(|owner| owner == savepoint.incarnation)).then_some(savepoint)
    }

    pub(super) fn is_clean(&self) -> bool {
        self.own_savepoint()
            .is_some_and(|savepoint| savepoint.clean)
            || self.is_new()
    }

    pub(super) fn is_new(&self) -> bool {
        self.files.is_empty() && self.savepoint == SavepointRead::Missing
    }

    /// The newest record known to have been acknowledged.
    pub(super) fn floor(&self) -> u64 {
        self.own_savepoint().map_or(0, |savepoint| savepoint.number)
    }

    /// The newest record the index must have.
    pub(super) fn floor_of_index(&self) -> u64 {
        self.floor()
    }

    /// Why the index that is there cannot be used, as far as can be told without opening it.
    pub(super) fn rebuild_reason(&self, config: &Config) -> Option<String> {
        if config.index == IndexKind::Memory {
            return Some("the index is kept in memory".to_owned());
        }
        if self.is_new() && !self.has_index {
            return None;
        }
        let reason = match &self.savepoint {
            SavepointRead::Missing => "there is no savepoint",
            SavepointRead::Damaged | SavepointRead::Unknown { .. } => "the savepoint is damaged",
            SavepointRead::Known(savepoint) => {
                if self.own_savepoint().is_none() {
                    "the savepoint is that of another storage"
                } else if !savepoint.clean
                    && (savepoint.boot_id.is_empty()
                        || savepoint.boot_id != savepoint::cut_boot_id(&config.boot_id))
                {
                    "the machine was restarted without a clean close"
                } else if !self.has_index {
                    "there is no index"
                } else {
                    return None;
                }
            }
        };
        Some(reason.to_owned())
    }

    /// Removes leftovers and mends headers of which one copy is damaged.
    pub(super) fn tidy(&self, config: &Config) -> Result<(), OpenError> {
        let dir = log_dir(config);
        if !dir.is_dir() {
            fs::create_dir(&dir).map_err(failed("create", &dir))?;
            config
                .files
                .0
                .sync_dir(&config.dir)
                .map_err(failed("sync", &config.dir))?;
        }
        for path in &self.unfinished {
            config
                .files
                .0
                .remove(path)
                .map_err(failed("remove", path))?;
        }
        for surveyed in &self.files {
            if let Surveyed::Known { file, whole: false } = surveyed {
                let mended = file.handle.write_at(&file.header.to_block(), 0);
                let path = file.header.id.path(&dir);
                mended
                    .and_then(|()| file.handle.sync())
                    .map_err(failed("mend", &path))?;
            }
        }
        Ok(())
    }

    /// The files in order, each with its end.
    pub(super) fn walk_files(&self, dir: &Path, tail: &Tail) -> Vec<WalkFile> {
        let mut files = Vec::new();
        for surveyed in &self.files {
            match surveyed {
                Surveyed::Broken { path, bytes, .. } => {
                    files.push(WalkFile::Broken {
                        path: path.clone(),
                        bytes: *bytes,
                    });
                }
                Surveyed::Known { file, .. } if file.header.id.file <= tail.file.header.id.file => {
                    let end = if file.header.id == tail.file.header.id {
                        tail.at
                    } else {
                        file.len
                    };
                    let path = file.header.id.path(dir);
                    files.push(WalkFile::Log {
                        file: file.clone(),
                        path,
                        end,
                    });
                }
                // Made ahead, or emptied.
                Surveyed::Known { .. } => {}
            }
        }
        files
    }

    /// Files for the accounts: which, how many bytes, whether full.
    pub(super) fn usages(&self, tail: &Tail) -> Vec<(FileId, u64, bool)> {
        let current = tail.file.header.id;
        let upto = self
            .known()
            .filter(|file| file.header.id.file <= current.file);
        upto.map(|file| {
            let is_current = file.header.id == current;
            (
                file.header.id,
                if is_current { tail.at } else { file.len },
                !is_current,
            )
        })
        .collect()
    }
}

fn look_at(config: &Config, id: FileId, path: &Path) -> Result<Surveyed, OpenError> {
    let handle = config.files.0.open(path).map_err(failed("open", path))?;
    let len = handle.len().map_err(failed("read", path))?;
    match Header::read(&*handle) {
        Ok(HeaderRead::Unknown { version }) => Err(OpenError::UnknownFormat {
            file: path.to_owned(),
            version,
        }),
        Ok(HeaderRead::Known { header, whole }) if header.id == id => Ok(Surveyed::Known {
            file: LogFile {
                header,
                handle,
                len,
            },
            whole,
        }),
        Ok(HeaderRead::Known { .. } | HeaderRead::Damaged) => Ok(Surveyed::Broken {
            id,
            path: path.to_owned(),
            bytes: len,
        }),
        Err(error) if error.raw_os_error() == Some(libc::EIO) => Ok(Surveyed::Broken {
            id,
            path: path.to_owned(),
            bytes: len,
        }),
        Err(error) => Err(failed("read", path)(error)),
    }
}
