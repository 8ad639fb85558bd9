//! A prefix's paths. Nearly always it is one, which stands in the prefix's entry.

use std::ops::{Deref, DerefMut};

use super::Path;
use crate::decision::Grade;

/// The paths of a prefix, in no order.
#[derive(Debug, Default)]
pub(super) enum Paths {
    /// There is none.
    #[default]
    None,
    /// There is one: nothing is to be compared.
    One(Path),
    /// There are several.
    Several(Box<Several>),
}

/// Paths, and how each stands in the first steps of the decision, at the same place.
#[derive(Debug, Default)]
pub(super) struct Several {
    paths: Vec<Path>,
    grades: Vec<Grade>,
}

impl Paths {
    /// Adds a path.
    pub(super) fn push(&mut self, path: Path) {
        match self {
            Self::None => *self = Self::One(path),
            Self::One(first) => {
                let mut several = Box::<Several>::default();
                several.push(first.clone());
                several.push(path);
                *self = Self::Several(several);
            }
            Self::Several(several) => several.push(path),
        }
    }

    /// Puts a path in the place of another, which is returned; of none where there is none at that place.
    pub(super) fn replace(&mut self, place: usize, path: Path) -> Option<Path> {
        if let Self::Several(several) = self {
            *several.grades.get_mut(place)? = path.candidate().grade();
        }
        Some(std::mem::replace(self.get_mut(place)?, path))
    }

    /// Takes a path out; the place must be one of a path.
    pub(super) fn remove(&mut self, place: usize) -> Option<Path> {
        let Self::Several(several) = self else {
            let Self::One(path) = std::mem::take(self) else {
                return None;
            };
            return Some(path);
        };
        several.grades.remove(place);
        let path = several.paths.remove(place);
        if several.paths.len() == 1
            && let Some(last) = several.paths.pop()
        {
            *self = Self::One(last);
        }
        Some(path)
    }

    /// How each path stands in the first steps of the decision; nothing where there is nothing to compare.
    pub(super) fn grades(&self) -> &[Grade] {
        match self {
            Self::None | Self::One(_) => &[],
            Self::Several(several) => &several.grades,
        }
    }
}

impl Several {
    fn push(&mut self, path: Path) {
        self.grades.push(path.candidate().grade());
        self.paths.push(path);
    }
}

impl Deref for Paths {
    type Target = [Path];

    fn deref(&self) -> &[Path] {
        match self {
            Self::None => &[],
            Self::One(path) => std::slice::from_ref(path),
            Self::Several(several) => &several.paths,
        }
    }
}

impl DerefMut for Paths {
    fn deref_mut(&mut self) -> &mut [Path] {
        match self {
            Self::None => &mut [],
            Self::One(path) => std::slice::from_mut(path),
            Self::Several(several) => &mut several.paths,
        }
    }
}
