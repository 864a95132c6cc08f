//! Files that are generated from the code, whole or between marks.

use std::path::{Path, PathBuf};
use std::{fs, io};

/// Why a file was not written or is not as it should be.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FileError {
    /// It cannot be read or written.
    #[error("{0}: {1}")]
    Io(PathBuf, #[source] io::Error),
    /// A part has no marks around it.
    #[error("{0} has no lines with '{1}' and '{2}' around the generated part")]
    Marks(&'static str, String, String),
    /// The document is no JSON.
    #[error(transparent)]
    Json(serde_json::Error),
    /// A file is out of date.
    #[error("run 'cargo xtask routes'")]
    Stale,
}

/// A file as the code says that it is.
pub(crate) struct GeneratedFile {
    pub(crate) name: &'static str,
    path: PathBuf,
    was: String,
    text: String,
}

impl GeneratedFile {
    /// A file that is written as a whole.
    pub(crate) fn whole(root: &Path, name: &'static str, text: String) -> Result<Self, FileError> {
        let path = root.join(name);
        let was = fs::read_to_string(&path).map_err(|error| FileError::Io(path.clone(), error))?;
        Ok(Self { name, path, was, text })
    }

    /// A file of which parts are written: for each a name, and the lines between the line with `<name> below` and the one
    /// with `<name> above`, in which the names stand after 'written by cargo xtask:'.
    pub(crate) fn parts(
        root: &Path,
        name: &'static str,
        parts: &[(&str, String)],
    ) -> Result<Self, FileError> {
        let mut file = Self::whole(root, name, String::new())?;
        file.text.clone_from(&file.was);
        for (part, lines) in parts {
            let marks = ["below", "above"].map(|place| format!("cargo xtask routes: {part} {place}"));
            let [begin, end] = &marks;
            let replaced = between(&file.text, begin, end, lines);
            file.text = replaced.ok_or_else(|| FileError::Marks(name, begin.clone(), end.clone()))?;
        }
        Ok(file)
    }

    pub(crate) fn is_current(&self) -> bool {
        self.was == self.text
    }

    pub(crate) fn write(&self) -> Result<(), FileError> {
        fs::write(&self.path, &self.text).map_err(|error| FileError::Io(self.path.clone(), error))
    }
}

/// The text with these lines between the line that holds `begin` and the one that holds `end`.
fn between(text: &str, begin: &str, end: &str, lines: &str) -> Option<String> {
    let (before, rest) = text.split_at_checked(text.find(begin)?)?;
    let (mark, rest) = rest.split_once('\n')?;
    let at = rest.find(end)?;
    let line = rest.get(..at)?.rfind('\n').map_or(0, |newline| newline + 1);
    Some(format!("{before}{mark}\n{lines}{}", rest.get(line..)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_lines_between_the_marks_are_replaced() {
        let text = "a\n# x below\nold\n\n  # x above\nb\n";
        assert_eq!(
            between(text, "x below", "x above", "new\n").unwrap(),
            "a\n# x below\nnew\n  # x above\nb\n"
        );
        assert_eq!(
            between("# x below\n# x above\n", "x below", "x above", "").unwrap(),
            "# x below\n# x above\n"
        );
        assert_eq!(between("# x below\n", "x below", "x above", ""), None);
        assert_eq!(between("# x above\n# x below\n", "x below", "x above", ""), None);
    }
}
